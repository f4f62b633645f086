"""Sums over chosen rows per owner, without copying the rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from actors.kernels.pool_plan import CHUNK


class Chunks(NamedTuple):
    """Runs of rows cut into chunks, from ``plan_chunks``, on the device."""

    spans: Tensor
    """int32 ``[2, chunks]``: first and last + 1 row of each."""
    bounds: Tensor
    """int32 ``[owners + 1]``: each owner's run of chunks."""


@triton.jit
def _pool_kernel(
    x_ptr, rows_ptr, spans_ptr, out_ptr, D,
    SQUARES: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(spans_ptr + chunk)
    last = tl.load(spans_ptr + tl.num_programs(0) + chunk)
    # Added up across threads once, at the end.
    totals = tl.zeros([TILE, BLOCK], tl.float32)
    squares = tl.zeros([TILE, BLOCK], tl.float32)
    for start in tl.static_range(0, CHUNK, TILE):
        i = first + start + tl.arange(0, TILE)
        row = tl.load(rows_ptr + i, mask=i < last, other=0)
        inside = (i < last)[:, None] & (at < D)[None]
        value = tl.load(x_ptr + row[:, None] * D + at[None], mask=inside, other=0.0)
        value = value.to(tl.float32)
        totals += value
        if SQUARES:
            squares += value * value
    base = out_ptr + chunk.to(tl.int64) * (1 + SQUARES) * D + at
    tl.store(base, tl.sum(totals, axis=0), mask=at < D)
    if SQUARES:
        tl.store(base + D, tl.sum(squares, axis=0), mask=at < D)


@triton.jit
def _join_kernel(parts_ptr, bounds_ptr, out_ptr, WIDTH, BLOCK: tl.constexpr):
    owner = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for chunk in range(tl.load(bounds_ptr + owner), tl.load(bounds_ptr + owner + 1)):
        part = parts_ptr + tl.cast(chunk, tl.int64) * WIDTH
        total += tl.load(part + at, mask=at < WIDTH, other=0.0)
    tl.store(out_ptr + owner.to(tl.int64) * WIDTH + at, total, mask=at < WIDTH)


def pooled_sums(x_ND: Tensor, rows: Tensor, chunks: Chunks, *, squares: bool) -> Tensor:
    """Sum and, if asked, sum of squares of each owner's rows, in an order that its rows decide.

    Args:
        x_ND: Any float dtype, contiguous.
        rows: int64; runs of it belong to owners, in chunks.
        chunks: Of those runs.
        squares: Whether to sum squares too.

    Returns:
        float32 ``[owners, 1, D]``, or ``[owners, 2, D]`` with squares.
    """
    owners, count, width = chunks.bounds.shape[0] - 1, chunks.spans.shape[1], x_ND.shape[1]
    shape = (count, 1 + squares, width)
    parts = torch.empty(shape, dtype=torch.float32, device=x_ND.device)
    _pool_kernel[(count, triton.cdiv(width, 256))](
        x_ND, rows, chunks.spans, parts, width, SQUARES=squares, CHUNK=CHUNK, TILE=16, BLOCK=256,
        num_warps=4,
    )  # fmt: skip
    if count == owners:
        return parts
    out = parts.new_empty(owners, 1 + squares, width)
    whole = (1 + squares) * width
    _join_kernel[(owners, triton.cdiv(whole, 512))](
        parts, chunks.bounds, out, whole, BLOCK=512, num_warps=4
    )
    return out
