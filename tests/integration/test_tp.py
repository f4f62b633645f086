"""Two, four and eight ranks give the tokens, captures and log-probabilities of one.

Ranks are real processes over gloo. Each size starts once; two ranks run every family, four and
eight some, and all with ``-m long``.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from actors.engine.collectives import Collectives
from actors.engine.engine import Engine
from actors.request import STEERING_SITES, Bundle, Capture, Request, Steering
from tests import oracle, tiny
from tests.tiny import ask

Names = tuple[str, ...]
CASES: tuple[Any, ...] = (
    pytest.param(2, tiny.FAMILIES, id="2"),
    pytest.param(4, ("deepseek_v3", "qwen3_moe"), id="4"),
    pytest.param(8, ("deepseek_v3",), id="8"),
    pytest.param(4, tiny.FAMILIES, id="4-all", marks=pytest.mark.long),
    pytest.param(8, tiny.FAMILIES, id="8-all", marks=pytest.mark.long),
)
"""Ranks, and the families that they run."""
NUM_LAYERS = 3
BATCH = 160
"""Rows of a forward: prompts are read in chunks, beside rows that decode."""


def _captures(name: str) -> tuple[Capture, ...]:
    found = [Capture(layers=(0, 1, 2), sites=STEERING_SITES, tokens="all")]
    if name in tiny.LATENT:
        found.append(Capture(layers=(0, 1, 2), sites=("mla_latent",), tokens="all"))
    if name in tiny.ROUTED:
        found.append(Capture(layers=(1, 2), sites=("router",), tokens="all"))
    found.append(Capture(layers=(2, 1), tokens="response[:]", reduction="mean"))
    found.append(Capture(layers=(1,), tokens="all", reduction="moments", moments_key="all"))
    return tuple(found)


def _bundle(name: str, width: int) -> Bundle:
    """Greedy, sampled, steered and judged requests beside each other."""
    prompts = tiny.prompts(14, 40, seed=12)
    vectors = {"v": np.random.default_rng(4).normal(size=width).astype("f4")}
    steering = (Steering(layer=1, vector="v", coefficient=0.3, operator="add_norm_matched"),)
    requests: list[Request] = []
    requests += [
        ask(f"greedy{i}", p, 6, capture=_captures(name)) for i, p in enumerate(prompts[:4])
    ]
    requests += [ask(f"plain{i}", p, 6) for i, p in enumerate(prompts[4:8])]
    requests += [
        ask("hot", prompts[8], 6, temperature=1.0, seed=3),
        ask("top_k", prompts[9], 6, temperature=1.3, top_k=7, seed=4),
        ask("nucleus", prompts[10], 6, temperature=1.0, top_p=0.7, min_p=0.02),
        ask("penalty", prompts[11], 6, repetition_penalty=1.4),
        ask("steered", prompts[12], 6, steering=steering, capture=_captures(name)[:1]),
        ask("judged", prompts[13], 6, num_top_logprobs=20, logprob_token_ids=(0, 160, 80, 99)),
    ]
    return Bundle(id=name, requests=tuple(requests), vectors=vectors)


def _long_prompts() -> list[tuple[int, ...]]:
    """32 prompts of 1 to 200 tokens."""
    return tiny.prompts(32, 200)


def _answer(engine: Engine, name: str) -> Any:
    return engine.run(_bundle(name, engine.info.hidden_size))


def _work(rank: int, size: int, folder: str, names: Names) -> dict[str, Any]:
    """What one rank does for each family: replies and counts of collectives in forwards."""
    found: dict[str, Any] = {}
    for name in names:
        engine = Engine.load(
            tiny.spec(Path(folder) / name, max_batch_tokens=BATCH),
            rank=rank,
            world_size=size,
            process_group=dist.group.WORLD,
        )
        counts = _count_collectives(engine)
        reply = _answer(engine, name)
        engine.spec = dataclasses.replace(engine.spec, max_batch_tokens=6 * BATCH)
        greedy = tiny.run(engine, [ask(i, p, 5) for i, p in enumerate(_long_prompts())])
        found[name] = (reply if rank == 0 else reply.digest, counts, engine.info.num_pages)
        found[name, "greedy"] = [r.completion_ids for r in greedy.results]
    return found


class _Sent(TorchDispatchMode):
    """Names of the collectives that torch was asked for, by whatever function."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in func.namespace:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _count_collectives(engine: Engine) -> list[tuple[int, int, int]]:
    """Per forward: all-reduces by our count, all-reduces that torch saw, its other collectives."""
    counts: list[tuple[int, int, int]] = []
    forward = engine.rows_forward.run

    def run(batch: Any, sites: Any) -> torch.Tensor:
        before = engine.collectives.num_all_reduces
        with _Sent() as sent:
            hidden: torch.Tensor = forward(batch, sites)
        reduced = sent.names.count("allreduce_")
        ours = engine.collectives.num_all_reduces - before
        counts.append((ours, reduced, len(sent.names) - reduced))
        return hidden

    engine.rows_forward.run = run
    return counts


