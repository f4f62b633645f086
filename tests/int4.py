"""Tiny checkpoints whose experts are packed INT4 with a scale per group, as Kimi K2 Thinking's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fp8 import write_twice

_STORED = re.compile(r"\.experts\.\d+\.\w+_proj\.weight$")
IGNORED = [
    "lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|down)_proj.*",
]  # fmt: skip


def scheme(group: int) -> dict[str, Any]:
    """``quantization_config`` as compressed-tensors writes it."""
    weights = {
        "actorder": None, "block_structure": None, "dynamic": False, "group_size": group,
        "num_bits": 4, "observer": "minmax", "observer_kwargs": {}, "strategy": "group",
        "symmetric": True, "type": "int",
    }  # fmt: skip
    one = {"input_activations": None, "output_activations": None, "targets": ["Linear"]}
    return {
        "config_groups": {"group_0": {**one, "weights": weights}},
        "format": "pack-quantized",
        "ignore": IGNORED,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def pack(numbers: np.ndarray) -> np.ndarray:
    """int32 ``[rows, columns / 8]`` of numbers from -8 to 7, the first in the lowest bits."""
    found = np.zeros((numbers.shape[0], numbers.shape[1] // 8), np.uint32)
    for column in range(numbers.shape[1]):
        stored = (numbers[:, column] + 8).astype(np.uint32)
        found[:, column // 8] |= stored << np.uint32(4 * (column % 8))
    return found.view(np.int32)


def quantize(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """(packed int32, scales bfloat16, the float32 weights that they stand for), group by group."""
    rows, columns = weight.shape
    count = -(-columns // group)
    scales = torch.empty(rows, count, dtype=torch.bfloat16)
    numbers, meant = np.empty((rows, columns), np.int64), torch.empty(rows, columns)
    for g in range(count):
        here = weight[:, g * group : (g + 1) * group]
        scale = (here.abs().max(dim=1).values.clamp_min(1e-6) / 7.5).bfloat16()
        scales[:, g] = scale
        stored = (here / scale.float()[:, None]).round().clamp(-8, 7)
        numbers[:, g * group : (g + 1) * group] = stored.numpy()
        meant[:, g * group : (g + 1) * group] = stored * scale.float()[:, None]
    return torch.from_numpy(pack(numbers)), scales, meant


def write(plain: Path, folder: Path, group: int) -> tuple[Path, Path]:
    """Write a checkpoint twice: packed, and as the float32 weights that packed ones stand for."""

    def store(name: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor] | None:
        if not _STORED.search(name):
            return None
        words, scales, meant = quantize(weight, group)
        stored = {f"{name}_packed": words, f"{name}_scale": scales}
        return stored | {f"{name}_shape": torch.tensor(weight.shape)}, meant

    return write_twice(plain, folder, "int4", store, scheme(group))
