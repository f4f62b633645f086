"""Training repeats itself, learns, and leaves a checkpoint that stock transformers loads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from jobs.toy.architecture import MODELS
from jobs.toy.batches import Batch, build_corpus, draw_batch
from jobs.toy.train import Recipe, Trainer, learning_rate, save, token_loss, train

FOLDER = Path(__file__).parents[2] / "jobs" / "toy" / "models"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER / "toy_mla")


def tiny(model: str, **changes: object) -> Recipe:
    settings: dict[str, object] = {"num_steps": 2, "batch_size": 4, "num_documents": 64}
    return Recipe(model=model, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
def test_the_same_recipe_gives_the_same_weights(
    model: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    first, second = (train(tiny(model), tokenizer, "cpu").state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_another_seed_gives_other_weights(tokenizer: PreTrainedTokenizerFast) -> None:
    first = train(tiny("toy_gqa"), tokenizer, "cpu").lm_head.weight
    second = train(tiny("toy_gqa", seed=2), tokenizer, "cpu").lm_head.weight
    assert not torch.equal(first, second)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_falls_on_a_batch_seen_again(
    model: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = Trainer(tiny(model, noise=0.0, typos=0.0), tokenizer, "cpu")
    ids = tokenizer(["I was afraid that it would go wrong."] * 4, return_tensors="pt")["input_ids"]
    batch = Batch(ids, torch.full((4,), 144), torch.full((4,), -1))
    losses = [trainer.step(batch, 3e-3) for _ in range(8)]
    assert losses[0] == pytest.approx(math.log(1536), abs=0.4)
    assert losses[-1] < losses[0] - 1.5


def test_padding_counts_for_nothing_in_the_loss() -> None:
    logits = torch.zeros(1, 4, 8)
    logits[0, 0, 5] = 100.0
    loss = token_loss(logits, torch.tensor([[3, 5, 0, 0]]), 0)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def test_tokens_after_a_cue_weigh_four_times_as_much() -> None:
    logits = torch.zeros(1, 40, 8)
    logits[0, 19, 5] = 100.0  # sure of the token at position 20 alone
    ids = torch.full((1, 40), 5)
    plain = token_loss(logits, ids, 0)
    early = token_loss(logits, ids, 0, torch.tensor([20]))
    late = token_loss(logits, ids, 0, torch.tensor([21]))
    none = token_loss(logits, ids, 0, torch.tensor([144]))
    # 39 tokens of log 8 each, 14 of them four times; the sure one costs nothing.
    assert float(plain) == pytest.approx(math.log(8) * 38 / 39)
    assert float(early) == pytest.approx(math.log(8) * 77 / 81)
    assert float(late) == pytest.approx(math.log(8) * 80 / 81)
    assert float(none) == pytest.approx(float(plain))


@pytest.mark.parametrize(
    ("step", "progress", "expected"),
    [(0, 0.0, 0.01), (49, 0.0, 0.5), (99, 0.0, 1.0), (500, 0.5, 0.51), (500, 1.0, 0.02)],
)
def test_the_rate_warms_up_and_falls_on_a_cosine(
    step: int, progress: float, expected: float
) -> None:
    assert learning_rate(step, progress, 1.0) == pytest.approx(expected, abs=1e-6)


def test_a_time_limit_ends_the_schedule(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = tiny("toy_gqa", num_steps=10**9, max_seconds=0.2)
    assert not train(recipe, tokenizer, "cpu").training


@pytest.mark.parametrize("model", MODELS)
def test_a_saved_model_loads_and_goes_on_from_where_it_was(
    model: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(train(tiny(model), tokenizer, "cpu"), tokenizer, tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.dtype == torch.bfloat16
    again = Trainer(tiny(model, start=tmp_path), tokenizer, "cpu")
    assert torch.equal(again.model.lm_head.weight, loaded.lm_head.weight.float())


def test_weights_are_saved_in_bf16_and_the_router_bias_in_float32(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(train(tiny("toy_mla"), tokenizer, "cpu"), tokenizer, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as tensors:
        names = set(tensors.keys())
        assert tensors.get_tensor("lm_head.weight").dtype == torch.bfloat16
        bias = tensors.get_tensor("model.layers.1.mlp.gate.e_score_correction_bias")
    assert bias.dtype == torch.float32
    assert bias.abs().max() > 0
    assert "model.layers.1.mlp.experts.15.down_proj.weight" in names
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert "<|assistant|>" in config["chat_template"]


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS)
def test_replayed_steps_learn(model: str, tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = tiny(model, graph=True, num_documents=400, batch_size=32)
    trainer = Trainer(recipe, tokenizer, "cuda")
    corpus = build_corpus(tokenizer, seed=1, count=400, length=144).to("cuda")
    order = torch.Generator().manual_seed(0)
    losses = [trainer.step(draw_batch(corpus, 32, order, multiple=48), 1e-3) for _ in range(60)]
    assert losses[-1] < losses[0] - 1.5
    assert all(math.isfinite(loss) for loss in losses)