@functools.cache
def _group(size: int, names: Names) -> list[dict[str, Any]]:
    for name in names:
        tiny.model_path(name)
    return tiny.run_ranks(size, _work, str(tiny.folder()), names)


@functools.cache
def _alone(name: str) -> Any:
    return _answer(tiny.engine(tiny.model_path(name), max_batch_tokens=BATCH), name)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_one_rank_writes_what_stock_writes(name: str) -> None:
    greedy = [r for r in _alone(name).results if r.id.startswith(("greedy", "plain"))]
    stock = tiny.stock_of(name)
    for result in greedy:
        assert result.completion_ids == oracle.generate(stock, result.prompt_ids, 6)


@functools.cache
def _stock_forward(name: str, ids: tuple[int, ...]) -> Any:
    return oracle.forward(tiny.stock_of(name), ids)


@functools.cache
def _is_what_stock_writes(name: str, prompt: tuple[int, ...], completion: tuple[int, ...]) -> bool:
    """Whether stock, shown prompt and completion, would have chosen each of its tokens."""
    logits, _ = oracle.forward(tiny.stock_of(name), prompt + completion)
    return oracle.greedy_continuation(logits, len(prompt)) == completion


@pytest.mark.parametrize(("size", "names"), CASES)
def test_greedy_tokens_of_32_prompts_equal_stock_one_by_one(size: int, names: Names) -> None:
    for name in names:
        ranks = [rank[name, "greedy"] for rank in _group(size, names)]
        assert all(rank == ranks[0] for rank in ranks)
        for prompt, completion in zip(_long_prompts(), ranks[0], strict=True):
            assert len(completion) == 5 or completion[-1] == 2, name
            assert _is_what_stock_writes(name, prompt, completion), (name, len(prompt))


@pytest.mark.parametrize(("size", "names"), CASES)
def test_ranks_choose_the_tokens_of_one_rank_greedy_and_sampled(size: int, names: Names) -> None:
    for name in names:
        got, want = _group(size, names)[0][name][0], _alone(name)
        for result, expected in zip(got.results, want.results, strict=True):
            assert result.completion_ids == expected.completion_ids, (name, result.id)
            assert result.finish_reason == expected.finish_reason
            assert result.receipts == expected.receipts
        assert got.digest == want.digest


@pytest.mark.parametrize(("size", "names"), CASES)
def test_all_ranks_ran_the_same_schedule_with_the_same_pages(size: int, names: Names) -> None:
    for name in names:
        ranks = [rank[name] for rank in _group(size, names)]
        assert {digest for digest, _, _ in ranks[1:]} == {ranks[0][0].digest}
        assert len({pages for _, _, pages in ranks}) == 1


