"""On a GPU in bfloat16 the engine's logits are stock transformers' within the rounding of bfloat16.

The same random weights run in stock transformers (bfloat16 and float32) and in the engine, on the
same tokens. Dense models are compared token by token; a mixture of experts picks other experts on
near-ties, so its tokens are compared where the choice agrees, and the share that agrees is printed.
Plain random weights carry rounding on and on: 32 such layers bring stock itself out of the bound
when its batch changes. In the steady case every layer adds a small part to the residual stream.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from actors.engine import fast_forward
from actors.engine.batch import build_batch
from actors.engine.engine import Engine
from actors.engine.pages import PageTable
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from actors.kernels.moe_prefill import experts_for_many
from actors.request import EngineSpec, Request, Sampling
from tests.benchmarks.shapes import write_shape
from tests.gpu.twin import stock_twin

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


@torch.inference_mode()
def make_steady(engine: Engine) -> None:
    """Let the residual stream begin large and every layer add a small part to it."""
    engine.model.embedding_VD *= 50.0
    factor = (2 * engine.info.num_layers) ** -0.5
    for layer in engine.model.layers:
        layer.self_attn.o_proj.weight.data *= factor
        layer.mlp.down_proj.weight.data *= factor


def chosen(logits: Tensor, bias: Tensor | None, top_k: int) -> Tensor:
    """int64 ``[N, K]``: the experts of each row, sorted."""
    scores = logits.float() if bias is None else logits.float().sigmoid() + bias.float()
    return scores.topk(top_k, dim=-1).indices.sort(dim=-1).values


def engine_logits(engine: Engine, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """float32 ``[sequences * length, V]`` of one packed prefill; each MoE layer's choices."""
    choices: list[Tensor] = []

    def watched(x: Tensor, logits: Tensor, bias: Tensor | None, routing: Any, *rest: Any) -> None:
        choices.append(chosen(logits, bias, routing.top_k))
        experts_for_many(x, logits, bias, routing, *rest)

    with mock.patch.object(fast_forward, "experts_for_many", watched):
        return _packed_logits(engine, ids), choices


def _packed_logits(engine: Engine, ids: Tensor) -> Tensor:
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
) -> tuple[Tensor, list[Tensor]]:
    """float32 logits, one sequence at a time or all at once, and each MoE layer's choices."""
    model = stock_twin(engine, path, dtype)
    seen: list[list[Tensor]] = []
    for layer in model.model.layers:
        if hasattr(layer.mlp, "gate"):
            seen.append([])
            layer.mlp.gate.register_forward_hook(_keep_choice(seen[-1]))
    runs = [ids] if together else [row[None] for row in ids]
    logits = torch.cat([model(run.cuda()).logits.float().flatten(0, 1) for run in runs])
    return logits, [torch.cat(found) for found in seen]


def _keep_choice(found: list[Tensor]) -> Any:
    def keep(gate: Any, args: Any, output: tuple[Tensor, ...]) -> None:
        bias = getattr(gate, "e_score_correction_bias", None)
        found.append(chosen(output[0].flatten(0, -2), bias, gate.top_k))

    return keep


def agreeing(ours: list[Tensor], theirs: list[Tensor], count: int) -> Tensor:
    """bool ``[N]``: tokens that go through the same experts at every layer."""
    same = torch.ones(count, dtype=torch.bool, device="cuda")
    for a, b in zip(ours, theirs, strict=True):
        same &= (a == b).all(dim=-1)
    return same


def distances(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Per token: cosine of logits, KL(theirs || ours) in nats."""
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
    p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
    return cosine, (p.exp() * (p - q)).sum(-1)


CASES: dict[str, dict[str, Any]] = {
    "mistral_7b": {"num_hidden_layers": 32},
    "mistral_7b, steady": {"num_hidden_layers": 32},
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
    if name.endswith("steady"):
        make_steady(engine)
    ids = tokens(engine.info.vocab_size)
    ours, our_choices = engine_logits(engine, ids)
    theirs, their_choices = stock_logits(engine, path, ids, torch.bfloat16)
    exact, _ = stock_logits(engine, path, ids, torch.float32)
    # What the batch shape alone changes in stock: the noise that no other engine can be under.
    batched, batched_choices = stock_logits(engine, path, ids, torch.bfloat16, together=True)
    same = agreeing(our_choices, their_choices, len(ours))
    own = agreeing(batched_choices, their_choices, len(ours))
    cosine, kl = distances(ours[same], theirs[same])
    found = {
        "model": name,
        "share_same_experts": same.float().mean().item(),
        "stock_batched_share_same_experts": own.float().mean().item(),
        "cosine": cosine.mean().item(),
        "kl": kl.mean().item(),
        "cosine_all_tokens": distances(ours, theirs)[0].mean().item(),
        "ours_vs_float32": [d.mean().item() for d in distances(ours, exact)],
        "stock_vs_float32": [d.mean().item() for d in distances(theirs, exact)],
        "stock_batched_vs_stock": [d.mean().item() for d in distances(batched[own], theirs[own])],
        "same_argmax": (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item(),
    }
    with capsys.disabled():
        sys.stderr.write(json.dumps(found) + "\n")
    # What bfloat16 costs is measured by stock itself against float32.
    assert found["ours_vs_float32"][1] <= 1.05 * found["stock_vs_float32"][1] + 1e-5
    assert found["ours_vs_float32"][0] >= found["stock_vs_float32"][0] - 1e-4
    own_cosine, own_kl = found["stock_batched_vs_stock"]
    is_within = found["cosine"] > 0.9995 and found["kl"] < 1e-3
    if not is_within and (own_cosine <= 0.9995 or own_kl >= 1e-3):
        # Measured at 32 plain random layers.
        pytest.xfail("stock, one batch against one by one, is not within the bound of itself")
    assert is_within, found
