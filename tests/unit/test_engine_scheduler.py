"""10,000 random schedules: all finish, first come first served, and every page comes back."""

from __future__ import annotations

import random

import pytest

from actors.engine.pages import PageTable
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from tests.tiny import ask

PAGE = 4


def _sequence(index, prompt, new, *, tokens=None, shares=True, key=b"", starts=0, last_row=False):
    request = ask(index, tokens or range(100 * index, 100 * index + prompt), new)
    sequence = Sequence(
        request,
        index,
        list(request.token_ids),
        shares_prefix=shares,
        steering_key=key,
        steering_starts=starts,
    )
    if new == 0:
        sequence.finish_reason, sequence.needs_last_row = "length", True
    sequence.wants_last = last_row  # type: ignore[attr-defined]
    return sequence


class _Traced(Sequence):
    __slots__ = ("wants_last",)


@pytest.fixture(autouse=True)
def _sequences_remember(monkeypatch):
    monkeypatch.setattr("tests.unit.test_engine_scheduler.Sequence", _Traced)


def _advance(scheduler, spans, ends_early=lambda sequence: False):
    """What the engine does with a step: computed rows, one token where a span samples."""
    for span in spans:
        span.sequence.num_computed = span.stop
    for span in spans:
        sequence = span.sequence
        if not span.samples and sequence.finish_reason is None:
            continue
        if sequence.finish_reason is None:
            sequence.tokens.append(7)
            made = len(sequence.completion_ids)
            if made >= sequence.request.sampling.max_new_tokens or ends_early(sequence):
                sequence.finish_reason = "length"
                sequence.needs_last_row = sequence.wants_last
        if sequence.is_done:
            scheduler.finish(sequence)


def _owners(scheduler) -> dict[int, int]:
    counts: dict[int, int] = {}
    for sequence in scheduler.running:
        assert len(set(sequence.pages)) == len(sequence.pages)
        for page in sequence.pages:
            counts[page] = counts.get(page, 0) + 1
    return counts


def _check_step(scheduler, spans, max_tokens, max_sequences):
    pages = scheduler.pages
    assert spans
    # A sequence that lacks one token decodes: such rows take no room from prompts.
    prompt_rows = [s.stop - s.start for s in spans if len(s.sequence.tokens) - s.start > 1]
    assert sum(prompt_rows) <= max_tokens
    assert len(scheduler.running) <= max_sequences
    assert len({id(s.sequence) for s in spans}) == len(spans)
    for span in spans:
        sequence = span.sequence
        assert span.start == sequence.num_computed
        assert span.start < span.stop <= len(sequence.tokens)
        assert len(sequence.pages) >= pages.pages_for(span.stop)
        assert sequence in scheduler.running
    owners = _owners(scheduler)
    assert 0 not in owners
    assert pages.num_free + len(owners) == pages.capacity  # none leaks
    assert pages._references == owners  # none has an owner that nobody knows
    order = [s.index for s in scheduler.running] + [s.index for s in scheduler.waiting]
    assert order == sorted(order)  # first come, first served, also after preemption


def _random_case(draw):
    capacity, sequences = draw.randint(3, 14), []
    prefixes = [[draw.randrange(50) for _ in range(24)] for _ in range(2)]
    for index in range(draw.randint(1, 9)):
        prompt = draw.randint(1, min(20, capacity * PAGE))
        new = draw.randint(0, min(12, capacity * PAGE - prompt))
        tokens = draw.choice(prefixes)[:prompt] if draw.random() < 0.5 else None
        sequences.append(
            _sequence(
                index,
                prompt,
                new,
                tokens=tokens,
                shares=draw.random() < 0.8,
                key=draw.choice([b"", b"a", b"b"]),
                starts=draw.choice([0, 6, 100]),
                last_row=draw.random() < 0.5,
            )
        )
    return capacity, sequences


def _reserve(scheduler, steps, ahead=0) -> bool:
    """Pages for steps ahead come from nobody, and all that were promised are there."""
    before = scheduler.num_preemptions
    got = scheduler.reserve(steps, ahead=ahead)
    assert got <= steps
    assert scheduler.num_preemptions == before
    pages, owners = scheduler.pages, _owners(scheduler)
    assert pages.num_free + len(owners) == pages.capacity
    assert pages._references == owners
    if got:
        for sequence in scheduler.running:
            longest = len(sequence.request.token_ids) + sequence.request.sampling.max_new_tokens
            promised = min(sequence.num_computed + ahead + got, longest)
            assert len(sequence.pages) >= pages.pages_for(promised)
    return got > 0 and bool(scheduler.running)


