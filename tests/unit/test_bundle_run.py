"""Booking a step: tokens, ends, log-probabilities and digests, with no model at all."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch

from actors.engine.bundle_run import BundleRun
from actors.engine.burst import BurstResult
from actors.engine.burst_rows import BurstRows
from actors.engine.pages import PageTable
from actors.engine.sampler import NOT_FINITE, Sampled
from actors.engine.scheduler import Scheduler
from actors.request import Bundle, Capture, RequestError, Steering
from tests.tiny import ask

EOS = 2


def _run(requests, *, errors=None, decode=None, on_token=None, vectors=None) -> BundleRun:
    scheduler = Scheduler(PageTable(64, 4), max_tokens=64, max_sequences=8)
    return BundleRun(
        Bundle(id="b", requests=tuple(requests), vectors=vectors or {}),
        errors or {},
        scheduler=scheduler,
        width=2,
        max_tokens=100,
        eos_ids=(EOS,),
        device=torch.device("cpu"),
        answers=True,
        share=None,
        decode=decode,
        on_token=on_token,
    )


def _play(run: BundleRun, choose) -> list[int]:
    """Run to the end; ``choose(id, index)`` gives each token. Rows run per step."""
    rows = []
    while run.scheduler.has_work:
        spans = run.scheduler.next_step()
        rows.append(sum(s.stop - s.start for s in spans))
        sampling = [s.sequence for s in spans if s.samples]
        tokens = [choose(s.request.id, len(s.completion_ids)) for s in sampling]
        run.launch_step(spans)
        run.take_step(spans, sampling, Sampled(torch.tensor(tokens)))
    return rows


def test_each_sequence_ends_by_its_own_rule():
    requests = [
        ask("eos", (5, 6), 9),
        ask("ignores", (5,), 3, ignore_eos=True),
        ask("stop", (5,), 9, stop_ids=(11, 12)),
        ask("length", (5,), 2),
        ask("known", (5, 6, 7), 0),
    ]
    streams = {"eos": [9, EOS], "ignores": [EOS] * 3, "stop": [9, 9, 12], "length": [9] * 9}
    run = _run(requests)
    _play(run, lambda request, index: streams[request][index])
    results = {r.id: r for r in run.reply().results}
    assert [r.id for r in run.reply().results] == [r.id for r in requests]
    assert {i: (r.completion_ids, r.finish_reason) for i, r in results.items()} == {
        "eos": ((9, EOS), "eos"),
        "ignores": ((EOS, EOS, EOS), "length"),
        "stop": ((9, 9, 12), "stop"),
        "length": ((9, 9), "length"),
        "known": ((), "length"),
    }


def test_the_last_token_is_run_only_when_a_capture_reads_it():
    for tokens, rows in (("response[:]", 3 + 4), ("response[:2]", 3 + 3), ("prompt[-1]", 3 + 3)):
        run = _run([ask("r", (5, 6, 7), 4, capture=(Capture(layers=(0,), tokens=tokens),))])
        assert sum(_play(run, lambda *_: 9)) == rows


def test_an_end_of_sequence_is_the_end_also_in_the_text():
    """Stop strings see the completion alone, as it grows; a long one only by its end."""
    seen = []

    def decode(ids):
        seen.append(list(ids))
        return "".join(chr(i) for i in ids)

    run = _run([ask("r", (97, 98), 9, stop_strings=("ab",), ignore_eos=True)], decode=decode)
    _play(run, lambda _, index: [99, 97, 98, 99][index])
    (result,) = run.reply().results
    assert (result.completion_ids, result.finish_reason) == ((99, 97, 98), "stop")
    assert seen == [[99], [99, 97], [99, 97, 98]]


def test_a_row_that_is_not_finite_ends_its_request_alone():
    run = _run([ask("bad", (5,), 5), ask("good", (5,), 3)])
    _play(run, lambda request, index: NOT_FINITE if (request, index) == ("bad", 2) else 9)
    bad, good = run.reply().results
    assert (bad.completion_ids, bad.finish_reason, bad.error.type) == (
        (9, 9),
        "error",
        "non_finite",
    )
    assert "logits at position 2" in bad.error.message
    assert (good.completion_ids, good.error) == ((9, 9, 9), None)


@pytest.mark.parametrize(
    ("column", "kept", "reason"),
    [
        ([7, 8, NOT_FINITE, 9, EOS], [7, 8], "error"),
        ([NOT_FINITE, 8, 9, 9, 9], [], "error"),
        ([7, EOS, NOT_FINITE, 9, 9], [7, EOS], "eos"),
        ([7, 8, 11, EOS, NOT_FINITE], [7, 8, 11], "stop"),
        ([7, 8, 9, 10, 12], [7, 8, 9, 10, 12], None),
        ([7, 8, 9, 10, 12, 13, NOT_FINITE], [7, 8, 9, 10, 12, 13], "length"),
        ([7], [7], None),
        ([EOS], [EOS], "eos"),
    ],
)
def test_tokens_of_a_burst_end_where_single_steps_would(column, kept, reason):
    run = _run([ask("r", (5, 6), 6, stop_ids=(11,))])
    (span,) = run.scheduler.next_step()
    number = run._endings.take_all(span.sequence, column)
    assert span.sequence.completion_ids == kept
    assert span.sequence.finish_reason == reason
    assert number == len(kept) + (reason == "error")


def _burst_digest(columns, *, swapped=False):
    """The digest, and the completions, after one step of token 9 and a burst of two rows."""
    run = _run([ask("a", (5, 6), 9), ask("b", (7,), 9)])
    spans = run.scheduler.next_step()
    sequences = [span.sequence for span in spans]
    run.launch_step(spans)
    run.take_step(spans, sequences, Sampled(torch.tensor([9, 9])))
    rows = sequences[::-1] if swapped else sequences
    tokens = np.array(columns, np.int32).T
    run.take_burst(mock.Mock(), BurstResult(rows, tokens, BurstRows(run.capturer)))
    return run.digest(), [s.completion_ids for s in sequences]


def test_a_digest_tells_bursts_apart_by_rows_and_by_tokens_that_count():
    columns = [[10, 11, 12], [10, EOS, 8]]
    digest, made = _burst_digest(columns)
    assert made == [[9, 10, 11, 12], [9, 10, EOS]]
    assert _burst_digest(columns)[0] == digest
    assert _burst_digest([[10, 11, 12], [10, EOS, 7]])[0] == digest  # behind the end
    others = ([[10, 11, 13], [10, EOS, 8]], [[10, 11, 12], [EOS, 10, 8]], [[10, 11], [10, EOS]])
    digests = {_burst_digest(other)[0] for other in others}
    digests |= {_burst_digest(columns[::-1], swapped=True)[0], digest}
    assert len(digests) == 5


def test_refused_requests_keep_their_place_and_run_nothing():
    error = RequestError(type="invalid", message="request 'b': no.")
    run = _run([ask("a", (5,), 1), ask("b", (5,), 1), ask("c", (5,), 1)], errors={"b": error})
    assert _play(run, lambda *_: 9) == [2]
    results = run.reply().results
    assert [r.id for r in results] == ["a", "b", "c"]
    assert [r.error for r in results] == [None, error, None]


def test_tokens_are_handed_on_as_they_are_chosen():
    got = []
    run = _run([ask("a", (5,), 2), ask("b", (5,), 3)], on_token=got.append)
    _play(run, lambda _, index: 10 + index)
    assert [(t.request_id, t.index, t.token_id) for t in got] == [
        ("a", 0, 10),
        ("b", 0, 10),
        ("a", 1, 11),
        ("b", 1, 11),
        ("b", 2, 12),
    ]


@pytest.mark.parametrize("change", ["tokens", "prompt", "nothing"])
def test_a_digest_tells_schedules_and_tokens_apart(change):
    def digest(prompt=(5, 6), token=9):
        run = _run([ask("a", prompt, 3), ask("b", (7,), 3)])
        _play(run, lambda *_: token)
        return run.reply().digest

    other = {"tokens": {"token": 10}, "prompt": {"prompt": (5, 6, 7)}, "nothing": {}}[change]
    assert (digest() == digest(**other)) == (change == "nothing")


def test_prompts_share_pages_unless_they_are_read_or_steered():
    vectors = {"v": np.ones(2, "f4")}
    prompt = tuple(range(5, 18))
    steering = Steering(layer=0, vector="v", coefficient=1.0, positions="all")
    plain = ask("x", prompt, 2)
    cases = {
        "plain": ({}, True, b""),
        "reads": ({"capture": (Capture(layers=(0,), tokens="prompt[:]"),)}, False, b""),
        "reads_last": ({"capture": (Capture(layers=(0,), tokens="prompt[-1]"),)}, True, b""),
        "reads_response": ({"capture": (Capture(layers=(0,)),)}, True, b""),
        "reads_open": ({"capture": (Capture(layers=(0,), tokens="all[-1]"),)}, False, b""),
    }
    for fields, shares, key in cases.values():
        run = _run([dataclasses.replace(plain, **fields)], vectors=vectors)
        (sequence,) = run.scheduler.waiting
        assert (sequence.shares_prefix, sequence.steering_key) == (shares, key)
    run = _run([dataclasses.replace(plain, steering=(steering,))], vectors=vectors)
    (sequence,) = run.scheduler.waiting
    assert sequence.steering_key != b""
    assert sequence.steering_starts == 0


def test_only_requests_that_ask_get_log_probabilities():
    run = _run([ask("asks", (5,), 1, num_top_logprobs=1), ask("not", (5,), 1)])
    spans = run.scheduler.next_step()
    both = torch.tensor([[-0.5], [-0.25]])
    sampled = Sampled(torch.tensor([9, 8]), both[:, 0], torch.tensor([[9], [8]]), both, both[:, :0])
    run.launch_step(spans)
    run.take_step(spans, [s.sequence for s in spans], sampled)
    asks, silent = run.reply().results
    assert asks.logprobs.chosen.tolist() == [-0.5]
    assert asks.logprobs.top_ids.tolist() == [[9]]
    assert silent.logprobs is None
