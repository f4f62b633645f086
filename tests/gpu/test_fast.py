"""The fused decode step gives the general step's tokens, captures and receipts on a GPU.

Both run in bfloat16 and round in different places, so a random model's near-ties may fall
differently: captures are compared by cosine and tokens until the first difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.engine.engine import Engine
from actors.request import Bundle, Capture, EngineSpec, Reply, Request, Sampling, Steering
from tests.benchmarks.shapes import write_shape

SMALL: dict[str, dict[str, Any]] = {
    # Every expert chosen: no near-tie can send a token elsewhere.
    "kimi_k2, all experts": {
        "num_attention_heads": 16,
        "n_routed_experts": 8,
        "vocab_size": 20001,
    },
    "kimi_k2": {"num_attention_heads": 16, "n_routed_experts": 48, "vocab_size": 20001},
    "qwen3_30b_a3b": {"num_experts": 32, "vocab_size": 20001},
    "mistral_7b": {"intermediate_size": 4096, "vocab_size": 20001, "sliding_window": 40},
}


def build(name: str, folder: Path, **changes: Any) -> Engine:
    path = write_shape(name.split(",")[0], folder, 4, **SMALL[name])
    spec = EngineSpec(
        model_path=str(path),
        weights="random",
        dtype="bfloat16",
        device="cuda",
        kv_cache_bytes=1 << 30,
        max_batch_requests=64,
        **changes,
    )
    return Engine.load(spec, rank=0, world_size=1, process_group=None)


def bundle(width: int) -> Bundle:
    rng = np.random.default_rng(0)
    vectors = {f"v{i}": rng.standard_normal(width).astype(np.float32) for i in range(5)}
    requests = []
    for i in range(24):
        prompt = tuple(int(t) for t in rng.integers(5, 20000, size=int(rng.integers(1, 90))))
        operator = ("add", "ablate", "floor", "ceiling", "add_norm_matched")[i % 5]
        steering = (Steering(layer=i % 4, vector=f"v{i % 5}", coefficient=0.02, operator=operator),)
        requests.append(
            Request(
                id=str(i),
                token_ids=prompt,
                sampling=Sampling(
                    max_new_tokens=20, ignore_eos=True, temperature=0.7 if i % 3 == 2 else 0.0
                ),
                steering=steering if i % 2 else (),
                capture=(Capture(layers=(0, 1, 2, 3), tokens="response[:6]", reduction="mean"),),
            )
        )
    return Bundle(id="b", requests=tuple(requests), vectors=vectors)


def agreement(a: Reply, b: Reply) -> tuple[float, list[float]]:
    """(share of equal leading tokens, each request's smallest cosine where its tokens agree)."""
    same, total, cosines = 0, 0, []
    for x, y in zip(a.results, b.results, strict=True):
        assert x.error is None, x.error
        assert y.error is None, y.error
        assert [r.num_rows for r in x.receipts] == [r.num_rows for r in y.receipts]
        pairs = list(zip(x.completion_ids, y.completion_ids, strict=True))
        first = next((i for i, (p, q) in enumerate(pairs) if p != q), len(pairs))
        same, total = same + first, total + len(pairs)
        if first >= 6:
            u = x.captures[0].values["resid_post"].astype(np.float64)
            v = y.captures[0].values["resid_post"].astype(np.float64)
            assert list(x.captures[0].positions) == list(y.captures[0].positions)
            dots = (u * v).sum(-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1))
            cosines.append(float(dots.min()))
    return same / total, sorted(cosines)


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(SMALL))
def test_fused_steps_agree_with_general_steps(name: str, tmp_path: Path) -> None:
    engine = build(name, tmp_path)
    assert engine.fast is not None
    work = bundle(engine.info.hidden_size)
    fused = engine.run(work)
    again = engine.run(work)
    decoder, engine.fast = engine.fast, None
    general = engine.run(work)
    engine.fast = decoder
    share, cosines = agreement(fused, general)
    assert [r.completion_ids for r in fused.results] == [r.completion_ids for r in again.results]
    sys.stderr.write(f"{name}: {cosines[:4]} of {len(cosines)}, {share:.3f} of tokens\n")
    assert cosines[0] > 0.999, cosines
    assert share > 0.8, share
    assert torch.isfinite(decoder.state.totals).all()
