"""Two ranks preempt alike and lose nothing, and ranks that differ are named before they meet.

Ranks are real processes over gloo; they start once and play every case.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from actors.engine.agreement import RanksDisagree
from actors.engine.engine import Engine
from actors.request import Bundle, Steering
from tests import mixed, tiny
from tests.tiny import ask

FAMILIES = ("deepseek_v3", "qwen3_moe", "mistral")  # latents, replicated heads, windows
FEW_PAGES = 22
GROUP = 2
DIFFERENCES = ("prompt", "steering", "order", "chunks", "pages", "token", "nothing")


def _engine(path: Path, rank: int, **options: Any) -> Engine:
    return Engine.load(
        tiny.spec(path, **options),
        rank=rank,
        world_size=GROUP,
        process_group=dist.group.WORLD,
        decode=mixed.spell,
    )


def _work(rank: int, size: int, folder: str) -> dict[str, Any]:
    assert size == GROUP
    answers = {name: _preempt(rank, Path(folder) / name) for name in FAMILIES}
    said = {kind: _differ(rank, Path(folder) / "llama", kind) for kind in DIFFERENCES}
    return {"answers": answers, "said": said}


def _preempt(rank: int, path: Path) -> list[tuple[Any, list[str]]]:
    """Replies under few pages, then in another order and small chunks; ids that were preempted."""
    roomy = _engine(path, rank, max_batch_tokens=19)
    few = (8 << 20) // roomy.info.num_pages * FEW_PAGES + 64
    small = _engine(path, rank, kv_cache_bytes=few, max_batch_tokens=64)
    assert small.info.num_pages == FEW_PAGES
    requests, vectors = mixed.requests(roomy.info.hidden_size)
    shuffled = random.Random(1).sample(requests, len(requests))
    found = []
    for engine, asked in ((small, requests), (roomy, shuffled)):
        with mixed.preemptions() as preempted:
            reply = tiny.run(engine, asked, vectors)
        found.append((reply if rank == 0 else reply.digest, list(preempted)))
    return found


def _differ(rank: int, path: Path, kind: str) -> str:
    """What a rank says of a bundle in which rank 1 is different."""
    engine = _engine(path, rank, kv_cache_bytes=1 << 18)
    prompts = tiny.prompts(9, 40)
    steering = Steering(layer=1, vector="v", coefficient=0.5)
    requests = [ask(i, p, 9, ignore_eos=True, steering=(steering,)) for i, p in enumerate(prompts)]
    if rank == 1:
        _change(engine, requests, kind)
    vectors = {"v": np.ones(engine.info.hidden_size, "f4")}
    try:
        reply = engine.run(Bundle(id=kind, requests=tuple(requests), vectors=vectors))
    except RanksDisagree as error:
        return str(error)
    return reply.digest


def _change(engine: Engine, requests: list[Any], kind: str) -> None:
    if kind == "prompt":  # as long as the other, so no shape differs
        ids = (*requests[4].token_ids[:-1], 5)
        requests[4] = dataclasses.replace(requests[4], token_ids=ids)
    elif kind == "steering":
        steering = dataclasses.replace(requests[4].steering[0], coefficient=0.6)
        requests[4] = dataclasses.replace(requests[4], steering=(steering,))
    elif kind == "order":
        requests[2], requests[3] = requests[3], requests[2]
    elif kind == "chunks":
        engine.spec = dataclasses.replace(engine.spec, max_batch_tokens=33)
    elif kind == "pages":
        engine.cache.num_pages = FEW_PAGES
    elif kind == "token":
        _choose_another(engine)


def _choose_another(engine: Engine) -> None:
    """The fourth choice of this rank is another token."""
    choose, calls = engine._sample, []

    def other(*args: Any) -> Any:
        sampled = choose(*args)
        calls.append(sampled)
        if len(calls) != 4:
            return sampled
        token_ids = sampled.token_ids.clone()
        token_ids[0] += 1 if token_ids[0] < 100 else -1
        return dataclasses.replace(sampled, token_ids=token_ids)

    engine._sample = other  # type: ignore[method-assign]


@functools.cache
def _group() -> list[dict[str, Any]]:
    for name in (*FAMILIES, "llama"):
        tiny.model_path(name)
    return tiny.run_ranks(GROUP, _work, str(tiny.folder()))


@functools.cache
def _alone(name: str) -> Any:
    engine = tiny.engine(tiny.model_path(name), max_batch_tokens=512, decode=mixed.spell)
    return tiny.run(engine, *mixed.requests(engine.info.hidden_size))


@pytest.mark.parametrize("name", FAMILIES)
def test_preemption_order_and_chunks_change_nothing_at_two_ranks(name: str) -> None:
    for reply, _ in _group()[0]["answers"][name]:
        mixed.assert_same_answers(reply, _alone(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_both_ranks_preempt_the_same_requests_at_the_same_time(name: str) -> None:
    first, second = (rank["answers"][name] for rank in _group())
    assert [ids for _, ids in first] == [ids for _, ids in second]
    assert [reply.digest for reply, _ in first] == [digest for digest, _ in second]
    few, roomy = (len(ids) for _, ids in first)
    assert few >= 3
    assert roomy == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("prompt", "ranks [1] were given another bundle"),
        ("steering", "ranks [1] were given another bundle"),
        ("order", "ranks [1] were given another bundle"),
        ("chunks", "ranks [1] chose otherwise before step 0"),
        ("token", "ranks [1] chose otherwise before step "),
        ("pages", "ranks [1] chose otherwise before step "),
    ],
)
def test_a_rank_that_differs_is_named_by_every_rank_before_a_collective_of_another_shape(
    kind: str, said: str
) -> None:
    sentences = [rank["said"][kind] for rank in _group()]
    assert all(sentence.startswith(said) for sentence in sentences), sentences


def test_ranks_that_are_alike_end_with_one_digest() -> None:
    first, second = (rank["said"]["nothing"] for rank in _group())
    assert first == second
    assert len(first) == 64
