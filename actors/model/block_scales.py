"""FP8 weights with one scale per block become the numbers that they stand for, slice by slice.

The format in which DeepSeek-V3 and Kimi K2 are published (DeepSeek-V3 Technical Report,
arXiv:2412.19437, section 3.3): ``NAME.weight`` in float8_e4m3fn, and ``NAME.weight_scale_inv`` with
one number for each block of ``weight_block_size`` rows and columns, cut at the edges. A weight is
its stored value times the number of its block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of float8_e4m3fn."""


@dataclass(frozen=True, slots=True)
class BlockScaled:
    """FP8 matrices, one for each expert, that stay FP8 in memory."""

    values: Tensor
    """float8 ``[E, rows, columns]``"""
    scales: Tensor
    """float32 ``[E, ceil(rows / block rows), ceil(columns / block columns)]``"""
    block: tuple[int, int]
    """Rows and columns that share a scale."""

    @property
    def shape(self) -> torch.Size:
        """Of the values: ``[E, rows, columns]``."""
        return self.values.shape

    def expert(self, number: int, dtype: torch.dtype) -> Tensor:
        """One expert's matrix as the numbers that it stands for."""
        numbers = dequantize(self.values[number], self.scales[number], (0, 0), self.block)
        return numbers.to(dtype)


class Matrix:
    """One projection of one expert, to be filled: this rank's part."""

    def __init__(self, name: str, whole: BlockScaled, expert: int, half: int) -> None:
        self.name = name
        """In the checkpoint."""
        self.block = whole.block
        self.expert, self.half = expert, half
        """``half``: 0 is gate, 1 is up, -1 the down projection."""
        values, scales = whole.values[expert], whole.scales[expert]
        self.values = values if half < 0 else values.chunk(2, dim=0)[half]
        self.scales = scales if half < 0 else scales.chunk(2, dim=0)[half]


def local_scales(
    scales: Tensor,
    start: tuple[int, int],
    shape: tuple[int, int],
    block: tuple[int, int],
    local: tuple[int, int],
) -> Tensor:
    """Scales of a part in smaller blocks, none of which lies in two of the whole tensor's.

    Args:
        scales: Of the blocks that the part touches, by ``scales_part``.
        start: Row and column of the whole tensor that the part begins at.
        shape: Rows and columns of the part.
        block: Of the whole tensor.
        local: Of the part; divides ``block`` and ``start``.
    """
    of_row, of_column = (
        torch.arange(first % size, first % size + length, step, device=scales.device) // size
        for first, size, length, step in zip(start, block, shape, local, strict=True)
    )
    return scales.float()[of_row][:, of_column]


def scales_part(start: int, length: int, block: int) -> slice:
    """Which scales ``length`` rows (or columns) from ``start`` need."""
    return slice(start // block, -(-(start + length) // block))


def dequantize(
    stored: Tensor, scales: Tensor, start: tuple[int, int], block: tuple[int, int]
) -> Tensor:
    """The weights that a part of a tensor stands for, float32.

    Args:
        stored: float8 ``[rows, columns]``, a part of the whole tensor.
        scales: Of the blocks that the part touches, by ``scales_part``.
        start: Row and column of the whole tensor that the part begins at.
        block: Rows and columns of a block.
    """
    of_row, of_column = (
        torch.arange(first % size, first % size + length, device=stored.device) // size
        for first, size, length in zip(start, block, stored.shape, strict=True)
    )
    return stored.float().mul_(scales.float()[of_row][:, of_column])
