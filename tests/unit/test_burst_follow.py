"""A burst follows a general forward whose tokens the host has not seen, and changes no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from actors.engine.bundle_run import BundleRun
from actors.engine.burst import Burst
from actors.engine.engine import Engine
from actors.engine.landing import Landing
from actors.request import Capture, Sampling, Steering
from tests import tiny
from tests.reference_decoder import ReferenceDecoder
from tests.unit.test_burst_behind import assert_same, bundle, with_ends


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each general forward, whether a burst was launched behind it."""
    seen, follow = [], Burst.follow

    def note(self: Burst, *args: Any) -> None:
        follow(self, *args)
        seen.append(self._flight is not None)

    monkeypatch.setattr(Burst, "follow", note)
    return seen


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3", "mistral"])
def test_what_ends_or_is_let_in_meanwhile_changes_no_answer(
    name: str, tmp_path: Path, followed: list[bool]
) -> None:
    engine = tiny.engine(tiny.save(name, tmp_path), max_batch_requests=7)
    work = bundle(engine, count=40, lengths=(9, 1, 22, 2))
    work = with_ends(work, engine.run(work))
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    followed.clear()  # every graph is there now
    ours = engine.run(work)
    assert_same(ours, single)
    assert ours.num_decode_tokens + ours.num_prefill_tokens == (
        single.num_decode_tokens + single.num_prefill_tokens
    )
    assert sum(followed) > 3


def test_the_burst_is_launched_before_the_forwards_tokens_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine, count=3, lengths=(20,), ignore_eos=True)
    decoder = engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    before, seen = decoder.num_steps, []
    wait = Landing.wait

    def note(self: Landing) -> None:
        if self.host.dtype == torch.int64 and self.host.ndim == 1:  # tokens
            seen.append(decoder.num_steps - before)
        wait(self)

    monkeypatch.setattr(Landing, "wait", note)
    engine.run(work)
    assert seen == [20]  # 19 tokens more, and the last one's row for a capture
    assert decoder.num_steps - before == 20


@pytest.mark.parametrize("reads", [True, False])
def test_rows_that_end_with_the_forwards_own_token(
    reads: bool, tmp_path: Path, followed: list[bool]
) -> None:
    """By an end token, by a stop id or by their length, with and without a row to be read."""
    engine = tiny.engine(tiny.save("qwen3_moe", tmp_path))
    work = bundle(engine, count=12, lengths=(20,), ignore_eos=True)
    told = engine.run(work)
    capture = (Capture(layers=(0, 2), tokens="all", reduction="mean"),) if reads else ()
    made = []
    for i, (r, found) in enumerate(zip(work.requests, told.results, strict=True)):
        first = found.completion_ids[0]
        sampling = (
            replace(r.sampling, stop_ids=(first,)),
            replace(r.sampling, max_new_tokens=1),
            r.sampling,
            replace(r.sampling, max_new_tokens=2),
        )[i % 4]
        made.append(replace(r, sampling=sampling, capture=capture))
    work = replace(work, requests=tuple(made))
    single = engine.run(work)
    assert {len(r.completion_ids) for r in single.results} == {1, 2, 20}
    engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    followed.clear()
    assert_same(engine.run(work), single)
    assert followed[0]


def test_a_row_without_a_token_ends_alone(tmp_path: Path, followed: list[bool]) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine, count=6, lengths=(12,), ignore_eos=True)
    huge = np.full(engine.info.hidden_size, 3e38, np.float32)
    broken = replace(
        work.requests[2], steering=(Steering(layer=1, vector="huge", coefficient=10.0),), capture=()
    )
    work = replace(
        work,
        requests=(*work.requests[:2], broken, *work.requests[3:]),
        vectors=work.vectors | {"huge": huge},
    )
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    followed.clear()
    ours = engine.run(work)
    assert followed[0]
    for x, y in zip(ours.results, single.results, strict=True):
        assert (x.error, x.completion_ids) == (y.error, y.completion_ids)
    assert ours.results[2].error is not None
    assert ours.results[2].error.type == "non_finite"


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": Sampling(max_new_tokens=9, top_k=3, temperature=1.0)},
        {"num_top_logprobs": 2},
        {"capture": (Capture(layers=(1,), tokens="response[:4]"),)},
    ],
)
def test_what_a_burst_cannot_follow_is_left_to_the_host(
    changes: dict[str, Any], tmp_path: Path, followed: list[bool]
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine, count=6, lengths=(12,), ignore_eos=True)
    odd = replace(work.requests[3], **changes)
    work = replace(work, requests=(*work.requests[:3], odd, *work.requests[4:]))
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    followed.clear()
    assert_same(engine.run(work), single)
    assert not followed[0]


