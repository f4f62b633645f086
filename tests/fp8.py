"""Tiny checkpoints in FP8 with a scale per block, as DeepSeek-V3 and Kimi K2 are published."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LARGEST = 448.0
"""Of float8_e4m3fn."""
_STORED = re.compile(r"_proj(_with_mqa)?\.weight$")
WEIGHTS = "model.safetensors"


def quantize(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """(stored float8, scales float32, the float32 weights that they stand for), block by block."""
    stored = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    counts = [-(-n // size) for n, size in zip(weight.shape, block, strict=True)]
    scales, meant = torch.empty(counts), torch.empty(weight.shape)
    for i in range(counts[0]):
        for j in range(counts[1]):
            here = (
                slice(i * block[0], (i + 1) * block[0]),
                slice(j * block[1], (j + 1) * block[1]),
            )
            scale = np.float32(max(float(weight[here].abs().max()), 1e-6) / LARGEST)
            stored[here] = (weight[here] / float(scale)).to(torch.float8_e4m3fn)
            scales[i, j] = float(scale)
            meant[here] = stored[here].float() * float(scale)
    return stored, scales, meant


def write(plain: Path, folder: Path, block: tuple[int, int]) -> tuple[Path, Path]:
    """Write a checkpoint twice: in FP8, and as the float32 weights that the FP8 ones stand for."""
    quantized, meant = folder / "fp8", folder / "meant"
    for path in (quantized, meant):
        shutil.copytree(plain, path)
    tensors, plainly = {}, {}
    for name, weight in load_file(plain / WEIGHTS).items():
        if not _STORED.search(name):
            tensors[name] = plainly[name] = weight
            continue
        stored, scales, numbers = quantize(weight, block)
        tensors |= {name: stored, f"{name}_scale_inv": scales}
        plainly[name] = numbers
    save_file(tensors, quantized / WEIGHTS, metadata={"format": "pt"})
    save_file(plainly, meant / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    (quantized / "config.json").write_text(json.dumps(config))
    return quantized, meant
