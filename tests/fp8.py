"""Tiny checkpoints in FP8 with a scale per block, as DeepSeek-V3 and Kimi K2 are published."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import oracle, tiny

LARGEST = 448.0
"""Of float8_e4m3fn."""
_STORED = re.compile(r"_proj(_with_mqa)?\.weight$")
WEIGHTS = "model.safetensors"
Store = Callable[[str, Tensor], "tuple[dict[str, Tensor], Tensor] | None"]


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

    def store(name: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor] | None:
        if not _STORED.search(name):
            return None
        stored, scales, meant = quantize(weight, block)
        return {name: stored, f"{name}_scale_inv": scales}, meant

    announced = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    return write_twice(plain, folder, "fp8", store, announced)


def write_twice(
    plain: Path, folder: Path, kind: str, store: Store, announced: dict[str, Any]
) -> tuple[Path, Path]:
    """Write a checkpoint as ``store`` stores its weights, and as the weights that are meant.

    ``store`` gives what is stored of a weight, and what it stands for; None: it stays as it is.
    """
    quantized, meant = folder / kind, folder / "meant"
    for path in (quantized, meant):
        shutil.copytree(plain, path)
    tensors, plainly = {}, {}
    for name, weight in load_file(plain / WEIGHTS).items():
        found = store(name, weight)
        tensors |= {name: weight} if found is None else found[0]
        plainly[name] = weight if found is None else found[1]
    save_file(tensors, quantized / WEIGHTS, metadata={"format": "pt"})
    save_file(plainly, meant / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = announced
    (quantized / "config.json").write_text(json.dumps(config))
    return quantized, meant


def assert_answers_as_stock(quantized: Path, meant: Path) -> None:
    """Greedy tokens of a quantized checkpoint are stock's of the weights that are meant."""
    requests = [tiny.ask(i, p, 24) for i, p in enumerate(tiny.prompts(6, 40))]
    got = tiny.run(tiny.engine(quantized), requests).results
    stock = tiny.stock(meant)
    for request, result in zip(requests, got, strict=True):
        want = oracle.generate(stock, request.token_ids, 24)
        assert result.completion_ids == want[: len(result.completion_ids)]
        assert len(result.completion_ids) == 24 or result.completion_ids[-1] == 2
