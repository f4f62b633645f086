"""Add, steer, capture and normalise a row of the residual stream in one pass over it.

The fused form of ``hidden + delta`` in forward.py, ``steer.apply_round``, pooled capture
and the next RMSNorm: one read and one write of the row instead of five. Rows are independent, one
program each, so steering cannot reach a neighbour.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def steer_row(  # noqa: ANN201 - a Triton value
    x, row, at, inside, bank_ptr, unit_ptr, slot_ptr, kind_ptr, coefficient_ptr, D: tl.constexpr
):  # fmt: skip
    """The row after its own operator; slot 0 changes nothing."""
    kind_of_x = x.dtype
    slot = tl.load(slot_ptr + row)
    if slot > 0:
        h = x.to(tl.float32)
        c = tl.load(coefficient_ptr + row)
        kind = tl.load(kind_ptr + row)
        if kind <= 1:
            v = tl.load(bank_ptr + slot * D + at, mask=inside, other=0.0)
            if kind == 1:
                c = c * tl.sqrt(tl.sum(h * h, axis=0))
            h = h + c * v
        else:
            u = tl.load(unit_ptr + slot * D + at, mask=inside, other=0.0)
            along = tl.sum(h * u, axis=0)
            shift = -c * along
            if kind == 3:
                shift = tl.maximum(c - along, 0.0)
            if kind == 4:
                shift = tl.minimum(c - along, 0.0)
            h = h + shift * u
        x = h.to(kind_of_x)
    return x


@triton.jit
def pool_row(
    h, row, at, inside, total_ptr, row_slot_ptr, position_ptr, first_ptr, stop_ptr, live_ptr,
    D: tl.constexpr,
) -> None:  # fmt: skip
    """Add a float32 row to its request's sum where the request is live and reads the position."""
    position = tl.load(position_ptr + row)
    reads = (position >= tl.load(first_ptr + row)) & (position < tl.load(stop_ptr + row))
    if reads & (tl.load(live_ptr + row) > 0):
        base = total_ptr + tl.load(row_slot_ptr + row).to(tl.int64) * D + at
        tl.store(base, tl.load(base, mask=inside, other=0.0) + h, mask=inside)


@triton.jit
def norm_row(h, row, at, inside, weight_ptr, out_ptr, eps, D: tl.constexpr) -> None:
    """Store RMSNorm of a float32 row, rounded where transformers rounds."""
    kind = out_ptr.dtype.element_ty
    scale = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0)
    normed = (h * scale).to(kind)
    scaled = weight.to(tl.float32) * normed.to(tl.float32)
    tl.store(out_ptr + row * D + at, scaled.to(kind), mask=inside)


@triton.jit
def _residual_kernel(
    x_ptr, delta_ptr, weight_ptr, out_ptr, rows_ptr, step_ptr, step_stride,
    bank_ptr, unit_ptr, slot_ptr, kind_ptr, coefficient_ptr,
    total_ptr, row_slot_ptr, position_ptr, first_ptr, stop_ptr, live_ptr,
    eps, D: tl.constexpr, BLOCK: tl.constexpr, HAS_DELTA: tl.constexpr, STEER: tl.constexpr,
    CAPTURE: tl.constexpr, KEEP_ROWS: tl.constexpr, TURN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < D
    x = tl.load(x_ptr + row * D + at, mask=inside, other=0.0)
    kind_of_x = x.dtype
    if HAS_DELTA:
        delta = tl.load(delta_ptr + row * D + at, mask=inside, other=0.0)
        x = (x.to(tl.float32) + delta.to(tl.float32)).to(kind_of_x)
    if STEER:
        x = steer_row(
            x, row, at, inside, bank_ptr, unit_ptr, slot_ptr, kind_ptr, coefficient_ptr, D
        )
    if HAS_DELTA or STEER:
        tl.store(x_ptr + row * D + at, x, mask=inside)
    h = x.to(tl.float32)
    if CAPTURE:
        pool_row(
            h, row, at, inside, total_ptr, row_slot_ptr, position_ptr, first_ptr, stop_ptr,
            live_ptr, D,
        )  # fmt: skip
    if KEEP_ROWS:
        kept = rows_ptr + tl.load(step_ptr) % TURN * step_stride
        tl.store(kept + row * D + at, x, mask=inside)
    norm_row(h, row, at, inside, weight_ptr, out_ptr, eps, D)


def residual_norm(
    x_ND: Tensor,
    delta_ND: Tensor | None,
    weight_D: Tensor,
    eps: float,
    out_ND: Tensor,
    *,
    steer: tuple[Tensor, ...] | None = None,
    capture: tuple[Tensor, ...] | None = None,
    keep: tuple[Tensor, Tensor] | None = None,
) -> None:
    """``x += delta``; steer; add to the pooled sums; ``out = RMSNorm(x)``.

    Args:
        x_ND: Residual stream, changed in place.
        delta_ND: Added first; None adds nothing.
        weight_D: RMSNorm gain.
        eps: RMSNorm epsilon.
        out_ND: Receives the normed rows.
        steer: (bank ``[V, D]`` float32, units ``[V, D]``, slots ``[N]`` int32, operator kinds
            ``[N]`` int32, coefficients ``[N]`` float32); slot 0 steers nothing.
        capture: (sums ``[slots, D]`` float32, row slots, positions, first, stop, live; ``[N]``).
        keep: (rows ``[steps, N or more, D]``, step int64 ``[1]``): the steered rows go to
            ``rows[step % steps, :N]``.
    """
    none = weight_D
    bank = steer or (none,) * 5
    taken = capture or (none,) * 6
    kept, step = keep or (none, none)
    width = x_ND.shape[1]
    block = triton.next_power_of_2(width)
    _residual_kernel[(x_ND.shape[0],)](
        x_ND, delta_ND if delta_ND is not None else none, weight_D, out_ND,
        kept, step, kept.stride(0), *bank, *taken, eps,
        D=width, BLOCK=block, HAS_DELTA=delta_ND is not None, STEER=steer is not None,
        CAPTURE=capture is not None, KEEP_ROWS=keep is not None, TURN=kept.shape[0],
        num_warps=8 if block >= 4096 else 4,
    )  # fmt: skip


@triton.jit
def _silu_mul_kernel(both_ptr, out_ptr, INNER: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < INNER
    gate = tl.load(both_ptr + row * 2 * INNER + at, mask=inside, other=0.0)
    up = tl.load(both_ptr + row * 2 * INNER + INNER + at, mask=inside, other=0.0)
    g = gate.to(tl.float32)
    silu = (g * tl.sigmoid(g)).to(gate.dtype)
    tl.store(out_ptr + row * INNER + at, silu * up, mask=inside)


def silu_mul(both_NI2: Tensor, out_NI: Tensor) -> None:
    """``out = silu(gate) * up`` for rows ``[gate | up]``."""
    rows, width = out_NI.shape
    block = min(1024, triton.next_power_of_2(width))
    _silu_mul_kernel[(rows, triton.cdiv(width, block))](both_NI2, out_NI, INNER=width, BLOCK=block)


def residual_norm_reference(
    x_ND: Tensor, delta_ND: Tensor | None, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Plain torch: (x + delta, RMSNorm(x + delta)), rounded where transformers rounds."""
    x = x_ND if delta_ND is None else x_ND + delta_ND
    h = x.float()
    normed = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)
    return x, weight_D * normed.to(x.dtype)
