"""The shipped toy models give stock transformers' tokens and vectors at TP 1, 2 and 4.

The oracle is plain transformers in one process: ``generate()`` prompt by prompt, and a mean
difference of its hidden states on exactly the tokens that were generated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from tokenizers import Tokenizer

from actors.engine.engine import Engine
from actors.request import Bundle, Capture, EngineSpec, Request, Sampling
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
NEW = 8
Answer = list[tuple[tuple[int, ...], np.ndarray]]
"""(completion, mean of the first five response rows ``[L, D]``) per prompt."""


def prompts(model: str) -> list[list[int]]:
    """Positive, then negative prefixes of the first anxiety pairs, and one long text of both."""
    text = (ROOT / "conf" / "trait" / "anxiety.yaml").read_text(encoding="utf-8")
    pairs = yaml.safe_load(text)["pairs"]
    tokenizer = Tokenizer.from_file(
        str(ROOT / "jobs" / "toy" / "models" / model / "tokenizer.json")
    )
    sides = [[p[side] for p in pairs[:8]] for side in ("positive", "negative")]
    return [tokenizer.encode(line).ids for line in (*sides[0], *sides[1], " ".join(sides[0][:3]))]


def folder(model: str) -> Path:
    return ROOT / "jobs" / "toy" / "models" / model


def ours(rank: int, size: int, model: str, group: Any = None) -> Answer:
    group = dist.group.WORLD if size > 1 else group
    spec = EngineSpec(model_path=str(folder(model)), tensor_parallel_size=size)
    engine = Engine.load(spec, rank=rank, world_size=size, process_group=group)
    layers = tuple(range(engine.info.num_layers))
    capture = (Capture(layers=layers, tokens="response[:5]", reduction="mean"),)
    requests = tuple(
        Request(
            id=str(i),
            token_ids=tuple(ids),
            sampling=Sampling(max_new_tokens=NEW),
            capture=capture,
        )
        for i, ids in enumerate(prompts(model))
    )
    results = engine.run(Bundle(id="toy", requests=requests)).results
    assert all(r.error is None for r in results)
    if rank:
        return [(r.completion_ids, np.empty(0)) for r in results]
    return [(r.completion_ids, r.captures[0].values["resid_post"]) for r in results]


@torch.inference_mode()
def stock(model: str) -> Answer:
    plain = tiny.stock(folder(model))
    rows: dict[int, torch.Tensor] = {}
    for number, layer in enumerate(plain.model.layers):
        layer.register_forward_hook(lambda m, a, out, n=number: rows.__setitem__(n, out[0]))
    answers: Answer = []
    for ids in prompts(model):
        given = torch.tensor([ids])
        mask = torch.ones_like(given)
        whole = plain.generate(given, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
        made = whole[0, len(ids) :].tolist()
        plain(whole)
        read = [rows[n][len(ids) : len(ids) + 5].mean(0).numpy() for n in sorted(rows)]
        answers.append((tuple(made), np.stack(read)))
    return answers


def direction(answers: Answer) -> np.ndarray:
    """Mean difference over the eight pairs, per layer."""
    rows = np.stack([values for _, values in answers[:16]]).astype(np.float64)
    return rows[:8].mean(0) - rows[8:].mean(0)


@pytest.mark.parametrize(
    "sizes", [(2,), pytest.param((2, 4), marks=pytest.mark.long)], ids=["2", "2-and-4"]
)
@pytest.mark.parametrize("model", ["toy_mla", pytest.param("toy_gqa", marks=pytest.mark.long)])
def test_toy_models_equal_plain_transformers_at_every_size(
    model: str, sizes: tuple[int, ...]
) -> None:
    want = stock(model)
    found = {1: ours(0, 1, model)}
    for size in sizes:
        ranks = tiny.run_ranks(size, ours, model)
        assert len({tuple(ids for ids, _ in answers) for answers in ranks}) == 1
        found[size] = ranks[0]
    for size, answers in found.items():
        assert [ids for ids, _ in answers] == [ids for ids, _ in want], f"TP {size}"
        for a, b in zip(direction(answers), direction(want), strict=True):
            assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.9999, f"TP {size}"
