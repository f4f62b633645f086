"""A fused step takes exactly the sequences that it can serve as the general step would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from actors.engine.bank import build_bank
from actors.engine.capture import Capturer
from actors.engine.fusable import Row, fusable_row, is_kept, is_pooled, tokens_left
from actors.engine.sequence import Sequence
from actors.engine.steer import Plan
from actors.request import Bundle, Capture, Request, Sampling, Steering

PROMPT = (5, 6, 7, 8)


def row(computed: int = 5, tokens: int = 6, **options: Any) -> Row | None:
    """The row of a sequence of ``tokens`` tokens of which ``computed`` have run."""
    options.setdefault("sampling", Sampling(max_new_tokens=9))
    request = Request(id="r", token_ids=PROMPT, **options)
    bundle = Bundle(id="b", requests=(request,), vectors={"v": np.ones(4, np.float32)})
    device = torch.device("cpu")
    bank = build_bank(bundle, 4, device)
    plan = Plan(bank, 100)
    plan.open(request)
    sequence = Sequence(request=request, index=0, tokens=[*PROMPT, *range(tokens - 4)])
    sequence.num_computed = sequence.num_captured = computed
    return fusable_row(sequence, plan, Capturer(bundle, bank, device), bank, (2,))


def steered(**options: Any) -> tuple[Steering, ...]:
    return (Steering(**{"layer": 1, "vector": "v", "coefficient": 0.5, **options}),)


def test_a_bare_sequence_that_lacks_one_token_is_served() -> None:
    found = row()
    assert found is not None
    assert (found.entries, found.pooled, found.raw) == ([], None, None)


def test_prefill_is_not_served() -> None:
    assert row(computed=3) is None


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=9, temperature=1.0, top_k=5),
        Sampling(max_new_tokens=9, temperature=1.0, top_p=0.9),
        Sampling(max_new_tokens=9, temperature=1.0, min_p=0.1),
        Sampling(max_new_tokens=9, repetition_penalty=1.2),
        Sampling(max_new_tokens=9, stop_strings=("x",)),
        Sampling(max_new_tokens=9, stop_ids=tuple(range(8))),
    ],
)
def test_sampling_beyond_a_plain_draw_is_not_served(sampling: Sampling) -> None:
    assert row(sampling=sampling) is None


def test_a_request_for_log_probabilities_is_not_served() -> None:
    assert row(num_top_logprobs=1) is None
    assert row(logprob_token_ids=(3,)) is None


@pytest.mark.parametrize("positions", ["all", "response", "from:2", "from:5"])
def test_steering_of_all_rows_to_come_is_served(positions: str) -> None:
    found = row(steering=steered(positions=positions))
    assert found is not None
    assert len(found.entries) == 1


@pytest.mark.parametrize(
    "options",
    [{"positions": "from:6"}, {"positions": "at:1,5"}, {"site": "resid_mid"}],
)
def test_steering_of_some_rows_to_come_or_elsewhere_is_not_served(options: dict[str, Any]) -> None:
    assert row(steering=steered(**options)) is None


def test_steering_that_is_over_or_idle_is_no_obstacle() -> None:
    for options in ({"positions": "prompt"}, {"positions": "at:0,4"}, {"coefficient": 0.0}):
        found = row(steering=steered(**options))
        assert found is not None
        assert found.entries == []


def test_two_entries_at_one_layer_are_not_served() -> None:
    assert row(steering=steered() * 2) is None
    assert row(steering=(*steered(), *steered(layer=0))) is not None


def test_a_pooled_and_a_raw_capture_are_served_together() -> None:
    captures = (
        Capture(layers=(0,), tokens="response[:4]", reduction="mean"),
        Capture(layers=(1, 0), tokens="response[-2:]"),
    )
    found = row(capture=captures)
    assert found is not None
    assert found.pooled is not None
    assert found.raw is not None
    assert is_pooled(found.pooled)
    assert is_kept(found.raw)
    assert (found.first, found.stop) == (5, 8)  # position 4 was captured before


@pytest.mark.parametrize(
    "captures",
    [
        (Capture(layers=(0,), tokens="all", reduction="sum"),),
        (Capture(layers=(0,), tokens="response[-1]", reduction="mean"),),
        (Capture(layers=(0,), sites=("attn_out",), tokens="all"),),
        (Capture(layers=(0,), tokens="all"), Capture(layers=(1,), tokens="all")),
    ],
)
def test_captures_that_need_more_than_the_fused_step_are_not_served(
    captures: tuple[Capture, ...],
) -> None:
    assert row(capture=captures) is None


def test_a_capture_of_the_prompt_alone_is_over() -> None:
    found = row(capture=(Capture(layers=(0,), tokens="prompt[-1]", sites=("attn_out",)),))
    assert found is not None
    assert (found.pooled, found.raw) == (None, None)


def test_tokens_left_end_with_the_sequence() -> None:
    request = Request(id="r", token_ids=PROMPT, sampling=Sampling(max_new_tokens=9))
    sequence = Sequence(request=request, index=0, tokens=[*PROMPT, 1, 2])
    assert tokens_left(sequence) == 7
    sequence.finish_reason = "eos"
    assert tokens_left(sequence) == 0
