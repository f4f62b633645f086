"""A forward is launched behind another whose tokens are not known yet, and changes no answer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from actors.engine.agreement import RanksDisagree
from actors.engine.endings import Endings
from actors.engine.engine import Engine
from actors.engine.landing import Landing
from actors.engine.launched import Launched
from actors.engine.pages import PageTable
from actors.engine.sampler import Sampled
from actors.engine.scheduler import Scheduler
from actors.request import Bundle, Capture, Request, Sampling
from tests import tiny
from tests.reference_decoder import ReferenceDecoder
from tests.unit import test_engine_scheduler as schedules
from tests.unit.test_burst_behind import assert_same, bundle, with_ends

PAGE = schedules.PAGE
SHORT = ("deepseek_v3", "qwen3_moe", "mistral")
"""Families of which every run sees the chunks."""


class Watch:
    """What an engine launches and books, in order; ``behind`` when a forward was not awaited."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[str] = []
        self.rows: list[list[tuple[int, int, int]]] = []
        self._launched: list[Launched] = []
        engine.goes_ahead = True  # as on a GPU
        launch, arrive = engine._launch, Launched.on_host

        def note_launch(run: Any) -> Launched:
            made = launch(run)
            self.order.append(f"launch {len(self.rows)}")
            self.rows.append([(s.sequence.index, s.start, s.stop) for s in made.batch.spans])
            self._launched.append(made)
            return made

        def note_arrival(made: Launched) -> Sampled | None:
            self.order.append(f"book {next(i for i, m in enumerate(self._launched) if m is made)}")
            return arrive(made)

        monkeypatch.setattr(engine, "_launch", note_launch)
        monkeypatch.setattr(Launched, "on_host", note_arrival)

    def clear(self) -> None:
        """Forget what was seen."""
        for seen in (self.order, self.rows, self._launched):
            seen.clear()

    @property
    def num_behind(self) -> int:
        """Forwards that were launched before the one before them was booked."""
        at = {event: i for i, event in enumerate(self.order)}
        return sum(at[f"launch {i}"] < at[f"book {i - 1}"] for i in range(1, len(self.rows)))


def apart(work: Bundle, length: int = 12) -> Bundle:
    """The same requests with prompts of one length that share no page."""
    made = tuple(
        replace(r, token_ids=tuple((3 + 7 * i + t) % 158 + 3 for t in range(length)))
        for i, r in enumerate(work.requests)
    )
    return replace(work, requests=made)


def test_prompts_do_not_wait_for_the_tokens_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_tokens=24)
    work = apart(bundle(engine, count=6, lengths=(4,), ignore_eos=True))
    watch = Watch(engine, monkeypatch)
    engine.run(work)
    assert watch.order[:6] == ["launch 0", "launch 1", "book 0", "launch 2", "book 1", "book 2"]
    assert watch.rows[:4] == [
        [(0, 0, 12), (1, 0, 12)],
        [(2, 0, 12), (3, 0, 12)],  # the first two sit it out: nobody knows their tokens
        [(0, 12, 13), (1, 12, 13), (4, 0, 12), (5, 0, 12)],
        [(i, *((13, 14) if i < 2 else (12, 13))) for i in range(6)],
    ]


def test_a_burst_follows_whose_rows_are_partly_known_and_partly_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("qwen3_moe", tmp_path), max_batch_tokens=24)
    work = apart(bundle(engine, count=6, lengths=(12, 1, 9, 12, 5, 2), ignore_eos=True))
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    watch, steps = Watch(engine, monkeypatch), []
    arrive = Launched.on_host

    def note(made: Launched) -> Sampled | None:
        steps.append(decoder.num_steps)
        return arrive(made)

    monkeypatch.setattr(Launched, "on_host", note)
    before = decoder.num_steps
    assert_same(engine.run(work), single)
    assert len(watch.rows) == 3  # no further general forward
    assert [n - before for n in steps[:2]] == [0, 0]
    assert steps[2] - before >= 11  # launched before the third one's tokens were waited for


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in tiny.FAMILIES],
)
def test_chunks_ends_and_admissions_change_no_answer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.save(name, tmp_path)
    roomy = tiny.engine(path, max_batch_tokens=4096)
    work = bundle(roomy, count=24, lengths=(9, 1, 22, 2))
    rng = random.Random(3)
    long = [
        replace(r, token_ids=tuple(rng.randrange(3, 161) for _ in range(60))) if i % 5 == 0 else r
        for i, r in enumerate(work.requests)
    ]
    work = replace(work, requests=tuple(long))
    work = with_ends(work, roomy.run(work))
    whole = roomy.run(work)
    for rows, places in ((24, 24), (16, 5)):
        engine = tiny.engine(path, max_batch_tokens=rows, max_batch_requests=places)
        with monkeypatch.context() as patch:
            watch = Watch(engine, patch)
            assert_same(engine.run(work), whole)
            assert watch.num_behind >= 4
            engine.fast = ReferenceDecoder(engine)
            watch.clear()
            assert_same(engine.run(work), whole)
            assert watch.num_behind >= 4