@pytest.mark.parametrize("part", range(4))
def test_2500_random_schedules_each_lose_no_page_and_finish_every_sequence(part):
    preemptions = shared = reserved = 0
    for case in range(2500):
        draw = random.Random(part * 2500 + case)
        capacity, sequences = _random_case(draw)
        max_tokens, max_sequences = draw.randint(1, 24), draw.randint(1, 8)
        scheduler = Scheduler(
            PageTable(capacity + 1, PAGE), max_tokens=max_tokens, max_sequences=max_sequences
        )
        scheduler.add(sequences)
        rows = sum(len(s.tokens) + s.request.sampling.max_new_tokens for s in sequences)
        steps = computed = 0
        while scheduler.has_work:
            spans = scheduler.next_step()
            _check_step(scheduler, spans, max_tokens, max_sequences)
            computed += sum(s.stop - s.start for s in spans)
            _advance(scheduler, spans, lambda _: draw.random() < 0.05)  # noqa: B023
            if draw.random() < 0.2:  # a burst takes pages ahead
                reserved += _reserve(scheduler, draw.randint(1, 9), draw.randint(0, 3))
            steps += 1
            assert steps <= rows * (1 + len(sequences)), "no progress"
        assert all(s.is_done for s in sequences)
        assert scheduler.pages.num_free == capacity
        preemptions += scheduler.num_preemptions
        shared += computed < rows
    assert preemptions > 200
    assert shared > 200
    assert reserved > 200


def test_steps_are_a_pure_function_of_the_sequences():
    def trace():
        capacity, sequences = _random_case(random.Random(77))
        scheduler = Scheduler(PageTable(capacity + 1, PAGE), max_tokens=9, max_sequences=4)
        scheduler.add(sequences)
        found = []
        while scheduler.has_work:
            spans = scheduler.next_step()
            found.append([(s.sequence.index, s.start, s.stop, *s.sequence.pages) for s in spans])
            _advance(scheduler, spans)
        return found

    assert trace() == trace()


def test_decode_rows_come_first_and_prefill_fills_the_rest_of_the_batch():
    scheduler = Scheduler(PageTable(100, PAGE), max_tokens=16, max_sequences=8)
    scheduler.add([_sequence(0, 5, 9), _sequence(1, 30, 9), _sequence(2, 4, 9)])
    steps = []
    for _ in range(4):
        spans = scheduler.next_step()
        steps.append([(s.sequence.index, s.start, s.stop) for s in spans])
        _advance(scheduler, spans)
    assert steps == [
        [(0, 0, 5), (1, 0, 11)],
        [(0, 5, 6), (1, 11, 27)],
        [(0, 6, 7), (1, 27, 30), (2, 0, 4)],
        [(0, 7, 8), (1, 30, 31), (2, 4, 5)],
    ]


def test_the_youngest_gives_way_and_runs_again_from_its_kept_tokens():
    scheduler = Scheduler(PageTable(8, PAGE), max_tokens=64, max_sequences=8)
    old, young = _sequence(0, 7, 16), _sequence(1, 7, 12)
    scheduler.add([old, young])
    while not scheduler.num_preemptions:
        _advance(scheduler, scheduler.next_step())
    kept = len(young.tokens)
    assert kept > 7
    assert list(scheduler.waiting) == [young]
    assert (young.num_computed, young.pages, young.is_running) == (0, [], False)
    while scheduler.has_work:
        _advance(scheduler, scheduler.next_step())
    assert len(old.completion_ids) == 16
    assert len(young.completion_ids) == 12


def test_a_sequence_that_fills_the_cache_is_admitted_and_a_longer_one_is_a_bug():
    for prompt, new in ((12, 0), (5, 7), (11, 1)):
        scheduler = Scheduler(PageTable(4, PAGE), max_tokens=64, max_sequences=8)
        scheduler.add([_sequence(0, prompt, new, last_row=True)])
        while scheduler.has_work:
            _advance(scheduler, scheduler.next_step())
        assert scheduler.pages.num_free == 3
    scheduler = Scheduler(PageTable(4, PAGE), max_tokens=64, max_sequences=8)
    scheduler.add([_sequence(0, 13, 4)])
    with pytest.raises(RuntimeError, match="fits the cache"):
        scheduler.next_step()