def test_who_is_over_with_the_forward_is_no_row_of_the_burst(
    tmp_path: Path, followed: list[bool]
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine, count=6, lengths=(12,), ignore_eos=True)
    read = Capture(layers=(1,), tokens="all")
    made = [
        replace(r, sampling=Sampling(max_new_tokens=0), capture=(read,)) if i in (0, 3) else r
        for i, r in enumerate(work.requests)
    ]
    made[1] = replace(made[1], sampling=Sampling(max_new_tokens=1), capture=(), steering=())
    work = replace(work, requests=tuple(made))
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    followed.clear()
    assert_same(engine.run(work), single)
    assert followed[0]


def test_a_prompt_in_chunks_keeps_the_host_in_charge(tmp_path: Path, followed: list[bool]) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_tokens=24)
    engine.goes_ahead = True
    work = bundle(engine, count=3, lengths=(12,), ignore_eos=True)
    long = replace(work.requests[1], token_ids=tuple(range(3, 73)), capture=())
    work = replace(work, requests=(work.requests[0], long, work.requests[2]))
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    followed.clear()
    assert_same(engine.run(work), single)
    assert followed == [True]  # behind the last of three chunks, as behind the others are chunks


def test_a_burst_follows_the_last_forward_that_lets_somebody_in(
    tmp_path: Path, followed: list[bool]
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_tokens=24)
    engine.goes_ahead = True
    work = bundle(engine, count=6, lengths=(12,), ignore_eos=True)
    apart = tuple(
        replace(r, token_ids=tuple(range(3 + 12 * i, 15 + 12 * i)))
        for i, r in enumerate(work.requests)
    )
    work = replace(work, requests=apart)
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    followed.clear()
    assert_same(engine.run(work), single)
    assert followed == [True]  # two prompts in each of three forwards, one behind the other


def test_pages_that_run_out_change_no_answer(tmp_path: Path, followed: list[bool]) -> None:
    path = tiny.save("qwen3_moe", tmp_path)
    roomy = tiny.engine(path)
    work = bundle(roomy, count=16, lengths=(14, 40, 25), ignore_eos=True)
    single = roomy.run(work)
    small = tiny.engine(path, kv_cache_bytes=44 * 4 * 2 * 2 * 12 * 3 * 4)
    assert small.info.num_pages == 44
    small.fast = ReferenceDecoder(small)
    small.run(work)
    followed.clear()
    assert_same(small.run(work), single)
    assert any(followed)


def test_the_host_is_not_idle_in_a_forward_that_chooses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_tokens=24)
    work = bundle(engine, count=1, lengths=(1,), ignore_eos=True)
    long = replace(work.requests[0], token_ids=tuple(range(3, 73)), capture=())
    seen, waiting = [], BundleRun.while_waiting

    def note(self: BundleRun) -> None:
        seen.append(self.num_steps)
        waiting(self)

    monkeypatch.setattr(BundleRun, "while_waiting", note)
    engine.run(replace(work, requests=(long,)))
    assert seen == [0, 1, 2]  # 24, 24 and 22 rows


def follow_on_two_ranks(rank: int, size: int, path: str) -> Any:
    engine = Engine.load(
        tiny.spec(Path(path), max_batch_requests=7),
        rank=rank,
        world_size=size,
        process_group=dist.group.WORLD,
    )
    work = bundle(engine, count=30, lengths=(9, 1, 22, 2))
    work = with_ends(work, engine.run(work))
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    before = decoder.num_steps
    return single, engine.run(work), decoder.num_steps - before


def test_two_ranks_follow_alike(tmp_path: Path) -> None:
    path = tiny.save("deepseek_v3", tmp_path)
    found = tiny.run_ranks(2, follow_on_two_ranks, str(path))
    assert found[0][2] == found[1][2]
    assert found[0][1].digest == found[1][1].digest
    assert_same(found[0][1], found[0][0])