@pytest.mark.parametrize("new", [0, 1])
def test_who_needs_no_further_row_makes_room_before_its_token_is_known(
    new: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_requests=4)
    read = Capture(layers=(0, 2), tokens="prompt", reduction="mean")
    requests = [
        Request(
            id=f"r{i}",
            token_ids=tuple(range(3 + i, 9 + i)),
            sampling=Sampling(max_new_tokens=new),
            capture=(read,),
            num_top_logprobs=2 * new,
        )
        for i in range(20)
    ]
    watch = Watch(engine, monkeypatch)
    together = tiny.run(engine, requests)
    assert watch.num_behind == 4  # five forwards of four
    for request, ours in zip(requests, together.results, strict=True):
        alone = tiny.run(engine, [request]).results[0]
        assert (ours.completion_ids, ours.finish_reason) == (alone.completion_ids, "length")
        assert (ours.logprobs is None) == (new == 0)
        if ours.logprobs is not None and alone.logprobs is not None:
            assert ours.logprobs.top_ids.tolist() == alone.logprobs.top_ids.tolist()


@pytest.mark.parametrize("new", [0, 1, 3])
def test_chunks_of_a_prompt_are_launched_one_behind_the_other(
    new: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end comes once, with its last chunk, though that one is launched before others end."""
    engine = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_tokens=16)
    read = Capture(layers=(0, 2), tokens="prompt", reduction="mean")
    request = replace(tiny.ask(0, range(3, 73), new, ignore_eos=True), capture=(read,))
    whole = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_tokens=4096)
    (alone,) = tiny.run(whole, [request]).results
    watch = Watch(engine, monkeypatch)
    (ours,) = tiny.run(engine, [request]).results
    assert watch.order[:6] == ["launch 0", "launch 1", "book 0", "launch 2", "book 1", "launch 3"]
    assert watch.num_behind == 4  # five chunks
    assert ours.completion_ids == alone.completion_ids
    np.testing.assert_allclose(
        ours.captures[0].values["resid_post"], alone.captures[0].values["resid_post"], rtol=1e-4
    )


def test_ranks_that_run_nothing_compare_what_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("qwen3", tmp_path))
    monkeypatch.setattr(
        engine.collectives, "all_gather", lambda mine: torch.stack((mine, mine + 1))
    )
    with pytest.raises(RanksDisagree, match="were given another bundle"):
        tiny.run(engine, [tiny.ask("bad", (), 5)])


def test_the_last_tokens_row_keeps_a_sequences_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_requests=4)
    read = Capture(layers=(0, 2), tokens="all", reduction="mean")
    requests = [replace(tiny.ask(i, range(3 + i, 9 + i), 1), capture=(read,)) for i in range(8)]
    watch = Watch(engine, monkeypatch)
    reply = tiny.run(engine, requests)
    # The last tokens' rows are a forward of their own, behind which the next ones may start.
    assert watch.order[:4] == ["launch 0", "book 0", "launch 1", "launch 2"]
    assert all(len(r.captures[0].positions) == 7 for r in reply.results)


def test_tokens_stream_in_order_although_forwards_overlap(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_tokens=24)
    engine.goes_ahead = True
    work = apart(bundle(engine, count=6, lengths=(5,), ignore_eos=True))
    seen: dict[str, list[int]] = {}

    def note(token: Any) -> None:
        assert token.index == len(seen.setdefault(token.request_id, []))
        seen[token.request_id].append(token.token_id)

    reply = engine.run(work, on_token=note)
    assert {r.id: list(r.completion_ids) for r in reply.results} == seen


def test_nobody_gives_pages_back_while_a_forward_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random schedules, with tight pages: launched behind one another, none is taken from."""
    monkeypatch.setattr(schedules, "Sequence", schedules._Traced)
    behind = preemptions = given_up = 0
    for case in range(2500):
        draw = random.Random(case)
        capacity, sequences = schedules._random_case(draw)
        max_tokens, max_sequences = draw.randint(1, 24), draw.randint(1, 8)
        scheduler = Scheduler(
            PageTable(capacity + 1, PAGE), max_tokens=max_tokens, max_sequences=max_sequences
        )
        scheduler.add(sequences)
        wanted = {s.request.id: s.wants_last for s in sequences}
        reader: Any = SimpleNamespace(may_read=lambda request, _, wanted=wanted: wanted[request.id])
        endings = Endings(reader, eos_ids=(), decode=None, on_token=None)
        pending = None
        while scheduler.has_work or pending:
            first = pending or _plan(scheduler, endings, max_tokens, max_sequences)
            pending = None
            if scheduler.may_go_ahead:
                before = scheduler.num_preemptions
                pending = _plan(scheduler, endings, max_tokens, max_sequences)
                assert scheduler.num_preemptions == before
                behind += 1
            given_up += sum(not s.sequence.is_running for s in first)
            _book(scheduler, first, draw)
        assert all(s.is_done for s in sequences)
        assert scheduler.pages.num_free == capacity
        preemptions += scheduler.num_preemptions
    assert behind > 1000
    assert preemptions > 100
    assert given_up > 1000


def _plan(scheduler: Scheduler, endings: Endings, *limits: int) -> list[Any]:
    spans = scheduler.next_step()
    schedules._check_step(scheduler, spans, *limits)
    for span in spans:
        span.sequence.num_computed = span.stop
        if endings.needs_no_more(span.sequence, samples=span.samples):
            scheduler.finish(span.sequence)
    return spans


def _book(scheduler: Scheduler, spans: list[Any], draw: random.Random) -> None:
    for span in spans:
        sequence = span.sequence
        if span.samples:
            sequence.tokens.append(7)
            made = len(sequence.completion_ids)
            if made >= sequence.request.sampling.max_new_tokens or draw.random() < 0.05:
                sequence.finish_reason = "length"
                sequence.needs_last_row = sequence.wants_last
        if sequence.is_done and span.stop == sequence.num_computed and sequence.is_running:
            scheduler.finish(sequence)


def test_pages_that_run_out_change_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.save("qwen3_moe", tmp_path)
    roomy = tiny.engine(path)
    work = apart(bundle(roomy, count=16, lengths=(14, 40, 25), ignore_eos=True))
    whole = roomy.run(work)
    tight = tiny.engine(path, kv_cache_bytes=44 * 4 * 2 * 2 * 12 * 3 * 4, max_batch_tokens=30)
    assert tight.info.num_pages == 44
    watch = Watch(tight, monkeypatch)
    assert_same(tight.run(work), whole)
    assert watch.num_behind >= 2


def overlap_on_two_ranks(rank: int, size: int, path: str) -> Any:
    engine = Engine.load(
        tiny.spec(Path(path), max_batch_tokens=24, max_batch_requests=7),
        rank=rank,
        world_size=size,
        process_group=dist.group.WORLD,
    )
    engine.goes_ahead = True
    work = bundle(engine, count=12, lengths=(9, 1, 12, 2))
    work = with_ends(work, engine.run(work))
    reply = engine.run(work)
    if rank:
        work = replace(work, requests=work.requests[:-1])
    try:
        engine.run(work)
    except RanksDisagree as error:
        return reply, str(error)
    return reply, ""


def test_two_ranks_overlap_alike_and_notice_another_bundle(tmp_path: Path) -> None:
    path = tiny.save("deepseek_v3", tmp_path)
    found = tiny.run_ranks(2, overlap_on_two_ranks, str(path))
    assert found[0][0].digest == found[1][0].digest
    alone = tiny.engine(path, max_batch_tokens=24, max_batch_requests=7)
    work = bundle(alone, count=12, lengths=(9, 1, 12, 2))
    work = with_ends(work, alone.run(work))
    assert_same(found[0][0], alone.run(work))
    assert [text for _, text in found] == ["ranks [1] were given another bundle"] * 2


def test_the_ranks_answer_is_awaited_only_before_the_first_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host prepares the first forward while the ranks' digests are on their way."""
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    order: list[str] = []
    wait, begin = Landing.wait, engine.rows_forward.run
    plan = Scheduler.next_step

    def note_wait(self: Landing) -> None:
        order.append("digests" if self.host.ndim == 2 else "tokens")
        wait(self)

    def note_plan(self: Scheduler) -> Any:
        order.append("plan")
        return plan(self)

    def note_run(*args: Any) -> Any:
        order.append("forward")
        return begin(*args)

    monkeypatch.setattr(Landing, "wait", note_wait)
    monkeypatch.setattr(Scheduler, "next_step", note_plan)
    monkeypatch.setattr(engine.rows_forward, "run", note_run)
    tiny.run(engine, [tiny.ask(0, (5, 6, 7), 2)])
    assert order == [
        *("plan", "digests", "forward", "tokens"),
        *("plan", "forward", "tokens"),
        "digests",
    ]


def test_log_probabilities_leave_with_the_tokens_of_their_own_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched when they are booked, they would wait for the forward behind."""
    engine = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_requests=2)
    watch, send = Watch(engine, monkeypatch), Sampled.send

    def note(sampled: Sampled) -> Any:
        watch.order.append("send")
        return send(sampled)

    monkeypatch.setattr(Sampled, "send", note)
    asked = [replace(tiny.ask(i, (5, 6, 7 + i), 1), num_top_logprobs=2) for i in range(4)]
    reply = tiny.run(engine, asked)
    assert watch.order == ["send", "launch 0", "send", "launch 1", "book 0", "book 1"]
    assert all(r.logprobs is not None and r.logprobs.top.shape == (1, 2) for r in reply.results)


def test_a_cpu_launches_nothing_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny.engine(tiny.save("qwen3", tmp_path), max_batch_tokens=24)
    watch = Watch(engine, monkeypatch)
    assert engine.device.type == "cpu"
    engine.goes_ahead = tiny.engine(tiny.save("qwen3", tmp_path)).goes_ahead
    tiny.run(engine, [tiny.ask(i, range(3 + i, 23 + i), 3) for i in range(4)])
    assert watch.num_behind == 0
