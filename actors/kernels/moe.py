"""Mixture of experts for few rows: every weight tile is streamed once, whatever rows need it.

Rows are grouped by expert in tiles of ``TILE`` rows. The first product computes gate, up and SiLU
in one pass; the second applies the routing weight; a last kernel adds each row's parts. A shared
expert is one more expert that every row chooses with weight 1. Nothing depends on the host, so a
CUDA graph can hold it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.kernels.expert_products import down_kernel, gate_up_kernel


@triton.jit
def _align_kernel(
    ids_ptr, order_ptr, tile_expert_ptr, tile_rows_ptr, P,
    PB: tl.constexpr, EB: tl.constexpr, TILE: tl.constexpr, MAX_TILES, BLOCK: tl.constexpr,
):  # fmt: skip
    every = tl.arange(0, PB)
    ids = tl.load(ids_ptr + every, mask=every < P, other=EB - 1)
    counts = tl.histogram(ids, EB)
    bins = tl.arange(0, EB)
    counts = tl.where(bins == EB - 1, 0, counts)
    tiles = (counts + TILE - 1) // TILE
    ends = tl.cumsum(tiles, axis=0)
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    my_id = tl.load(ids_ptr + mine, mask=mine < P, other=EB - 1)
    same = (ids[None] == my_id[:, None]) & (every[None] < mine[:, None])
    rank = tl.sum(same.to(tl.int32), axis=1)
    chosen = bins[None] == my_id[:, None]
    start = tl.sum(tl.where(chosen, (ends - tiles)[None], 0), axis=1) * TILE
    tl.store(order_ptr + start + rank, mine, mask=mine < P)
    owner = tl.sum((ends[None] <= mine[:, None]).to(tl.int32), axis=1)
    owns = bins[None] == owner[:, None]
    first = tl.sum(tl.where(owns, (ends - tiles)[None], 0), axis=1)
    count = tl.sum(tl.where(owns, counts[None], 0), axis=1)
    rows = tl.minimum(tl.maximum(count - (mine - first) * TILE, 0), TILE)
    is_tile = mine < MAX_TILES
    tl.store(tile_expert_ptr + mine, tl.minimum(owner, EB - 1), mask=is_tile)
    tl.store(tile_rows_ptr + mine, rows, mask=is_tile)


@triton.jit
def _add_parts_kernel(parts_ptr, out_ptr, D, TOP: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(TOP):
        total += tl.load(parts_ptr + (row * TOP + k) * D + at, mask=at < D, other=0.0)
    tl.store(out_ptr + row * D + at, total.to(out_ptr.dtype.element_ty), mask=at < D)


FEW_PAIRS = 18
"""Row and expert pairs up to which sorting costs more than an expert read twice."""


class Scratch(NamedTuple):
    """Buffers of one batch size; contents are meaningless between calls."""

    ids: Tensor
    weights: Tensor
    order: Tensor
    tile_expert: Tensor
    tile_rows: Tensor
    hidden: Tensor
    parts: Tensor
    tile: int
    is_grouped: bool
    """False: so few pairs that each is a tile of its own and nothing has to be sorted."""


def make_scratch(
    rows: int, top: int, num_experts: int, width: int, hidden: int, like: Tensor
) -> Scratch:
    """Allocate buffers for ``rows`` rows that choose ``top`` experts each (shared included)."""
    pairs = rows * top
    per_expert = pairs / num_experts
    tile = 16 if per_expert <= 16 else 32 if per_expert <= 48 else 64
    is_grouped = pairs > FEW_PAIRS
    tiles = min(pairs, num_experts + pairs // tile) if is_grouped else pairs
    device = like.device
    ids = torch.zeros(rows, top, dtype=torch.int32, device=device)
    order = torch.zeros(tiles * tile, dtype=torch.int32, device=device)
    if not is_grouped:
        order[::tile] = torch.arange(pairs, dtype=torch.int32, device=device)
    return Scratch(
        ids=ids,
        weights=torch.zeros(rows, top, dtype=torch.float32, device=device),
        order=order,
        tile_expert=torch.zeros_like(order[:tiles]) if is_grouped else ids.view(-1),
        tile_rows=torch.ones(tiles, dtype=torch.int32, device=device),
        hidden=torch.zeros(pairs, width, dtype=like.dtype, device=device),
        parts=torch.zeros(pairs, hidden, dtype=like.dtype, device=device),
        tile=tile,
        is_grouped=is_grouped,
    )


def run_experts(x_ND: Tensor, gate_up_EID: Tensor, down_EDI: Tensor, scratch: Scratch) -> Tensor:
    """Experts chosen in ``scratch`` applied to the rows: this rank's part of each product.

    Args:
        x_ND: Rows.
        gate_up_EID: ``[E, 2I, D]``.
        down_EDI: ``[E, D, INNER]``.
        scratch: Its experts and weights are chosen (``route.choose_experts``).

    Returns:
        ``[N, experts of a row, D]`` in the scratch, weighted; ``add_parts`` sums them.
    """
    rows, width = x_ND.shape
    experts, inner = gate_up_EID.shape[0], gate_up_EID.shape[1] // 2
    top = scratch.ids.shape[1]
    pairs, tiles, tile = rows * top, scratch.tile_rows.shape[0], scratch.tile
    if scratch.is_grouped:
        align(scratch, pairs, experts)
    few = tiles * triton.cdiv(inner, 64) < 264
    bn = 16 if few else 32 if tile == 64 else 64
    where = (scratch.order, None, scratch.tile_expert, scratch.tile_rows)
    plain: dict[str, Any] = {
        "scale_rows": None, "scale_columns": None, "RB": 1, "CB": 1, "BITS": False, "TILE": tile,
    }  # fmt: skip
    gate_up_kernel[(triton.cdiv(inner, bn), tiles)](
        x_ND, gate_up_EID, None, scratch.hidden, *where, width, inner, **plain, TOP=top,
        BN=bn, BK=128 if few else 64, num_warps=4, num_stages=4,
    )  # fmt: skip
    bn = 64 if few else 128
    down_kernel[(triton.cdiv(width, bn), tiles)](
        scratch.hidden, down_EDI, None, scratch.parts, *where, scratch.weights, width, inner,
        **plain, BN=bn, BK=64, num_warps=4, num_stages=4,
    )  # fmt: skip
    return scratch.parts.view(rows, top, width)


def add_parts(parts_NKD: Tensor, out_ND: Tensor) -> Tensor:
    """Sum each row's parts in float32 into ``out_ND``, which is returned."""
    rows, top, width = parts_NKD.shape
    _add_parts_kernel[(rows, triton.cdiv(width, 1024))](
        parts_NKD, out_ND, width, TOP=top, BLOCK=1024, num_warps=4
    )
    return out_ND


def align(scratch: Scratch, pairs: int, experts: int) -> None:
    """Group the pairs of each expert into tiles: fills ``order`` and the tiles' facts."""
    padded = triton.next_power_of_2(pairs)
    tiles = scratch.tile_rows.shape[0]
    block = max(1, min(16, 16384 // padded))
    _align_kernel[(triton.cdiv(max(pairs, tiles), block),)](
        scratch.ids, scratch.order, scratch.tile_expert, scratch.tile_rows, pairs,
        PB=padded, EB=triton.next_power_of_2(experts + 1), TILE=scratch.tile,
        MAX_TILES=tiles, BLOCK=block, num_warps=8,
    )  # fmt: skip
