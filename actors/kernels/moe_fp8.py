"""Mixture of experts over FP8 weights with one scale per block, which stay FP8 in memory.

Half the bytes of bfloat16 are read. Rows are grouped in tiles as in ``actors.kernels.moe``; the
same two products serve few rows and many.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.kernels.expert_products import down_kernel, gate_up_kernel
from actors.kernels.moe import Scratch, add_parts, align
from actors.kernels.moe_prefill import by_expert

MANY_TILE = 64
"""Rows of a tile where experts have many: 128 take longer (measured on H200)."""


@triton.jit
def _tiles_kernel(
    ends_ptr, start_ptr, tile_expert_ptr, tile_rows_ptr, E, MAX_TILES,
    EB: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    bins = tl.arange(0, EB)
    ends = tl.load(ends_ptr + bins, mask=bins < E, other=0)
    begins = tl.load(ends_ptr + bins - 1, mask=(bins > 0) & (bins < E), other=0)
    counts = ends - begins
    tiles = (counts + TILE - 1) // TILE
    tile_ends = tl.cumsum(tiles, axis=0)
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    owner = tl.sum((tile_ends[None] <= mine[:, None]).to(tl.int32), axis=1)
    owns = bins[None] == owner[:, None]
    within = (mine - tl.sum(tl.where(owns, (tile_ends - tiles)[None], 0), axis=1)) * TILE
    count = tl.sum(tl.where(owns, counts[None], 0), axis=1)
    start = tl.sum(tl.where(owns, begins[None], 0), axis=1) + within
    is_tile = mine < MAX_TILES
    tl.store(tile_expert_ptr + mine, tl.minimum(owner, E - 1), mask=is_tile)
    tl.store(start_ptr + mine, tl.where(owner < E, start, 0), mask=is_tile)
    rows = tl.minimum(tl.maximum(count - within, 0), TILE)
    tl.store(tile_rows_ptr + mine, rows, mask=is_tile)


class Scaled(Protocol):
    """Matrices of all experts, as ``actors.model.block_scales.BlockScaled``."""

    @property
    def values(self) -> Tensor:
        """float8 ``[E, rows, columns]``."""

    @property
    def scales(self) -> Tensor:
        """float32, one for each block."""

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""


class Tiles(NamedTuple):
    """Pairs of a row and one of its experts, grouped by expert."""

    order: Tensor
    """int32: pairs, those of one expert behind one another."""
    start: Tensor | None
    """int32, by tile: place of its first pair; None: tiles are padded to their full size."""
    expert: Tensor
    rows: Tensor
    tile: int
    """Pairs of a tile at most."""


class Way(NamedTuple):
    """How a product is cut: columns and depth of a tile, and stages of its pipeline."""

    columns: int
    depth: int
    stages: int


# Measured on H200 with the widths of Kimi K2 at 4 and 8 ranks and of Qwen3-235B at 4.
_FEW = (Way(32, 128, 4), Way(128, 64, 4))
_MANY = (Way(128, 64, 3), Way(64, 64, 3))


def _depth(way: Way, block_columns: int) -> int:
    """The way's depth, or less: a step of a product must not leave its block of weights."""
    depth = way.depth
    while block_columns % depth:
        depth //= 2
    return depth


def _products(
    x_ND: Tensor,
    weights: Tensor,
    gate_up: Scaled,
    down: Scaled,
    tiles: Tiles,
    hidden: Tensor,
    parts: Tensor,
) -> None:
    """Both products of all tiles; ``parts`` receives each pair's weighted output."""
    width, inner, top = x_ND.shape[1], down.values.shape[2], weights.shape[1]
    ways = _FEW if tiles.tile == 16 else _MANY
    count = tiles.rows.shape[0]
    in_bits = x_ND.is_cuda and x_ND.dtype == torch.bfloat16
    stored = [m.values.view(torch.uint8) if in_bits else m.values for m in (gate_up, down)]
    where = (tiles.order, tiles.start, tiles.expert, tiles.rows)
    way, (rows, columns) = ways[0], gate_up.block
    gate_up_kernel[(triton.cdiv(inner, way.columns), count)](
        x_ND, stored[0], gate_up.scales, hidden, *where, width, inner,
        gate_up.scales.shape[1] // 2, gate_up.scales.shape[2], TOP=top, RB=rows, CB=columns,
        BITS=in_bits, TILE=tiles.tile, BN=way.columns, BK=_depth(way, columns), num_warps=4,
        num_stages=way.stages,
    )  # fmt: skip
    way, (rows, columns) = ways[1], down.block
    down_kernel[(triton.cdiv(width, way.columns), count)](
        hidden, stored[1], down.scales, parts, *where, weights, width, inner,
        down.scales.shape[1], down.scales.shape[2], RB=rows, CB=columns, BITS=in_bits,
        TILE=tiles.tile, BN=way.columns, BK=_depth(way, columns), num_warps=4,
        num_stages=way.stages,
    )  # fmt: skip


def run_fp8_experts(x_ND: Tensor, gate_up: Scaled, down: Scaled, scratch: Scratch) -> Tensor:
    """Experts chosen in ``scratch`` applied to few rows, as ``moe.run_experts``.

    Returns:
        ``[N, experts of a row, D]`` in the scratch, weighted; ``add_parts`` sums them.
    """
    rows, width = x_ND.shape
    if scratch.is_grouped:
        align(scratch, rows * scratch.ids.shape[1], gate_up.values.shape[0])
    tiles = Tiles(scratch.order, None, scratch.tile_expert, scratch.tile_rows, scratch.tile)
    _products(x_ND, scratch.weights, gate_up, down, tiles, scratch.hidden, scratch.parts)
    return scratch.parts.view(rows, scratch.ids.shape[1], width)


def fp8_experts_for_many(
    x_ND: Tensor,
    ids: Tensor,
    weights: Tensor,
    gate_up: Scaled,
    down: Scaled,
    out_ND: Tensor,
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
    rows, width = x_ND.shape
    pairs, experts = ids.numel(), gate_up.values.shape[0]
    tile = 16 if pairs <= 16 * experts else MANY_TILE
    order, ends = by_expert(ids, experts)
    count = min(pairs, experts + pairs // tile)
    table = torch.empty(3, count, dtype=torch.int32, device=ids.device)
    _tiles_kernel[(triton.cdiv(count, 16),)](
        ends, table[0], table[1], table[2], experts, count,
        EB=triton.next_power_of_2(experts + 1), TILE=tile, BLOCK=16, num_warps=4,
    )  # fmt: skip
    tiles = Tiles(order.to(torch.int32), table[0], table[1], table[2], tile)
    hidden = x_ND.new_empty(pairs, down.values.shape[2])
    parts = x_ND.new_empty(pairs, width)
    _products(x_ND, weights, gate_up, down, tiles, hidden, parts)
    add_parts(parts.view(rows, -1, width), out_ND)
