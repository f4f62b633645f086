"""Ranks that were given another bundle are told apart by one digest, whatever differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.engine.asked import asked, rows_of_spans
from actors.engine.bank import build_bank
from actors.engine.sequence import Sequence, Span
from actors.request import Bundle, Capture, Request, Sampling, Steering


def bundle() -> Bundle:
    vectors = {"v": np.arange(4, dtype="f4"), "w": np.ones(4, "f4")}
    requests = tuple(
        Request(
            id=f"r{i}",
            token_ids=(5, 6, 7 + i),
            sampling=Sampling(seed=i // 2),
            steering=(Steering(layer=1, vector="v", coefficient=0.5),),
            capture=(Capture(layers=(0, 1)),),
        )
        for i in range(4)
    )
    return Bundle(id="b", requests=requests, vectors=vectors)


def digest(given: Bundle) -> bytes:
    return asked(given.requests, build_bank(given, 4, torch.device("cpu")))


def with_request(**changes: object) -> Bundle:
    given = bundle()
    changed = replace(given.requests[2], **changes)  # type: ignore[arg-type]
    return replace(given, requests=(*given.requests[:2], changed, given.requests[3]))


def with_vectors(**vectors: np.ndarray) -> Bundle:
    given = bundle()
    return replace(given, vectors={**given.vectors, **vectors})


def test_equal_bundles_have_equal_digests() -> None:
    assert digest(bundle()) == digest(bundle())


STEERING = Steering(layer=1, vector="v", coefficient=0.5)


@pytest.mark.parametrize(
    "change",
    [
        lambda: with_request(id="other"),
        lambda: with_request(token_ids=(5, 6, 8)),
        lambda: with_request(token_ids=(5, 6)),
        lambda: with_request(num_prompt_tokens=2),
        lambda: with_request(sampling=Sampling(seed=9)),
        lambda: with_request(sampling=bundle().requests[0].sampling),
        lambda: with_request(sampling=Sampling(seed=1, temperature=0.5)),
        lambda: with_request(steering=()),
        lambda: with_request(steering=(replace(STEERING, layer=0),)),
        lambda: with_request(steering=(replace(STEERING, site="resid_mid"),)),
        lambda: with_request(steering=(replace(STEERING, operator="ablate"),)),
        lambda: with_request(steering=(replace(STEERING, vector="w"),)),
        lambda: with_request(steering=(replace(STEERING, coefficient=0.25),)),
        lambda: with_request(steering=(replace(STEERING, positions="response"),)),
        lambda: with_request(capture=()),
        lambda: with_request(capture=(Capture(layers=(0, 1), reduction="mean"),)),
        lambda: with_request(num_top_logprobs=3),
        lambda: with_request(logprob_token_ids=(4,)),
        lambda: with_vectors(v=np.array([0, 1, 2, 4], "f4")),
        lambda: with_vectors(v=np.ones(4, "f4"), w=np.arange(4, dtype="f4")),
        lambda: with_vectors(x=np.ones(4, "f4")),
        lambda: replace(bundle(), requests=bundle().requests[::-1]),
    ],
)
def test_one_difference_is_another_digest(change: Callable[[], Bundle]) -> None:
    assert digest(change()) != digest(bundle())


def test_runs_of_rows_are_named_by_sequence() -> None:
    sequence = Sequence(bundle().requests[0], 7, [5, 6, 7])
    assert rows_of_spans([Span(sequence, 1, 3)]) == [(7, 1, 3)]
