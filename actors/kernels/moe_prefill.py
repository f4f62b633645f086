"""Mixture of experts for many rows: sorted by expert, two grouped products, one weighted sum.

The grouped product is torch's own; the sum reads every row's parts where the sort put them, so no
part is moved back.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from actors.kernels.residual import silu_mul


@triton.jit
def _combine_kernel(
    parts_ptr, where_ptr, weight_ptr, out_ptr, D, TOP: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(TOP):
        pair = row * TOP + k
        part = tl.load(where_ptr + pair)
        value = tl.load(parts_ptr + part * D + at, mask=at < D, other=0.0).to(tl.float32)
        weighted = (value * tl.load(weight_ptr + pair)).to(out_ptr.dtype.element_ty)
        total += weighted.to(tl.float32)
    tl.store(out_ptr + row * D + at, total.to(out_ptr.dtype.element_ty), mask=at < D)


@triton.jit
def _places_kernel(order_ptr, where_ptr, source_ptr, count, TOP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pair = tl.load(order_ptr + at, mask=at < count, other=0)
    tl.store(where_ptr + pair, at.to(tl.int64), mask=at < count)
    tl.store(source_ptr + at, pair // TOP, mask=at < count)


@cache
def _expert_numbers(count: int, device: torch.device) -> Tensor:
    """int32 ``[count]``: 1 to count."""
    return torch.arange(1, count + 1, device=device, dtype=torch.int32)


def by_expert(ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """Pairs of a row and one of its experts, those of one expert behind one another.

    Args:
        ids: int32 ``[N, k]``, each row's experts.
        num_experts: Experts that there are.

    Returns:
        (pairs int64 ``[N k]``, where each expert's pairs end among them int32 ``[experts]``).
    """
    chosen, order = torch.sort(ids.reshape(-1), stable=True)
    numbers = _expert_numbers(num_experts, ids.device)
    return order, torch.searchsorted(chosen, numbers, out_int32=True)


def experts_for_many(
    x_ND: Tensor, ids: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, out_ND: Tensor
) -> None:
    """Add up chosen experts' outputs; a partial sum over this rank's columns.

    Args:
        x_ND: Rows.
        ids: int32 ``[N, k]``, each row's experts.
        weights: float32 ``[N, k]``.
        gate_up: ``[E, 2I, D]``.
        down: ``[E, D, I]``.
        out_ND: Receives the weighted sums.
    """
    rows, top = ids.shape
    order, offsets = by_expert(ids, gate_up.shape[0])
    where, source = torch.empty_like(order), torch.empty_like(order)
    count = order.shape[0]
    _places_kernel[(triton.cdiv(count, 1024),)](order, where, source, count, TOP=top, BLOCK=1024)
    both = functional.grouped_mm(x_ND[source], gate_up.transpose(-2, -1), offs=offsets)
    inner = both.new_empty(both.shape[0], both.shape[1] // 2)
    silu_mul(both, inner)
    parts = functional.grouped_mm(inner, down.transpose(-2, -1), offs=offsets)
    width = x_ND.shape[1]
    _combine_kernel[(rows, triton.cdiv(width, 1024))](
        parts, where, weights, out_ND, width, TOP=top, BLOCK=1024, num_warps=4
    )