@pytest.mark.parametrize(("size", "names"), CASES)
def test_every_site_of_every_layer_equals_stock_hooks_at_every_token(
    size: int, names: Names
) -> None:
    for name in names:
        for result in _group(size, names)[0][name][0].results[:4]:
            raw = dataclasses.replace(
                result, captures=tuple(c for c in result.captures if c.reduction == "none")
            )
            _, seen = _stock_forward(name, result.prompt_ids + result.completion_ids)
            error, site, layer, count = oracle.worst_site(raw, seen)
            assert error <= 1e-4, (name, site, layer)
            assert count == 15 + 3 * (name in tiny.LATENT) + 6 * (name in tiny.ROUTED)


@pytest.mark.parametrize(("size", "names"), CASES)
def test_captures_of_every_site_equal_those_of_one_rank(size: int, names: Names) -> None:
    for name in names:
        got, want = _group(size, names)[0][name][0], _alone(name)
        for result, expected in zip(got.results, want.results, strict=True):
            for reading, other in zip(result.captures, expected.captures, strict=True):
                assert reading.positions.tolist() == other.positions.tolist()
                assert reading.values.keys() == other.values.keys()
                for site in reading.values:
                    a, b = reading.values[site], other.values[site]
                    if site == "router_experts":
                        assert np.array_equal(np.sort(a), np.sort(b))
                        continue
                    assert oracle.relative_error(a, b) <= 1e-4, (name, site)
                    assert oracle.cosine(a, b) >= 0.9999
        for one, two in zip(got.moments, want.moments, strict=True):
            assert (one.key, one.layer, one.site, one.count) == (
                two.key,
                two.layer,
                two.site,
                two.count,
            )
            assert oracle.relative_error(one.mean, two.mean) <= 1e-4
            assert oracle.relative_error(one.m2, two.m2) <= 1e-4


@pytest.mark.parametrize(("size", "names"), CASES)
def test_log_probabilities_equal_those_of_one_rank(size: int, names: Names) -> None:
    for name in names:
        got, want = (
            next(r for r in reply.results if r.id == "judged").logprobs
            for reply in (_group(size, names)[0][name][0], _alone(name))
        )
        assert np.array_equal(got.top_ids, want.top_ids)
        for field in ("chosen", "top", "named"):
            np.testing.assert_allclose(getattr(got, field), getattr(want, field), atol=1e-4)


@pytest.mark.parametrize(("size", "names"), CASES)
def test_a_forward_makes_two_all_reduces_per_layer_one_for_the_embedding_and_no_other(
    size: int, names: Names
) -> None:
    expected = 2 * NUM_LAYERS + 1
    for rank in _group(size, names):
        for name in names:
            counts = rank[name][1]
            assert len(counts) >= 7  # prefill and decode alike
            assert set(counts) == {(expected, expected, 0)}, name


def _sum_and_gather(rank: int, size: int) -> dict[str, Any]:
    collectives = Collectives(rank, size, dist.group.WORLD)
    mine = torch.full((2, 3), float(rank + 1)).t()  # not contiguous
    with _Sent() as sent:
        gathered = collectives.all_gather(mine)
        summed = collectives.all_reduce(torch.full((2,), float(rank + 1)))
    return {
        "gathered": gathered.tolist(),
        "summed": summed.tolist(),
        "least": collectives.minimum(10 - rank, torch.device("cpu")),
        "count": collectives.num_all_reduces,
        "sent": sent.names,
    }


def test_two_ranks_sum_gather_in_order_and_agree_on_the_least() -> None:
    for found in tiny.run_ranks(2, _sum_and_gather):
        assert found["gathered"] == [[[1.0, 1.0]] * 3, [[2.0, 2.0]] * 3]
        assert found["summed"] == [3.0, 3.0]
        assert found["least"] == 9
        assert found["count"] == 1
        assert len(found["sent"]) == 2  # the watch of the forwards misses neither
        assert found["sent"][1] == "allreduce_"
