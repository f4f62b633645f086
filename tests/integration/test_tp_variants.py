"""At every tensor-parallel size: variants write what stock writes, all sites are stock's own.

Ranks are real processes over gloo. Each size starts once and runs every variant; nothing is
compared with another of our runs.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from actors.engine.engine import Engine
from actors.request import Bundle, Reply
from tests import oracle, tiny, variants
from tests.mixed import different_requests, unit_vectors
from tests.tiny import ask

SIZES = (2, pytest.param(4, marks=pytest.mark.long), pytest.param(8, marks=pytest.mark.long))
STEERED = ("kimi_k2", "qwen3_moe_mixed", "mistral_short")
"""Latents, replicated heads beside dense layers, a window; each with steering of all kinds."""


def _bundles(name: str, width: int) -> list[Bundle]:
    """32 prompts of 1 to 200 tokens, six of them read at every site; steered ones of all kinds."""
    captures = variants.all_sites(name)
    plain = [
        ask(i, p, 4, capture=captures if i % 6 == 1 else ())
        for i, p in enumerate(tiny.prompts(32, 200))
    ]
    steered = different_requests(16) if name in STEERED else []
    return [
        Bundle(id="plain", requests=tuple(plain)),
        Bundle(id="steered", requests=tuple(steered), vectors=unit_vectors(width)),
    ]


def _work(rank: int, size: int, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in variants.VARIANTS:
        engine = Engine.load(
            tiny.spec(Path(folder) / name, max_batch_tokens=300),
            rank=rank,
            world_size=size,
            process_group=dist.group.WORLD,
        )
        replies = [engine.run(b) for b in _bundles(name, engine.info.hidden_size)]
        found[name] = [reply if rank == 0 else reply.digest for reply in replies]
    return found


@functools.cache
def _group(size: int) -> list[dict[str, Any]]:
    for name in variants.VARIANTS:
        variants.model_path(name)
    return tiny.run_ranks(size, _work, str(tiny.folder()))


@functools.cache
def _forward(name: str, ids: tuple[int, ...]) -> Any:
    return oracle.forward(variants.stock_of(name), ids)


def _replies(size: int, name: str) -> list[Reply]:
    ranks = [rank[name] for rank in _group(size)]
    assert all(rank == [reply.digest for reply in ranks[0]] for rank in ranks[1:])
    found: list[Reply] = ranks[0]
    return found


@pytest.mark.parametrize("name", variants.VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_32_prompts_and_every_site_equal_stock_one_by_one(size: int, name: str) -> None:
    places = []
    for prompt, result in zip(tiny.prompts(32, 200), _replies(size, name)[0].results, strict=True):
        completion = result.completion_ids
        assert len(completion) == 4 or completion[-1] == 2
        logits, seen = _forward(name, prompt + completion)
        assert oracle.greedy_continuation(logits, len(prompt)) == completion, len(prompt)
        if result.captures:
            error, site, layer, count = oracle.worst_site(result, seen)
            assert error <= 1e-4, (site, layer)
            places.append(count)
    assert places == [variants.num_places(name)] * 6


@pytest.mark.parametrize("name", STEERED)
@pytest.mark.parametrize("size", SIZES)
def test_steered_requests_equal_single_runs_of_stock_with_hooks(size: int, name: str) -> None:
    stock = variants.stock_of(name)
    vectors = unit_vectors(stock.config.hidden_size)
    results = _replies(size, name)[1].results
    for request, result in zip(different_requests(16), results, strict=True):
        ids = request.token_ids + result.completion_ids
        logits, seen = oracle.forward(stock, ids, request, vectors)
        want = oracle.greedy_continuation(logits, len(request.token_ids))
        assert want == result.completion_ids, request.id
        for reading in result.captures:
            assert np.array_equal(reading.positions, np.arange(len(ids)))
        if result.captures:
            error, site, layer, _ = oracle.worst_site(result, seen)
            assert error <= 1e-4, (site, layer)
