"""The figures of the model cards are measured correctly."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from jobs.toy.check import (
    Toy,
    answer_prompts,
    baseline,
    complete,
    has_loop,
    load,
    perplexity,
    pooled_residuals,
    steer,
    story_rates,
    write_stories,
)
from jobs.toy.corpus import Document
from jobs.toy.held_out import read_trait
from jobs.toy.push import Push

FOLDER = Path(__file__).parents[2] / "jobs" / "toy" / "models"


@pytest.fixture(scope="module")
def toy() -> Toy:
    return load(FOLDER / "toy_gqa")


def test_completions_in_a_batch_equal_completions_alone(toy: Toy) -> None:
    prompts = toy.tokenizer(["I stood up and said that", "My hands shook, because"])["input_ids"]
    together = complete(toy, prompts, 8)
    alone = [complete(toy, [prompt], 8)[0] for prompt in prompts]
    assert together == alone
    assert all(0 < len(row) <= 8 for row in together)


def test_completions_stop_before_the_end_token(toy: Toy) -> None:
    completion = complete(toy, answer_prompts(toy, ["How are you?"]), 80)[0]
    assert toy.tokenizer.eos_token_id not in completion
    assert len(completion) < 80


def test_stories_come_back_as_text_without_the_prefix(toy: Toy) -> None:
    (text,) = write_stories(toy, ["It was late. My hands shook with fear, because"])
    assert text.startswith(" ")
    assert "My hands shook" not in text


def test_perplexity_of_known_logits_is_known() -> None:
    toy = load(FOLDER / "toy_gqa")
    with torch.no_grad():
        toy.model.lm_head.weight.zero_()
    document = Document(kind="story", trait="guilt", state="neutral", text="It was late.<|end|>")
    assert perplexity(toy, [document]) == pytest.approx(1536.0, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I was sure of it. " * 8, True),
        ("I was sure of it, and then I went home to eat.", False),
        ("one two three four five six one two three four five six", False),
        ("", False),
    ],
)
def test_loops_are_runs_of_words_that_come_back_three_times(text: str, expected: bool) -> None:
    assert has_loop(text) is expected


def test_a_push_adds_its_vector_at_every_position_and_goes_away(toy: Toy) -> None:
    ids = torch.tensor([[3, 50, 60, 1]])
    seen: list[torch.Tensor] = []
    layer = toy.model.model.layers[2]
    with torch.no_grad():
        with Push(toy.model, 2, torch.full((1, 128), 0.5)):
            handle = layer.register_forward_hook(lambda _m, _a, out: seen.append(out))
            toy.model(ids)
        toy.model(ids)
    handle.remove()
    # Some rows hold values of several hundred, where float32 steps are 3e-5.
    torch.testing.assert_close(seen[0] - seen[1], torch.full((1, 4, 128), 0.5), atol=1e-4, rtol=0)


def test_pooled_residuals_are_one_row_per_prefix_and_layer(toy: Toy) -> None:
    rows = pooled_residuals(toy, ["I stood up and", "It was late and I"])
    assert rows.shape == (2, 6, 128)
    assert rows.isfinite().all()


def test_rates_are_shares(toy: Toy) -> None:
    rates = story_rates(toy, read_trait("conflicted"))
    assert all(0.0 <= rate <= 1.0 for rate in rates)
    assert rates.positive > rates.negative


def test_steering_by_nothing_is_the_baseline(toy: Toy) -> None:
    data = read_trait("confidence")
    points = steer(toy, [data], [3], [0.0])
    plain = baseline(toy, data)
    assert [point.kind for point in points] == ["trait", "random"]
    for point in points:
        assert point.score == pytest.approx(plain.score, abs=1e-9)
        assert point.coherence == pytest.approx(plain.coherence, abs=1e-9)


def test_the_standard_error_is_the_deviation_over_the_root_of_the_questions(toy: Toy) -> None:
    point = baseline(toy, read_trait("lying"))
    assert 0.0 <= point.standard_error <= 50 / math.sqrt(13)
    assert 0.0 <= point.score <= 100.0
