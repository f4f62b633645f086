"""A shipped toy model in float32 answers on a GPU as it does on the CPU."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from actors.engine.engine import Engine
from actors.request import Bundle, Capture, EngineSpec, Request, Sampling, Steering

MODELS = Path(__file__).resolve().parents[2] / "jobs" / "toy" / "models"


def build(name: str, device: str) -> Engine:
    spec = EngineSpec(
        model_path=str(MODELS / name),
        dtype="float32",
        device=device,
        kv_cache_bytes=64 << 20,
    )
    return Engine.load(spec, rank=0, world_size=1, process_group=None)


def bundle(engine: Engine) -> Bundle:
    rng, draw = random.Random(4), np.random.default_rng(4)
    width, layers = engine.info.hidden_size, engine.info.num_layers
    vectors = {f"v{i}": draw.standard_normal(width).astype(np.float32) for i in range(3)}
    requests = []
    for i in range(24):
        length = rng.randint(1, 60)
        steering = (Steering(layer=i % layers, vector=f"v{i % 3}", coefficient=0.3),)
        capture = (Capture(layers=(0, layers - 1), tokens="all", reduction="none"),)
        requests.append(
            Request(
                id=f"r{i}",
                token_ids=tuple(rng.randrange(5, engine.info.vocab_size) for _ in range(length)),
                sampling=Sampling(max_new_tokens=12, temperature=float(i % 2), seed=i),
                steering=steering if i % 3 else (),
                capture=capture if i % 4 else (),
            )
        )
    return Bundle(id="toys", requests=tuple(requests), vectors=vectors)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["toy_mla", "toy_gqa"])
def test_float32_on_a_gpu_is_float32_on_the_cpu(name: str) -> None:
    engine = build(name, "cpu")
    work = bundle(engine)
    wanted = engine.run(work)
    found = build(name, "cuda").run(work)
    errors = []
    assert all(r.error is None for r in found.results)
    for mine, other in zip(found.results, wanted.results, strict=True):
        assert mine.completion_ids == other.completion_ids
        assert mine.receipts == other.receipts
        for read, expected in zip(mine.captures, other.captures, strict=True):
            assert np.array_equal(read.positions, expected.positions)
            rows, there = expected.values["resid_post"], read.values["resid_post"]
            errors.append(np.linalg.norm(there - rows, axis=-1) / np.linalg.norm(rows, axis=-1))
    # Two experts may score alike to the last bits: such a row, and one that attends to it, differ.
    relative = np.concatenate(errors, axis=1)
    assert np.quantile(relative, 0.99) < 1e-5
    assert (relative > 1e-5).sum() <= 4
