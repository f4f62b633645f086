"""Sum few rows over ranks and finish the residual step, in one kernel and one trip over the links.

Every rank pushes its partial row to every peer. An 8-byte word carries 4 bytes of data and the
number of the exchange, so a reader sees by the word itself that it has come (NCCL's LL protocol);
no flag, fence or barrier is needed. Two buffers taken in turn suffice: a rank that begins exchange
n + 2 of a row has got everybody's n + 1, which they sent after they had read n. All ranks add in
rank order, so all hold the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.kernels.residual import pool_row, steer_row

PATIENCE = 2**31 - 1
"""Polls, of about a microsecond, before a row is given up as NaN; a watchdog acts long before."""
WORLDS = (1, 2, 4, 8)


@triton.jit
def _push(address, data, number):
    """Store ``data`` and ``number`` as one 8-byte word in a peer's memory."""
    tl.inline_asm_elementwise(
        "{ .reg .b64 w; mov.b64 w, {$2, $3}; st.relaxed.sys.global.b64 [$1], w; mov.u32 $0, 0; }",
        "=r,l,r,r", [address, data, number], dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def _low(both):
    """The first bfloat16 of a pair, as float32."""
    return (both << 16).to(tl.float32, bitcast=True)


@triton.jit
def _high(both):
    """The second bfloat16 of a pair, as float32."""
    return (both & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _pair(low, high):
    """Two float32 rounded to bfloat16, in one int32."""
    first = low.to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    second = high.to(tl.bfloat16).to(tl.int16, bitcast=True).to(tl.int32) << 16
    return first | second


@triton.jit
def _exchange_kernel(
    part_ptr, x_ptr, weight_ptr, out_ptr, kept_ptr, step_ptr, step_stride,
    bank_ptr, unit_ptr, slot_ptr, kind_ptr, coefficient_ptr,
    total_ptr, row_slot_ptr, position_ptr, first_ptr, stop_ptr, live_ptr,
    peers_ptr, number_ptr, max_rows, patience, eps,
    D: tl.constexpr, HALF: tl.constexpr, PARTS: tl.constexpr, RANK: tl.constexpr,
    WORLD: tl.constexpr, STEER: tl.constexpr, CAPTURE: tl.constexpr, KEEP_ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    words: tl.constexpr = D // 2
    # Lanes beyond the row repeat its last word, so that no lane waits for what nobody sends.
    word = tl.minimum(tl.arange(0, HALF), words - 1)
    if PARTS == 1:
        mine = tl.load(part_ptr + row * words + word)
        low, high = _low(mine), _high(mine)
    else:
        low = tl.zeros([HALF], tl.float32)
        high = tl.zeros([HALF], tl.float32)
        for k in tl.static_range(PARTS):
            both = tl.load(part_ptr + (row * PARTS + k).to(tl.int64) * words + word)
            low += _low(both)
            high += _high(both)
        mine = _pair(low, high)
        low, high = _low(mine), _high(mine)
    if WORLD > 1:
        number = tl.load(number_ptr + row) + 1
        turn = number & 1
        sent = (turn * WORLD + RANK).to(tl.int64) * max_rows + row
        for peer in tl.static_range(WORLD):
            base = tl.load(peers_ptr + (RANK + peer) % WORLD)
            _push(base + (sent * words + word) * 8, mine, number)
        source = tl.arange(0, WORLD)
        come = (turn * WORLD + source).to(tl.int64) * max_rows + row
        home = tl.load(peers_ptr + RANK).to(tl.pointer_type(tl.int64))
        at_word = home + come[:, None] * words + word[None]
        got = tl.load(at_word, volatile=True)
        late = tl.max(tl.max(((got >> 32).to(tl.int32) != number).to(tl.int32), axis=1), axis=0)
        tries = 0
        while (late > 0) & (tries < patience):
            got = tl.load(at_word, volatile=True)
            late = tl.max(tl.max(((got >> 32).to(tl.int32) != number).to(tl.int32), axis=1), axis=0)
            tries += 1
        both = got.to(tl.int32)
        low = tl.sum(_low(both), axis=0)
        high = tl.sum(_high(both), axis=0)
        low = tl.where(late > 0, float("nan"), low)
        tl.store(number_ptr + row, number)
    delta = tl.interleave(low, high)
    at = tl.arange(0, 2 * HALF)
    inside = at < D
    x = tl.load(x_ptr + row * D + at, mask=inside, other=0.0)
    kind_of_x = x.dtype
    delta = tl.where(inside, delta.to(kind_of_x).to(tl.float32), 0.0)
    x = (x.to(tl.float32) + delta).to(kind_of_x)
    if STEER:
        x = steer_row(
            x, row, at, inside, bank_ptr, unit_ptr, slot_ptr, kind_ptr, coefficient_ptr, D
        )
    tl.store(x_ptr + row * D + at, x, mask=inside)
    h = x.to(tl.float32)
    if CAPTURE:
        pool_row(
            h, row, at, inside, total_ptr, row_slot_ptr, position_ptr, first_ptr, stop_ptr,
            live_ptr, D,
        )  # fmt: skip
    if KEEP_ROWS:
        kept = kept_ptr + tl.load(step_ptr) * step_stride
        tl.store(kept + row * D + at, x, mask=inside)
    scale = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0)
    normed = (h * scale).to(kind_of_x)
    scaled = weight.to(tl.float32) * normed.to(tl.float32)
    tl.store(out_ptr + row * D + at, scaled.to(kind_of_x), mask=inside)


class Mailbox(NamedTuple):
    """What a rank needs to exchange rows with its peers."""

    peers: Tensor
    """int64 ``[world]``: address of each rank's words, this rank's own included."""
    numbers: Tensor
    """int32 ``[max_rows]``: exchanges done so far, by row."""
    words: Tensor
    """int64 ``[2, world, max_rows, D / 2]`` in memory that peers can write."""
    rank: int
    world: int


def alone(device: torch.device) -> Mailbox:
    """The mailbox of a single rank, which exchanges nothing."""
    empty = torch.zeros(1, dtype=torch.int64, device=device)
    return Mailbox(empty, empty.int(), empty.view(1, 1, 1, 1), 0, 1)


def exchange_residual(
    parts: Tensor,
    x_ND: Tensor,
    weight_D: Tensor,
    eps: float,
    out_ND: Tensor,
    mailbox: Mailbox,
    *,
    steer: tuple[Tensor, ...] | None = None,
    capture: tuple[Tensor, ...] | None = None,
    keep: tuple[Tensor, Tensor] | None = None,
    patience: int = PATIENCE,
) -> None:
    """``x += sum over ranks and parts``; steer; pool; ``out = RMSNorm(x)``. Collective.

    Args:
        parts: bfloat16 ``[N, D]``, or ``[N, parts, D]`` to be added up first; contiguous.
        x_ND: bfloat16 residual stream, changed in place.
        weight_D: RMSNorm gain.
        eps: RMSNorm epsilon.
        out_ND: Receives the normed rows.
        mailbox: Of this rank, for N rows or more.
        steer: As in ``residual_norm``.
        capture: As in ``residual_norm``.
        keep: As in ``residual_norm``.
        patience: Polls before a row that does not come is NaN.
    """
    none = weight_D
    rows, width = x_ND.shape
    kept, step = keep or (none, none)
    half = triton.next_power_of_2(width) // 2
    _exchange_kernel[(rows,)](
        parts.view(torch.int32), x_ND, weight_D, out_ND, kept, step, kept.stride(0),
        *(steer or (none,) * 5), *(capture or (none,) * 6),
        mailbox.peers, mailbox.numbers, mailbox.words.shape[2], patience, eps,
        D=width, HALF=half, PARTS=parts.shape[1] if parts.ndim == 3 else 1, RANK=mailbox.rank,
        WORLD=mailbox.world, STEER=steer is not None, CAPTURE=capture is not None,
        KEEP_ROWS=keep is not None, num_warps=max(4, min(16, half // 128)),
    )  # fmt: skip
