"""A finished sequence becomes a whole answer, or an error with one sentence and no half values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.engine.results import Outcome, build_result, failed
from actors.engine.sampler import Sampled
from actors.engine.sequence import Sequence
from actors.request import CaptureResult, RequestError, Steering
from tests import tiny
from tests.tiny import ask

READ = CaptureResult(
    layers=(0,),
    tokens="all",
    reduction="none",
    positions=np.arange(2, dtype=np.int32),
    values={"resid_post": np.zeros((1, 2, 3), "f4")},
)


def _finished(**fields):
    sequence = Sequence(ask("r", (5, 6), 3, **fields), 0, [5, 6, 9, 8])
    sequence.finish_reason = "stop"
    return sequence


def _build(sequence, outcome, bad=0):
    return build_result(sequence, outcome, captures=(READ,), receipts=(), num_non_finite=bad)


def test_a_good_answer_has_prompt_completion_captures_and_times():
    result = _build(_finished(), Outcome(first_token_s=0.5, finished_s=1.5))
    assert (result.prompt_ids, result.completion_ids) == ((5, 6), (9, 8))
    assert (result.finish_reason, result.error, result.logprobs) == ("stop", None, None)
    assert result.captures == (READ,)
    assert (result.timings.first_token_s, result.timings.finished_s) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("is_finite", "bad", "said"),
    [
        (False, 0, "request 'r': logits at position 3 are not finite; lower the steering"),
        (True, 4, "request 'r': 4 captured values are not finite; lower the steering"),
        (False, 4, "logits at position 3"),
    ],
)
def test_values_that_are_not_finite_make_it_an_error_without_captures(is_finite, bad, said):
    result = _build(_finished(), Outcome(is_finite=is_finite), bad)
    assert (result.finish_reason, result.error.type, result.captures) == ("error", "non_finite", ())
    assert said in result.error.message
    assert result.num_non_finite == bad
    assert result.completion_ids == (9, 8)  # what was written before stays readable


def test_a_refused_request_has_an_answer_too():
    error = RequestError(type="invalid", message="no.")
    result = failed(ask("r", (5,), 3), error)
    assert (result.id, result.prompt_ids, result.completion_ids) == ("r", (5,), ())
    assert (result.finish_reason, result.error) == ("error", error)


def _sampled(values):
    top = torch.tensor(values)
    return Sampled(
        token_ids=torch.tensor([9, 1]),
        chosen_logprobs=top[:, 0],
        top_ids=torch.tensor([[9, 4, 3], [1, 2, 3]]),
        top=top,
        named=-top[:, :2],
    )


def test_log_probabilities_are_cut_to_what_was_asked():
    outcome = Outcome()
    outcome.take_logprobs(_sampled([[-0.5, -1.0, -2.0], [-9.0, -9.0, -9.0]]), 0)
    outcome.take_logprobs(_sampled([[-9.0, -9.0, -9.0], [-0.25, -1.5, -3.0]]), 1)
    found = _build(_finished(num_top_logprobs=2, logprob_token_ids=(7,)), outcome).logprobs
    assert found.chosen.tolist() == [-0.5, -0.25]
    assert found.top_ids.tolist() == [[9, 4], [1, 2]]
    assert found.top.tolist() == [[-0.5, -1.0], [-0.25, -1.5]]
    assert found.named.tolist() == [[0.5], [0.25]]
    assert [a.dtype for a in (found.chosen, found.top_ids, found.named)] == [
        np.float32,
        np.int32,
        np.float32,
    ]


def test_no_completion_gives_empty_log_probabilities_of_the_asked_width():
    found = _build(_finished(num_top_logprobs=3, logprob_token_ids=(1, 2)), Outcome()).logprobs
    assert found.chosen.shape == (0,)
    assert (found.top.shape, found.top_ids.shape, found.named.shape) == ((0, 3), (0, 3), (0, 2))


def test_a_step_without_log_probabilities_leaves_none():
    outcome = Outcome()
    outcome.take_logprobs(Sampled(torch.tensor([1])), 0)
    assert outcome.chosen == []


def test_a_request_without_completion_may_ask_for_log_probabilities():
    """Known text has no completion, and a first row that is not finite has none either."""
    engine = tiny.engine(tiny.model_path("llama"))
    broken = Steering(layer=0, vector="v", coefficient=3e38)
    options = {"num_top_logprobs": 5, "logprob_token_ids": (3,)}
    requests = [
        ask("known", range(3, 9), 0, **options),
        ask("broken", range(3, 9), 4, steering=(broken, broken), **options),
        ask("plain", range(3, 9), 4),
    ]
    known, failed_one, plain = tiny.run(engine, requests, {"v": np.ones(96, "f4")}).results
    assert known.logprobs.top.shape == (0, 5)
    assert failed_one.error.type == "non_finite"
    assert len(plain.completion_ids) == 4
