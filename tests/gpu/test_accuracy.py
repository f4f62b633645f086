"""On a GPU in bfloat16 the engine's logits are stock transformers' within the rounding of bfloat16.

The same random weights run in stock transformers (bfloat16 and float32) and in the engine, on the
same tokens. Dense models are compared token by token; a mixture of experts picks other experts on
near-ties, so its tokens are compared where the choice agrees, and the share that agrees is printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from actors.engine.batch import build_batch
from actors.engine.engine import Engine
from actors.engine.pages import PageTable
from actors.engine.scheduler import Scheduler, Sequence
from actors.request import EngineSpec, Request, Sampling
from tests.benchmarks.shapes import write_shape

NUM_SEQUENCES, LENGTH = 16, 128


class Silent:
    def wants(self, site: str) -> bool:
        return False

    def changes(self, site: str, layer: int) -> bool:
        return False

    def fused(self, site: str, layer: int) -> None:
        return None

    def read(self, site: str, layer: int, value_ND: Tensor) -> None:
        pass

    def visit(self, site: str, layer: int, value_ND: Tensor) -> None:
        pass


def tokens(vocab: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, vocab, (NUM_SEQUENCES, LENGTH), generator=generator)


def engine_logits(engine: Engine, ids: Tensor) -> Tensor:
    """float32 ``[sequences * length, V]`` of one packed prefill."""
    requests = [
        Request(id=str(i), token_ids=tuple(row), sampling=Sampling(max_new_tokens=1))
        for i, row in enumerate(ids.tolist())
    ]
    pages = PageTable(engine.cache.num_pages, engine.cache.page_size)
    scheduler = Scheduler(pages, max_tokens=1 << 20, max_sequences=999)
    scheduler.add(
        Sequence(request=r, index=i, tokens=list(r.token_ids)) for i, r in enumerate(requests)
    )
    batch = build_batch(scheduler.next_step(), engine.cache.page_size, engine.device)
    hidden = engine.rows_forward.run(batch, Silent())
    return engine.forward.local_logits(hidden)[:, : engine.info.vocab_size]


@torch.inference_mode()
def stock_logits(
    engine: Engine, path: Path, ids: Tensor, dtype: torch.dtype, *, together: bool = False
) -> Tensor:
    config = AutoConfig.from_pretrained(path)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    state = dict(engine.model.module.state_dict())
    vocab = engine.info.vocab_size
    state["model.embed_tokens.weight"] = engine.model.embedding_VD[:vocab]
    state["lm_head.weight"] = engine.model.head_VD[:vocab]
    missing = model.load_state_dict(state, strict=False)
    assert not missing.missing_keys, missing.missing_keys
    if together:
        return torch.cat(list(model(ids.cuda()).logits.float()))
    return torch.cat([model(row[None].cuda()).logits[0].float() for row in ids])


def distances(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Per token: cosine of logits, KL(theirs || ours) in nats."""
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
    return cosine, (p.exp() * (p - q)).sum(-1)


CASES: dict[str, dict[str, Any]] = {
    "mistral_7b": {"num_hidden_layers": 32},
    "mistral_7b, 8 layers": {"num_hidden_layers": 8},
    "qwen3_30b_a3b": {"num_hidden_layers": 12},
    "kimi_k2": {"num_hidden_layers": 3, "n_routed_experts": 64, "vocab_size": 32000},
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(CASES))
def test_bfloat16_logits_are_those_of_stock(name: str, tmp_path: Path, capsys: Any) -> None:
    path = write_shape(name.split(",")[0], tmp_path, None, **CASES[name])
    spec = EngineSpec(
        model_path=str(path), weights="random", dtype="bfloat16", device="cuda",
        kv_cache_bytes=2 << 30, max_batch_tokens=4096,
    )  # fmt: skip
    engine = Engine.load(spec, rank=0, world_size=1, process_group=None)
    ids = tokens(engine.info.vocab_size)
    ours = engine_logits(engine, ids)
    theirs = stock_logits(engine, path, ids, torch.bfloat16)
    exact = stock_logits(engine, path, ids, torch.float32)
    # What the batch shape alone changes in stock: the noise that no other engine can be under.
    batched = stock_logits(engine, path, ids, torch.bfloat16, together=True)
    cosine, kl = distances(ours, theirs)
    found = {
        "model": name,
        "cosine": cosine.mean().item(),
        "kl": kl.mean().item(),
        "share_cosine_above_0.999": (cosine > 0.999).float().mean().item(),
        "ours_vs_float32": [d.mean().item() for d in distances(ours, exact)],
        "stock_vs_float32": [d.mean().item() for d in distances(theirs, exact)],
        "stock_batched_vs_stock": [d.mean().item() for d in distances(batched, theirs)],
        "same_argmax": (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item(),
    }
    with capsys.disabled():
        sys.stderr.write(json.dumps(found) + "\n")
    # What bfloat16 costs is measured by stock itself against float32.
    assert found["ours_vs_float32"][1] <= 1.05 * found["stock_vs_float32"][1] + 1e-5
    assert found["ours_vs_float32"][0] >= found["stock_vs_float32"][0] - 1e-4
    if name.startswith("mistral_7b"):
        own_cosine, own_kl = found["stock_batched_vs_stock"]
        is_within = found["cosine"] > 0.9995 and found["kl"] < 1e-3
        if not is_within and (own_cosine <= 0.9995 or own_kl >= 1e-3):
            # Measured at 32 layers: rounding is carried on and on by random weights.
            pytest.xfail("stock, one batch against one by one, is not within the bound of itself")
        assert is_within