def test_full_prompt_pages_are_shared_only_under_equal_steering_before_them():
    tokens = list(range(12))
    cases = [
        (b"", 100, 8),  # two full pages; the last row always runs
        (b"a", 8, 8),  # steering starts after them
        (b"a", 5, 4),  # it starts on the second page
        (b"a", 0, 0),
    ]
    for key, starts, computed in cases:
        scheduler = Scheduler(PageTable(40, PAGE), max_tokens=64, max_sequences=8)
        scheduler.add([_sequence(0, 12, 4, tokens=tokens, starts=100)])
        scheduler.add([_sequence(1, 12, 4, tokens=tokens, key=key, starts=starts)])
        scheduler.add([_sequence(2, 12, 4, tokens=tokens, key=key, starts=starts, shares=False)])
        first, second, third = scheduler.next_step()
        assert (first.start, second.start, third.start) == (0, computed, 0)
        assert second.sequence.pages[: computed // 4] == first.sequence.pages[: computed // 4]
        assert not set(third.sequence.pages) & set(first.sequence.pages)


def test_reserving_steps_owns_their_pages_or_says_how_many_fit():
    scheduler = Scheduler(PageTable(8, PAGE), max_tokens=64, max_sequences=8)
    scheduler.add([_sequence(0, 4, 30), _sequence(1, 4, 30)])
    _advance(scheduler, scheduler.next_step())
    assert scheduler.reserve(8) == 8  # two more pages each, of seven
    assert [len(s.pages) for s in scheduler.running] == [3, 3]
    assert scheduler.reserve(32) == 8
    assert scheduler.num_preemptions == 0
    assert not scheduler.would_admit()


def test_reserving_behind_steps_that_are_launched_adds_to_theirs_up_to_the_longest_length():
    scheduler = Scheduler(PageTable(11, PAGE), max_tokens=64, max_sequences=8)
    scheduler.add([_sequence(0, 4, 30), _sequence(1, 4, 3)])
    _advance(scheduler, scheduler.next_step())
    assert scheduler.reserve(8) == 8
    assert [len(s.pages) for s in scheduler.running] == [3, 2]  # 4 + 3 tokens are two pages
    assert scheduler.reserve(8, ahead=8) == 8
    assert [len(s.pages) for s in scheduler.running] == [5, 2]
    assert scheduler.reserve(40, ahead=16) == 10  # of ten pages, three were left
    assert [len(s.pages) for s in scheduler.running] == [8, 2]


def test_the_next_in_the_queue_are_made_ahead_and_no_more_than_came_in_last():
    made = []

    def give():
        for index in range(50):
            made.append(index)
            yield _sequence(index, 8, 30)

    scheduler = Scheduler(PageTable(400, PAGE), max_tokens=40, max_sequences=8)
    scheduler.add(give())
    _advance(scheduler, scheduler.next_step())
    assert len(scheduler.running) == 5
    scheduler.look_ahead()
    scheduler.look_ahead()
    assert len(made) == 10
    assert [len(s.page_keys) for s in scheduler.waiting.made()] == [2] * 5


def test_work_per_step_does_not_grow_with_the_queue():
    """Steps look at the running sequences and the head of the queue, whatever waits behind."""

    def touched(waiting):
        scheduler = Scheduler(PageTable(50, PAGE), max_tokens=16, max_sequences=4)
        scheduler.add(_sequence(i, 5, 6) for i in range(waiting))
        for _ in range(30):
            _advance(scheduler, scheduler.next_step())
        left = list(scheduler.waiting)
        return sum(bool(s.page_keys) for s in left), len(left)

    few, many = touched(100), touched(5000)
    assert few[0] == many[0] <= 1
    assert many[1] - few[1] == 4900


def test_a_waiting_sequence_does_not_exist_before_its_turn():
    made = []

    def sequences():
        for index in range(10_000):
            made.append(index)
            yield _sequence(index, 5, 6)

    scheduler = Scheduler(PageTable(50, PAGE), max_tokens=16, max_sequences=4)
    scheduler.add(sequences())
    finished = 0
    for _ in range(60):
        spans = scheduler.next_step()
        _advance(scheduler, spans)
        finished += sum(s.sequence.is_done for s in spans)
        assert len(made) <= finished + 5  # four that run and the head of the queue
    assert finished > 20
