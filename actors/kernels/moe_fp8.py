"""Mixture of experts over FP8 weights with one scale per block, which stay FP8 in memory.

A tile of weights becomes numbers of the rows' own type on its way to the tensor cores (exactly:
every e4m3 number is a bfloat16 number), and its product is scaled in float32, so that no weight is
rounded a second time. Half the bytes of bfloat16 are read. Rows are grouped in tiles as in
``actors.kernels.moe``; the same two products serve few rows and many.

The bits of an e4m3 number, moved to a bfloat16 number's place, are that number times 2^-120. Moving
them takes fewer instructions than converting, and products are lifted by 2^120 in float32, which
loses nothing but what lies below 2^-29 (the smallest float32 number, lifted).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.kernels.moe import Scratch, add_parts, align
from actors.kernels.moe_prefill import by_expert

MANY_TILE = 64
"""Rows of a tile where experts have many: 128 take longer (measured on H200)."""

_MOVE_BITS = tl.constexpr("""
{
.reg .b32 t, m;
prmt.b32 t, $2, 0, 0x1404;
and.b32 m, t, 0x7f007f00;
shr.u32 m, m, 4;
and.b32 t, t, 0x80008000;
or.b32 $0, t, m;
prmt.b32 t, $2, 0, 0x3424;
and.b32 m, t, 0x7f007f00;
shr.u32 m, m, 4;
and.b32 t, t, 0x80008000;
or.b32 $1, t, m;
}
""")
_LIFT = tl.constexpr(2.0**120)


@triton.jit
def _widen(stored, kind: tl.constexpr, BITS: tl.constexpr):
    """e4m3 numbers as ``kind``; with BITS, of bytes, as bfloat16 numbers times 2^-120."""
    if BITS:
        wide = tl.inline_asm_elementwise(
            asm=_MOVE_BITS, constraints="=r,=r,r", args=[stored], dtype=tl.bfloat16, is_pure=True,
            pack=4,
        )  # fmt: skip
    else:
        wide = stored.to(kind)
    return wide


@triton.jit
def _gate_up_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, order_ptr, start_ptr, tile_expert_ptr, tile_rows_ptr,
    D, INNER, scale_rows, scale_columns, TOP: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr,
    BITS: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    rows = tl.load(tile_rows_ptr + tile)
    if rows > 0:
        expert = tl.load(tile_expert_ptr + tile).to(tl.int64)
        m = tl.arange(0, TILE)
        first = tile * TILE if PADDED else tl.load(start_ptr + tile)
        pair = tl.load(order_ptr + first + m, mask=m < rows, other=0)
        n = tl.program_id(0) * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        kind = out_ptr.dtype.element_ty
        lift = _LIFT if BITS else 1.0
        x_at = x_ptr + (pair // TOP)[:, None].to(tl.int64) * D + k[None]
        gate_at = weight_ptr + expert * 2 * INNER * D + n[None].to(tl.int64) * D + k[:, None]
        up_at = gate_at + INNER.to(tl.int64) * D
        scale_at = scale_ptr + (expert * 2 * scale_rows + n // RB) * scale_columns
        up_scale_at = scale_at + scale_rows * scale_columns
        gate = tl.zeros([TILE, BN], tl.float32)
        up = tl.zeros([TILE, BN], tl.float32)
        for start in range(0, D, BK):
            inside = (n[None] < INNER) & (k[:, None] + start < D)
            x = tl.load(x_at + start, mask=(m < rows)[:, None] & (k[None] + start < D), other=0.0)
            gate_w = _widen(tl.load(gate_at + start, mask=inside, other=0.0), kind, BITS)
            up_w = _widen(tl.load(up_at + start, mask=inside, other=0.0), kind, BITS)
            gate_s = tl.load(scale_at + start // CB, mask=n < INNER, other=0.0)
            up_s = tl.load(up_scale_at + start // CB, mask=n < INNER, other=0.0)
            gate += tl.dot(x, gate_w) * lift * gate_s[None]
            up += tl.dot(x, up_w) * lift * up_s[None]
        gate = gate.to(kind).to(tl.float32)
        silu = (gate * tl.sigmoid(gate)).to(kind)
        out_at = out_ptr + pair[:, None].to(tl.int64) * INNER + n[None]
        tl.store(out_at, silu * up.to(kind), mask=(m < rows)[:, None] & (n[None] < INNER))


@triton.jit
def _down_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, order_ptr, start_ptr, tile_expert_ptr, tile_rows_ptr,
    route_ptr, D, INNER, scale_rows, scale_columns, RB: tl.constexpr, CB: tl.constexpr,
    BITS: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    rows = tl.load(tile_rows_ptr + tile)
    if rows > 0:
        expert = tl.load(tile_expert_ptr + tile).to(tl.int64)
        m = tl.arange(0, TILE)
        first = tile * TILE if PADDED else tl.load(start_ptr + tile)
        pair = tl.load(order_ptr + first + m, mask=m < rows, other=0)
        n = tl.program_id(0) * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        kind = out_ptr.dtype.element_ty
        lift = _LIFT if BITS else 1.0
        x_at = x_ptr + pair[:, None].to(tl.int64) * INNER + k[None]
        weight_at = weight_ptr + expert * D * INNER + n[None].to(tl.int64) * INNER + k[:, None]
        scale_at = scale_ptr + (expert * scale_rows + n // RB) * scale_columns
        acc = tl.zeros([TILE, BN], tl.float32)
        for start in range(0, INNER, BK):
            x = tl.load(
                x_at + start, mask=(m < rows)[:, None] & (k[None] + start < INNER), other=0.0
            )
            inside = (n[None] < D) & (k[:, None] + start < INNER)
            weight = _widen(tl.load(weight_at + start, mask=inside, other=0.0), kind, BITS)
            scale = tl.load(scale_at + start // CB, mask=n < D, other=0.0)
            acc += tl.dot(x, weight) * lift * scale[None]
        route = tl.load(route_ptr + pair, mask=m < rows, other=0.0)
        acc = acc.to(kind).to(tl.float32) * route[:, None]
        out_at = out_ptr + pair[:, None].to(tl.int64) * D + n[None]
        tl.store(out_at, acc.to(kind), mask=(m < rows)[:, None] & (n[None] < D))


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
    padded = tiles.start is None
    in_bits = x_ND.is_cuda and x_ND.dtype == torch.bfloat16
    stored = [m.values.view(torch.uint8) if in_bits else m.values for m in (gate_up, down)]
    where = (tiles.order, tiles.rows if padded else tiles.start, tiles.expert, tiles.rows)
    way, (rows, columns) = ways[0], gate_up.block
    _gate_up_kernel[(triton.cdiv(inner, way.columns), count)](
        x_ND, stored[0], gate_up.scales, hidden, *where, width, inner,
        gate_up.scales.shape[1] // 2, gate_up.scales.shape[2], TOP=top, RB=rows, CB=columns,
        BITS=in_bits, PADDED=padded, TILE=tiles.tile, BN=way.columns, BK=_depth(way, columns),
        num_warps=4, num_stages=way.stages,
    )  # fmt: skip
    way, (rows, columns) = ways[1], down.block
    _down_kernel[(triton.cdiv(width, way.columns), count)](
        hidden, stored[1], down.scales, parts, *where, weights, width, inner,
        down.scales.shape[1], down.scales.shape[2], RB=rows, CB=columns,
        BITS=in_bits, PADDED=padded, TILE=tiles.tile, BN=way.columns, BK=_depth(way, columns),
        num_warps=4, num_stages=way.stages,
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
