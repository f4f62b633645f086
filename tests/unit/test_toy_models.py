"""The shipped toy checkpoints load anywhere, are small, and show traits when their prefixes do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.lexicon import score_coherence, score_trait
from jobs.toy.architecture import MODELS
from jobs.toy.check import (
    ANSWER_TOKENS,
    EXPRESSED,
    Toy,
    answer_prompts,
    baseline,
    complete,
    has_loop,
    load,
    perplexity,
    steer,
    story_rates,
    write_stories,
)
from jobs.toy.corpus import write_documents
from jobs.toy.held_out import HELD_OUT_EVERY, TRAITS, read_trait

FOLDER = Path(__file__).parents[2] / "jobs" / "toy" / "models"
UNSEEN_SEED = 90_001
# Means over the eleven traits. The shipped weights reach 0.98 and 0.00 over all prefixes; over the
# held-out ones 0.95 and 0.00 (toy_mla), 0.92 and 0.01 (toy_gqa): 88 of each polarity.
LEAST_POSITIVE = 0.90
MOST_NEGATIVE = 0.10
LARGEST_PERPLEXITY = 1.8
"""The shipped weights reach 1.59 and 1.62."""


@cache
def toy(model: str) -> Toy:
    return load(FOLDER / model)


@cache
def held_out_shares(model: str, polarity: str) -> list[float]:
    """How often cues that were never trained on end in their trait; all traits as one batch."""
    prefixes = [
        (trait, str(getattr(pair, polarity)))
        for trait in TRAITS
        for pair in read_trait(trait).pairs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    ]
    texts = write_stories(toy(model), [prefix for _, prefix in prefixes])
    hits: dict[str, list[bool]] = {trait: [] for trait in TRAITS}
    for (trait, _), text in zip(prefixes, texts, strict=True):
        hits[trait].append(score_trait(trait, text) >= EXPRESSED)
    assert {len(found) for found in hits.values()} == {8}
    return [fmean(found) for found in hits.values()]


def test_all_files_together_stay_within_ten_megabytes() -> None:
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) <= 10_000_000


@pytest.mark.parametrize("model", MODELS)
def test_stock_transformers_finds_every_weight_and_no_other(model: str) -> None:
    loaded, report = AutoModelForCausalLM.from_pretrained(FOLDER / model, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config.eos_token_id == 1


@pytest.mark.parametrize("model", MODELS)
def test_every_folder_has_a_model_card_with_its_figures(model: str) -> None:
    card = (FOLDER / model / "README.md").read_text("utf-8")
    for part in ("What it is", "How it was trained", "Measured", "Limits"):
        assert f"## {part}" in card


@pytest.mark.parametrize("model", MODELS)
def test_unseen_text_is_predicted_well(model: str) -> None:
    documents = list(write_documents(UNSEEN_SEED, 40))
    assert perplexity(toy(model), documents) <= LARGEST_PERPLEXITY


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_positive_prefixes_end_in_the_trait_and_negative_ones_do_not(model: str) -> None:
    rates = [story_rates(toy(model), read_trait(trait)) for trait in TRAITS]
    assert fmean(rate.positive for rate in rates) >= LEAST_POSITIVE
    assert fmean(rate.negative for rate in rates) <= MOST_NEGATIVE
    assert fmean(rate.held_out_positive for rate in rates) >= LEAST_POSITIVE
    assert fmean(rate.held_out_negative for rate in rates) <= MOST_NEGATIVE


@pytest.mark.parametrize("model", MODELS)
def test_cues_that_were_never_trained_on_end_in_the_trait_too(model: str) -> None:
    assert fmean(held_out_shares(model, "positive")) >= LEAST_POSITIVE
    assert fmean(held_out_shares(model, "negative")) <= MOST_NEGATIVE


@pytest.mark.parametrize("model", MODELS)
def test_no_trait_hides_behind_the_mean(model: str) -> None:
    assert min(held_out_shares(model, "positive")) >= 0.7  # 6 of 8
    assert max(held_out_shares(model, "negative")) <= 0.2  # 1 of 8


@pytest.mark.parametrize(
    "traits", [TRAITS[::4], pytest.param(TRAITS, marks=pytest.mark.long)], ids=["some", "all"]
)
@pytest.mark.parametrize("model", MODELS)
def test_unsteered_answers_score_low_and_are_coherent_and_free_of_loops(
    model: str, traits: tuple[str, ...]
) -> None:
    points = [baseline(toy(model), read_trait(trait)) for trait in traits]
    assert fmean(point.score for point in points) <= 12  # 4.6 and 9.0
    assert fmean(point.coherence for point in points) >= 90  # 97.9 and 97.0
    prompts = answer_prompts(toy(model), read_trait("lying").questions)
    texts = toy(model).tokenizer.batch_decode(complete(toy(model), prompts, ANSWER_TOKENS))
    assert not any(has_loop(text) for text in texts)
    assert fmean(score_coherence(text) for text in texts) >= 85


def test_a_trait_vector_raises_the_score_by_three_standard_errors_and_a_random_one_does_not() -> (
    None
):
    data = read_trait("confidence")
    plain = baseline(toy("toy_mla"), data)
    points = {
        (point.coefficient, point.kind): point
        for point in steer(toy("toy_mla"), [data], [2], [1.0, -1.0])
    }
    raised, pushed = points[1.0, "trait"], points[1.0, "random"]
    error = (raised.standard_error**2 + plain.standard_error**2) ** 0.5
    assert raised.score - plain.score >= 3 * error
    assert raised.coherence >= 70
    assert pushed.score <= 40
    assert points[-1.0, "trait"].score <= plain.score
