"""The stock model that benchmarks compare with is a whole, finite model that generates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.benchmarks.stock import build_stock, generate_ms


@pytest.mark.parametrize("name", ["mistral", "qwen3_moe"])
def test_a_stock_model_of_random_weights_generates(name: str, tmp_path: Path) -> None:
    model = build_stock(tiny.save(name, tmp_path), torch.device("cpu"))
    weights = dict(model.named_parameters())
    assert all(w.isfinite().all() for w in weights.values())
    norms = [w for w in weights.values() if w.ndim == 1]
    assert norms
    assert all((w == 1).all() for w in norms)
    drawn = torch.cat([w.flatten() for w in weights.values() if w.ndim > 1])
    assert 0.019 < drawn.std().item() < 0.021
    frequencies = [b for n, b in model.named_buffers() if "inv_freq" in n]
    assert all(b.isfinite().all() and b.max() == 1.0 for b in frequencies)
    assert generate_ms(model, 2) > 0
