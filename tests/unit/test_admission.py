"""Who waits comes in when it is worth a forward: neither much earlier nor much later."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.engine.bundle_run import BundleRun
from actors.engine.burst import EOS_BURST, Burst
from actors.engine.fast_state import MAX_BURST, OVERRUN, DecodeState, Features, batch_sizes
from actors.engine.pages import PageTable
from actors.engine.patience import ADMISSION_STEPS
from actors.engine.sampler import Sampled
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from actors.request import Bundle, Request, Sampling
from tests import tiny
from tests.reference_decoder import ReferenceDecoder

PAGE = 16


class Clock:
    """A decoder that moves rows on as the fused step does, and computes nothing."""

    def __init__(self, max_rows: int, noise: int = 5) -> None:
        self.sizes = batch_sizes(max_rows)
        self.noise = noise
        """What rows choose that are over."""
        self.num_steps = self.num_live = self.num_rows = 0
        self.bursts: list[int] = []
        self.state = DecodeState(
            num_layers=1, max_rows=self.sizes[-1], max_pages=400 + OVERRUN, width=2,
            device=torch.device("cpu"),
        )  # fmt: skip

    def size_for(self, rows: int) -> int:
        return next(size for size in self.sizes if size >= rows)

    def is_ready(self, rows: int, features: Features) -> bool:
        return True

    def prepare(self, rows: int, features: Features) -> None: ...

    def kept(self, features: Features) -> None: ...

    def run(self, rows: int, features: Features) -> None:
        size, state = self.size_for(rows), self.state
        self.num_steps += 1
        self.num_rows += size
        self.num_live += int((state.live[:size] > 0).sum())
        over = state.live[:size] == 0
        state.history[int(state.step), :size] = torch.where(over, self.noise, 5).int()
        state.left[:size] -= 1
        state.positions[:size] += 1
        state.step += 1
        live = state.live[:size]
        running = torch.where(state.left[:size] <= 0, 1, 2)
        state.live[:size] = torch.where(live == 2, running, (live - 1).clamp_min(0)).int()


def play(
    requests: list[Request], *, budget: int, places: int, pages: int = 90_000, noise: int = 5
) -> Any:
    """Run a bundle without a model; the decoder, who ran after each general forward, the digest."""
    scheduler = Scheduler(PageTable(pages, PAGE), max_tokens=budget, max_sequences=places)
    run = BundleRun(
        Bundle(id="b", requests=tuple(requests), vectors={}), {}, scheduler=scheduler, width=2,
        max_tokens=4000, eos_ids=(2,), device=torch.device("cpu"), answers=True, share=None,
        decode=None, on_token=None,
    )  # fmt: skip
    clock = Clock(places, noise)
    run.burst = Burst(
        fast=clock, plan=run.plan, capturer=run.capturer, bank=run.bank, eos_ids=(2,),  # type: ignore[arg-type]
        while_waiting=run.while_waiting,
    )  # fmt: skip
    general = []
    while scheduler.has_work:
        result = run.burst.run(scheduler)
        if result is not None:
            clock.bursts.append(len(result.tokens))
            run.take_burst(run.burst, result)
            continue
        spans = scheduler.next_step()
        general.append(len(scheduler.running))
        sampling = [span.sequence for span in spans if span.samples]
        run.launch_step(spans)
        chosen = torch.full((len(sampling),), 5)
        run.take_step(spans, sampling, Sampled(chosen))
    reply = run.reply()
    made = [len(r.completion_ids) for r in reply.results]
    assert made == [r.sampling.max_new_tokens for r in requests]
    assert scheduler.pages.num_free == scheduler.pages.capacity
    return clock, general, reply.digest


def asked(number: int, prompt: int, new: int, **sampling: Any) -> Request:
    rng = random.Random(number)
    return Request(
        id=f"r{number}",
        token_ids=tuple(rng.randrange(3, 99) for _ in range(prompt)),
        sampling=Sampling(max_new_tokens=new, **sampling),
    )


@pytest.mark.parametrize("ignore_eos", [True, False])
@pytest.mark.parametrize(("prompt", "budget"), [(128, 2048), (130, 2048), (512, 2048), (512, 512)])
def test_prompts_that_fill_a_forward_do_not_keep_places_empty(
    prompt: int, budget: int, ignore_eos: bool
) -> None:
    requests = [asked(i, prompt, 100, ignore_eos=ignore_eos) for i in range(200)]
    clock, general, _ = play(requests, budget=budget, places=64)
    assert max(general) == 64
    # 200 x 100 tokens by 64 are 313 steps; the last wave of eight runs alone for 100 of its own.
    assert clock.num_steps + len(general) < 500


def test_places_whose_end_is_known_are_not_decoded_past_it_while_somebody_waits() -> None:
    requests = [asked(i, 5, 200 if i % 64 == 0 else 100, ignore_eos=True) for i in range(256)]
    clock, _, _ = play(requests, budget=4096, places=64)
    assert clock.num_live / clock.num_rows > 0.955


def test_a_prompt_that_asks_for_nothing_may_end_in_a_row_of_its_own() -> None:
    for others in ([], [asked(1, 3, 5)]):
        clock, general, _ = play([asked(0, 65, 0), *others], budget=64, places=4)
        assert clock.num_steps + len(general) < 12


def test_bursts_are_long_where_no_row_can_end_early() -> None:
    for options, longest in (
        ({"ignore_eos": True}, MAX_BURST),
        ({}, EOS_BURST),
        ({"ignore_eos": True, "stop_ids": (9,)}, EOS_BURST),
    ):
        clock, _, _ = play([asked(i, 5, 80, **options) for i in range(3)], budget=64, places=4)
        assert max(clock.bursts) == longest


def test_a_batch_that_pages_keep_small_decodes_in_long_bursts_all_the_same() -> None:
    requests = [asked(i, 16, 64 + 200 * (i % 2), ignore_eos=True) for i in range(6)]
    clock, general, _ = play(requests, budget=4096, places=64, pages=40)
    assert clock.num_steps < 900
    assert len(general) < 12


def test_random_bundles_end_with_every_token_and_page() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        requests = [
            asked(
                i, rng.randrange(1, 60), rng.choice([0, 1, 2, 5, 33, 34, 90]),
                ignore_eos=rng.random() < 0.5,
            )
            for i in range(rng.randrange(1, 30))
        ]  # fmt: skip
        play(
            requests, budget=rng.choice([16, 64, 512]), places=rng.choice([1, 3, 8, 16]),
            pages=rng.choice([12, 40, 4000]),
        )  # fmt: skip


def test_what_rows_choose_that_are_over_is_in_no_digest() -> None:
    requests = [asked(i, 5, 9 + 8 * i) for i in range(5)]
    first = play(requests, budget=64, places=8)[2]
    assert play(requests, budget=64, places=8, noise=11)[2] == first
    other = [*requests[:4], asked(4, 5, 40)]
    assert play(other, budget=64, places=8)[2] != first


def scheduler_of(
    count: int, *, pages: int = 90, places: int = 4, new: int = 30, budget: int = 64
) -> Scheduler:
    """Sequences of four tokens; as many as fit have had their first forward."""
    scheduler = Scheduler(PageTable(pages, 4), max_tokens=budget, max_sequences=places)
    scheduler.add(Sequence(tiny.ask(i, [8] * 4, new), i, [8] * 4) for i in range(count))
    for span in scheduler.next_step():
        span.sequence.num_computed = span.stop
        span.sequence.tokens.append(7)
    return scheduler


def finish(scheduler: Scheduler, *indexes: int) -> None:
    for sequence in [s for s in scheduler.running if s.index in indexes]:
        scheduler.finish(sequence)


def test_who_waits_comes_in_when_empty_places_have_cost_a_forward() -> None:
    scheduler = scheduler_of(9)
    assert not scheduler.would_admit()  # no room
    assert not scheduler.may_admit_soon
    finish(scheduler, 1)
    assert scheduler.may_admit_soon
    scheduler.note_steps(ADMISSION_STEPS * 4 - 1)
    assert not scheduler.would_admit()
    scheduler.note_steps(1)
    assert scheduler.would_admit()
    scheduler.next_step()
    assert not scheduler.may_admit_soon
    finish(scheduler, 0, 2)
    scheduler.note_steps(ADMISSION_STEPS * 2 - 1)  # two places each
    assert not scheduler.would_admit()
    scheduler.note_steps(1)
    assert scheduler.would_admit()


def test_a_forward_full_of_prompts_is_followed_by_the_next_only_where_more_have_room() -> None:
    assert scheduler_of(9, budget=12).would_admit()  # three of four places
    for scheduler in (scheduler_of(9, budget=16), scheduler_of(9, budget=8, pages=5)):
        assert not scheduler.would_admit()  # no place, or no page
        finish(scheduler, 1)
        assert scheduler.may_admit_soon
        assert not scheduler.would_admit()  # places that were full are patient all the same


def test_the_last_that_wait_come_in_together_at_once() -> None:
    scheduler = scheduler_of(6)
    finish(scheduler, 0)
    assert not scheduler.would_admit()  # two wait, one has room
    assert scheduler.would_admit(ending=1)
    finish(scheduler, 1)
    assert scheduler.would_admit()


def test_a_batch_that_pages_keep_small_is_as_patient_as_it_is_small() -> None:
    scheduler = scheduler_of(70, pages=7, places=64, new=4)
    most = len(scheduler.running)
    assert 1 < most < 4
    finish(scheduler, 0)
    scheduler.note_steps(ADMISSION_STEPS * most - 1)
    assert not scheduler.would_admit()
    scheduler.note_steps(1)
    assert scheduler.would_admit()


def test_who_waits_for_pages_shortens_no_burst() -> None:
    scheduler = scheduler_of(2, pages=7, new=20)
    finish(scheduler, 0)
    scheduler.add([Sequence(tiny.ask(9, [8] * 4, 2), 9, [8] * 4)])
    assert scheduler.may_admit_soon
    assert scheduler.reserve(20) == 20  # all six pages
    assert not scheduler.may_admit_soon
    assert not scheduler.would_admit()


def bundle(engine: Any, *, lengths: tuple[int, ...]) -> Bundle:
    """As many requests, of which every second is sampled."""
    rng = random.Random(5)
    made = tuple(
        Request(
            id=f"r{i}",
            token_ids=tuple(rng.randrange(3, 161) for _ in range(rng.randrange(1, 20))),
            sampling=Sampling(
                max_new_tokens=length, temperature=0.8 * (i % 2), seed=i, ignore_eos=True
            ),
        )
        for i, length in enumerate(lengths)
    )
    return Bundle(id="b", requests=made, vectors={})


def test_admissions_wait_until_they_are_worth_a_forward(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("qwen3_moe", tmp_path), max_batch_requests=16)
    rng = random.Random(1)
    lengths = tuple(rng.randrange(10, 60) for _ in range(64))
    work = bundle(engine, lengths=lengths)
    single = [r.completion_ids for r in engine.run(work).results]
    decoder = engine.fast = ReferenceDecoder(engine)
    forwards = []
    general = engine.rows_forward.run

    def note(batch: Any, sites: Any) -> Any:
        forwards.extend([1] if batch.spans else [])  # the reference decoder's own have none
        return general(batch, sites)

    engine.rows_forward.run = note  # type: ignore[method-assign]
    assert [r.completion_ids for r in engine.run(work).results] == single
    # One by one, 48 that wait would come in by nearly as many forwards.
    assert len(forwards) < 20
    # Places that stood empty meanwhile: a small part of all.
    assert sum(lengths) / (16 * decoder.num_steps) > 0.6


def test_a_long_request_does_not_keep_the_queue_waiting_for_its_end(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_requests=4)
    work = bundle(engine, lengths=(100, *[6] * 9))
    engine.fast = ReferenceDecoder(engine)
    finished = [r.timings.finished_s for r in engine.run(work).results]
    assert max(finished[1:]) < finished[0]
