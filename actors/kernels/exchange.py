"""Sum few rows over ranks and finish the residual step, in one kernel.

A rank pushes its partial row to every peer (one step), or to the row's owner, which pushes the sum
back (two steps: half the bytes, one more trip). An 8-byte word carries 4 bytes of data and the
number of the exchange, so a reader sees by the word itself that it has come (NCCL's LL protocol);
no flag, fence or barrier is needed. Two buffers taken in turn suffice: a rank that begins exchange
n + 2 of a row has ended n + 1, which needed every reader of n to be past it. A row's sum is made in
rank order, so all ranks hold the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.kernels.residual import norm_row, pool_row, steer_row

PATIENCE = 2**31 - 1
"""Polls, of about a microsecond, before a row is given up as NaN; a watchdog acts long before."""
WORLDS = (1, 2, 4, 8)


@triton.jit
def _push(address, word, data, number):
    """Store each lane's ``data`` and ``number`` as one 8-byte word in a peer's memory.

    An ordinary store: aligned 8-byte parts of it were never torn or held back where this was tested
    (H200, CUDA 13, thousands of exchanges), which the PTX memory model does not promise. The test
    at start runs on every machine, and one that fails it takes the other ways.
    """
    there = address.to(tl.pointer_type(tl.int64))
    both = (number.to(tl.int64) << 32) | (data.to(tl.int64) & 0xFFFFFFFF)
    tl.store(there + word, both)


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
def _address(base, turn, source, row, max_rows, HALF: tl.constexpr, WORLD: tl.constexpr):
    """Address of a row's first word; source ``WORLD`` holds sums that an owner sends back."""
    number = (turn * (WORLD + 1) + source).to(tl.int64) * max_rows + row
    return base + number * (HALF * 8)


@triton.jit
def _gather(
    base, turn, row, max_rows, number, mine, word, patience,
    RANK: tl.constexpr, HALF: tl.constexpr, WORLD: tl.constexpr,
):  # fmt: skip
    """Wait for every peer's row and add them all in rank order."""
    source = tl.arange(0, WORLD)
    at = _address(base, turn, source, row, max_rows, HALF, WORLD).to(tl.pointer_type(tl.int64))
    other = (source != RANK)[:, None]
    own = number.to(tl.int64) << 32
    got = tl.load(at[:, None] + word[None], mask=other, other=own, volatile=True)
    late = tl.max(tl.max(((got >> 32).to(tl.int32) != number).to(tl.int32), axis=0), axis=0)
    tries = 0
    while (late > 0) & (tries < patience):
        got = tl.load(at[:, None] + word[None], mask=other, other=own, volatile=True)
        late = tl.max(tl.max(((got >> 32).to(tl.int32) != number).to(tl.int32), axis=0), axis=0)
        tries += 1
    both = tl.where(other, got.to(tl.int32), mine[None])
    low = tl.where(late > 0, float("nan"), tl.sum(_low(both), axis=0))
    return low, tl.sum(_high(both), axis=0)


@triton.jit
def _await(at, number, word, patience):
    """Wait for one row that an owner sends back."""
    got = tl.load(at + word, volatile=True)
    late = tl.max(((got >> 32).to(tl.int32) != number).to(tl.int32), axis=0)
    tries = 0
    while (late > 0) & (tries < patience):
        got = tl.load(at + word, volatile=True)
        late = tl.max(((got >> 32).to(tl.int32) != number).to(tl.int32), axis=0)
        tries += 1
    both = got.to(tl.int32)
    return tl.where(late > 0, float("nan"), _low(both)), _high(both)


