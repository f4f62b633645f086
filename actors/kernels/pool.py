"""Sums over chosen rows per owner in one pass, without copying the rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 64
"""Rows of one owner that one program adds; long owners are split, so that no program is long."""


@triton.jit
def _pool_kernel(
    x_ptr, rows_ptr, bounds_ptr, out_ptr, D,
    SQUARES: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    owner = tl.program_id(0)
    chunk = tl.program_id(2)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(bounds_ptr + owner) + chunk * CHUNK
    last = tl.load(bounds_ptr + owner + 1)
    total = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in tl.static_range(0, CHUNK, TILE):
        i = first + start + tl.arange(0, TILE)
        row = tl.load(rows_ptr + i, mask=i < last, other=0)
        value = tl.load(
            x_ptr + row[:, None] * D + at[None],
            mask=(i < last)[:, None] & (at < D)[None],
            other=0.0,
        ).to(tl.float32)
        total += tl.sum(value, axis=0)
        if SQUARES:
            squares += tl.sum(value * value, axis=0)
    number = owner.to(tl.int64) * tl.num_programs(2) + chunk
    base = out_ptr + number * (1 + SQUARES) * D + at
    tl.store(base, total, mask=at < D)
    if SQUARES:
        tl.store(base + D, squares, mask=at < D)


def pooled_sums(
    x_ND: Tensor, rows: Tensor, bounds: Tensor, *, longest: int, squares: bool
) -> Tensor:
    """Sum and, if asked, sum of squares of each owner's rows.

    Args:
        x_ND: Any float dtype, contiguous.
        rows: int64; owner i has ``rows[bounds[i] : bounds[i + 1]]``.
        bounds: int32 ``[owners + 1]``.
        longest: Rows of the owner with the most, known on the host.
        squares: Whether to sum squares too.

    Returns:
        float32 ``[owners, 1, D]``, or ``[owners, 2, D]`` with squares.
    """
    owners, width = bounds.shape[0] - 1, x_ND.shape[1]
    chunks = max(1, triton.cdiv(longest, CHUNK))
    shape = (owners, chunks, 1 + squares, width)
    out = torch.empty(shape, dtype=torch.float32, device=x_ND.device)
    _pool_kernel[(owners, triton.cdiv(width, 256), chunks)](
        x_ND, rows, bounds, out, width, SQUARES=squares, CHUNK=CHUNK, TILE=16, BLOCK=256,
        num_warps=4,
    )  # fmt: skip
    return out[:, 0] if chunks == 1 else out.sum(1)
