"""Random weights that are the same whole model at any tensor-parallel size, on any device.

Each element is a hash of (seed, tensor name, its index in the whole tensor), so a rank can fill its
slice alone. Integers make the hash exact everywhere; the sum of four 16-bit uniforms (Irwin-Hall)
stands for the normal distribution, which keeps transcendental functions, and with them device
differences, out of it.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_CHUNK = 1 << 25
_ROUNDS = ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1))
_STD_OF_SUM = 65536.0 * math.sqrt(4 / 12)


def name_key(seed: int, name: str) -> int:
    """A signed 64-bit stream key for one tensor."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def hash_int64(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) on int64 bit patterns."""
    return hash_int64_(x.clone(), torch.empty_like(x))


def hash_int64_(x: Tensor, scratch: Tensor) -> Tensor:
    """``hash_int64`` in place; ``scratch`` is of the same shape and is overwritten."""
    for bits, factor in _ROUNDS:
        torch.bitwise_right_shift(x, bits, out=scratch)
        scratch &= (1 << (64 - bits)) - 1  # the shift is arithmetic, the hash's is logical
        x ^= scratch
        if factor != 1:
            x *= factor
    return x


def fill_normal_(
    out: Tensor, *, key: int, std: float, row_length: int, row_start: int, column_start: int
) -> None:
    """Fill a slice of a whole ``[rows, row_length]`` matrix with its share of the random model.

    Args:
        out: ``[local rows, local columns]`` view of any stride; overwritten.
        key: From ``name_key``.
        std: Standard deviation.
        row_length: Columns of the whole matrix.
        row_start: First row of the slice in the whole matrix.
        column_start: First column of the slice in the whole matrix.
    """
    rows, columns = out.shape
    step = max(1, _CHUNK // max(columns, 1))
    column = torch.arange(columns, device=out.device, dtype=torch.int64) + column_start
    for first in range(0, rows, step):
        last = min(rows, first + step)
        row = torch.arange(first, last, device=out.device, dtype=torch.int64) + row_start
        index = row[:, None] * row_length + column[None, :]
        bits = hash_int64(index * -7046029254386353131 + key)
        total = bits & 0xFFFF
        for shift in (16, 32, 48):
            total = total + ((bits >> shift) & 0xFFFF)
        values = (total - 131070).to(torch.float32) * (std / _STD_OF_SUM)
        out[first:last] = values.to(out.dtype)