@triton.jit
def _exchange_kernel(
    part_ptr, x_ptr, weight_ptr, out_ptr, kept_ptr, step_ptr, step_stride,
    bank_ptr, unit_ptr, slot_ptr, kind_ptr, coefficient_ptr,
    total_ptr, row_slot_ptr, position_ptr, first_ptr, stop_ptr, live_ptr,
    peers_ptr, number_ptr, max_rows, patience, eps,
    D: tl.constexpr, HALF: tl.constexpr, PARTS: tl.constexpr, RANK: tl.constexpr,
    WORLD: tl.constexpr, TWO_STEPS: tl.constexpr, STEER: tl.constexpr, CAPTURE: tl.constexpr,
    KEEP_ROWS: tl.constexpr, TURN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    words: tl.constexpr = D // 2
    word = tl.arange(0, HALF)
    if PARTS == 1:
        mine = tl.load(part_ptr + row * words + word, mask=word < words, other=0)
    else:
        low = tl.zeros([HALF], tl.float32)
        high = tl.zeros([HALF], tl.float32)
        for k in tl.static_range(PARTS):
            at_part = part_ptr + (row * PARTS + k).to(tl.int64) * words
            both = tl.load(at_part + word, mask=word < words, other=0)
            low += _low(both)
            high += _high(both)
        mine = _pair(low, high)
    low, high = _low(mine), _high(mine)
    if WORLD > 1:
        number = tl.load(number_ptr + row) + 1
        turn = number & 1
        home = tl.load(peers_ptr + RANK)
        owner = row % WORLD
        if TWO_STEPS:
            if owner == RANK:
                low, high = _gather(
                    home, turn, row, max_rows, number, mine, word, patience, RANK, HALF, WORLD
                )
                total = _pair(low, high)
                for step in tl.static_range(1, WORLD):
                    base = tl.load(peers_ptr + (RANK + step) % WORLD)
                    there = _address(base, turn, WORLD, row, max_rows, HALF, WORLD)
                    _push(there, word, total, number)
            else:
                base = tl.load(peers_ptr + owner)
                there = _address(base, turn, RANK, row, max_rows, HALF, WORLD)
                _push(there, word, mine, number)
                back = _address(home, turn, WORLD, row, max_rows, HALF, WORLD)
                low, high = _await(back.to(tl.pointer_type(tl.int64)), number, word, patience)
        else:
            for step in tl.static_range(1, WORLD):
                base = tl.load(peers_ptr + (RANK + step) % WORLD)
                there = _address(base, turn, RANK, row, max_rows, HALF, WORLD)
                _push(there, word, mine, number)
            low, high = _gather(
                home, turn, row, max_rows, number, mine, word, patience, RANK, HALF, WORLD
            )
        tl.store(number_ptr + row, number)
    delta = tl.interleave(low, high)
    at = tl.arange(0, 2 * HALF)
    inside = at < D
    x = tl.load(x_ptr + row * D + at, mask=inside, other=0.0)
    kind_of_x = x.dtype
    x = (x.to(tl.float32) + delta.to(kind_of_x).to(tl.float32)).to(kind_of_x)
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
        kept = kept_ptr + tl.load(step_ptr) % TURN * step_stride
        tl.store(kept + row * D + at, x, mask=inside)
    norm_row(h, row, at, inside, weight_ptr, out_ptr, eps, D)


class Mailbox(NamedTuple):
    """What a rank needs to exchange rows with its peers."""

    peers: Tensor
    """int64 ``[world]``: address of each rank's words, this rank's own included."""
    numbers: Tensor
    """int32 ``[max_rows]``: exchanges done so far, by row."""
    words: Tensor
    """int64 ``[2, world + 1, max_rows, words]`` in memory that peers can write; a power of two."""
    rank: int
    world: int


def half_row(width: int) -> int:
    """Words of a row in a mailbox: pairs of values, up to a power of two."""
    return int(triton.next_power_of_2(width)) // 2


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
    two_steps: bool = False,
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
        two_steps: Send to each row's owner and back: better for more bytes.
        patience: Polls before a row that does not come is NaN.
    """
    none = weight_D
    rows, width = x_ND.shape
    kept, step = keep or (none, none)
    half = half_row(width)
    _exchange_kernel[(rows,)](
        parts.view(torch.int32), x_ND, weight_D, out_ND, kept, step, kept.stride(0),
        *(steer or (none,) * 5), *(capture or (none,) * 6),
        mailbox.peers, mailbox.numbers, mailbox.words.shape[2], patience, eps,
        D=width, HALF=half, PARTS=parts.shape[1] if parts.ndim == 3 else 1, RANK=mailbox.rank,
        WORLD=mailbox.world, TWO_STEPS=two_steps, STEER=steer is not None,
        CAPTURE=capture is not None, KEEP_ROWS=keep is not None, TURN=kept.shape[0],
        num_warps=max(4, min(16, half // 64)),
    )  # fmt: skip
