"""Packed INT4 weights become the numbers that they stand for, slice by slice.

The ``pack-quantized`` format of compressed-tensors, in which Kimi K2 Thinking is published. In
place of ``NAME.weight`` lie ``NAME.weight_packed``, int32 ``[rows, columns / 8]`` whose lowest four
bits are the first column's number plus 8, and ``NAME.weight_scale`` with one number for each row
and ``group_size`` columns. A weight is its integer times the number of its group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actors.model.quantized import PER_WORD

_ZERO = 8
"""What stands for 0, so that no stored number is negative."""


def words_part(start: int, length: int) -> slice:
    """Which int32 words hold ``length`` columns from ``start``."""
    return slice(start // PER_WORD, -(-(start + length) // PER_WORD))


def unpack(words: Tensor, scales: Tensor, start: int, length: int, group: int) -> Tensor:
    """The weights that packed columns stand for, float32 ``[rows, length]``.

    Args:
        words: int32 ``[rows, words]``, by ``words_part``.
        scales: ``[rows, groups]``, of the groups that the columns lie in.
        start: Column of the whole tensor that the part begins at.
        length: Columns.
        group: Columns that share a scale.
    """
    bits = torch.arange(0, 4 * PER_WORD, 4, device=words.device, dtype=torch.int32)
    numbers = ((words[..., None] >> bits) & 0xF).flatten(1) - _ZERO
    first = start % PER_WORD
    numbers = numbers[:, first : first + length]
    first = start % group
    of_column = torch.arange(first, first + length, device=words.device) // group
    return numbers.float().mul_(scales.float()[:, of_column])
