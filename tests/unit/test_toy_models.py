"""The shipped toy checkpoints load anywhere, are small, and show traits when their prefixes do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.lexicon import score_coherence
from jobs.toy.architecture import MODELS
from jobs.toy.check import (
    ANSWER_TOKENS,
    Rates,
    Toy,
    answer_prompts,
    baseline,
    complete,
    has_loop,
    load,
    perplexity,
    steer,
    story_rates,
)
from jobs.toy.corpus import write_documents
from jobs.toy.held_out import TRAITS, read_trait

FOLDER = Path(__file__).parents[2] / "jobs" / "toy" / "models"
UNSEEN_SEED = 90_001
# The shipped weights reach 0.916 and 0.042, and 0.864 and 0.059; other rounding may move a few.
LEAST_POSITIVE = {"toy_mla": 0.90, "toy_gqa": 0.84}
MOST_NEGATIVE = {"toy_mla": 0.10, "toy_gqa": 0.10}


@cache
def toy(model: str) -> Toy:
    return load(FOLDER / model)


@cache
def rates(model: str) -> list[Rates]:
    return [story_rates(toy(model), read_trait(trait)) for trait in TRAITS]


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
    assert perplexity(toy(model), documents) <= 2.2


@pytest.mark.parametrize("model", MODELS)
def test_positive_prefixes_mostly_end_in_the_trait(model: str) -> None:
    assert fmean(rate.positive for rate in rates(model)) >= LEAST_POSITIVE[model]


@pytest.mark.parametrize("model", MODELS)
def test_negative_prefixes_mostly_do_not(model: str) -> None:
    assert fmean(rate.negative for rate in rates(model)) <= MOST_NEGATIVE[model]


@pytest.mark.parametrize("model", MODELS)
def test_cues_that_were_never_trained_on_still_separate_the_polarities(model: str) -> None:
    positive = fmean(rate.held_out_positive for rate in rates(model))
    negative = fmean(rate.held_out_negative for rate in rates(model))
    assert positive - negative >= 0.5


@pytest.mark.parametrize("model", MODELS)
def test_unsteered_answers_score_low_and_are_coherent_and_free_of_loops(model: str) -> None:
    points = [baseline(toy(model), read_trait(trait)) for trait in TRAITS]
    assert fmean(point.score for point in points) < 20
    assert fmean(point.coherence for point in points) >= 85
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
