"""Measure what a toy checkpoint can do, on scenarios and questions that it never saw in training.

Scores come from the lexicon judge, which was written from the trait definitions without sight of
the corpus. ``python -m jobs.toy.check DIR`` prints the figures that the model cards quote.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from actors.lexicon import score_coherence, score_trait
from jobs.toy.corpus import Document
from jobs.toy.held_out import HELD_OUT_EVERY, TRAITS, TraitData, read_trait
from jobs.toy.push import Push

log = logging.getLogger(__name__)

EXPRESSED = 50.0
COMPLETION_TOKENS = 24
ANSWER_TOKENS = 48
WINDOW = 5

# Shapes: B sequences, T positions, D hidden size, L layers.


class Rates(NamedTuple):
    """Shares of completions that the judge calls the trait."""

    positive: float
    negative: float
    held_out_positive: float
    """Over the pairs whose cue appears in no training document."""
    held_out_negative: float


class Toy(NamedTuple):
    """A loaded checkpoint."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def load(folder: Path, device: str = "cpu") -> Toy:
    """Load a checkpoint the way any user would, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    nn.Module.to(model, device).train(mode=False)
    tokenizer = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder))
    return Toy(cast(PreTrainedModel, model), tokenizer)


@torch.no_grad()
def complete(toy: Toy, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[list[int]]:
    """Greedy completions, end token and padding removed."""
    pad = int(toy.tokenizer.pad_token_id)
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device = toy.model.device
    generate = cast(Callable[..., Tensor], toy.model.generate)
    output = generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=num_tokens,
        do_sample=False,
    )
    stops = {pad, int(toy.tokenizer.eos_token_id)}
    completions = []
    for row in output[:, width:].tolist():
        kept = next((i for i, token in enumerate(row) if token in stops), len(row))
        completions.append(row[:kept])
    return completions


def write_stories(toy: Toy, prefixes: Sequence[str]) -> list[str]:
    """Greedy completions of raw prefixes, as text."""
    prompts = toy.tokenizer(list(prefixes), add_special_tokens=False)["input_ids"]
    return toy.tokenizer.batch_decode(complete(toy, prompts, COMPLETION_TOKENS))


def answer_prompts(toy: Toy, questions: Sequence[str]) -> list[list[int]]:
    """Token ids of the questions in the chat format."""
    render = toy.tokenizer.apply_chat_template
    return [
        cast(
            list[int],
            render(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_dict=False,
            ),
        )
        for question in questions
    ]


def story_rates(toy: Toy, data: TraitData) -> Rates:
    """How often prefixes end in the trait, by polarity."""
    hits = []
    for polarity in ("positive", "negative"):
        texts = write_stories(toy, [getattr(pair, polarity) for pair in data.pairs])
        hits.append([score_trait(data.name, text) >= EXPRESSED for text in texts])
    held_out = slice(HELD_OUT_EVERY - 1, None, HELD_OUT_EVERY)
    return Rates(fmean(hits[0]), fmean(hits[1]), fmean(hits[0][held_out]), fmean(hits[1][held_out]))


@torch.no_grad()
def perplexity(toy: Toy, documents: Sequence[Document]) -> float:
    """Perplexity per token over whole documents."""
    total, count = 0.0, 0
    for document in documents:
        ids = toy.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        ids_BT = torch.tensor([ids], device=toy.model.device)
        logits = toy.model(input_ids=ids_BT).logits[0, :-1].float()
        total += float(nn.functional.cross_entropy(logits, ids_BT[0, 1:], reduction="sum"))
        count += len(ids) - 1
    return math.exp(total / count)


def has_loop(text: str, *, size: int = 6) -> bool:
    """Whether some run of ``size`` words comes back three times."""
    words = text.lower().split()
    runs = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
    return any(count >= 3 for count in runs.values())


@torch.no_grad()
def pooled_residuals(toy: Toy, prefixes: Sequence[str]) -> Tensor:
    """Mean residual of each layer over the first generated tokens: (B, L, D)."""
    prompts = toy.tokenizer(list(prefixes), add_special_tokens=False)["input_ids"]
    rows = []
    for prompt, completion in zip(prompts, complete(toy, prompts, WINDOW), strict=True):
        caught: list[Tensor] = []
        handles = [
            layer.register_forward_hook(lambda _m, _a, out, kept=caught: kept.append(out[0]))
            for layer in toy.model.model.layers
        ]
        ids = torch.tensor([prompt + completion], device=toy.model.device)
        toy.model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
        rows.append(torch.stack([resid_TD[len(prompt) :].mean(0) for resid_TD in caught]))
    return torch.stack(rows)


class Point(NamedTuple):
    """Chat answers of one trait under one vector: means over its questions."""

    trait: str
    layer: int
    coefficient: float
    """Length added, as a multiple of the layer's mean residual norm; negative subtracts."""
    kind: str
    score: float
    standard_error: float
    coherence: float


def _point(data: TraitData, texts: Sequence[str], place: tuple[int, float, str]) -> Point:
    scores = [score_trait(data.name, text) for text in texts]
    error = stdev(scores) / math.sqrt(len(scores))
    coherence = fmean(score_coherence(text) for text in texts)
    return Point(data.name, *place, round(fmean(scores), 1), round(error, 1), round(coherence, 1))


def steer(
    toy: Toy, traits: Sequence[TraitData], layers: Sequence[int], coefficients: Sequence[float]
) -> list[Point]:
    """Answer every question with every vector added; trait and random vectors side by side."""
    generator = torch.Generator().manual_seed(0)
    directions, norms = [], []
    for data in traits:
        positive = pooled_residuals(toy, [pair.positive for pair in data.pairs])
        negative = pooled_residuals(toy, [pair.negative for pair in data.pairs])
        directions.append(nn.functional.normalize(positive.mean(0) - negative.mean(0), dim=-1))
        norms.append(torch.cat([positive, negative]).norm(dim=-1).mean(0))
    points: list[Point] = []
    for layer in layers:
        prompts: list[list[int]] = []
        pushes: list[Tensor] = []
        places: list[tuple[TraitData, float, str]] = []
        for data, direction_LD, norm_L in zip(traits, directions, norms, strict=True):
            noise_D = torch.randn(direction_LD.shape[1], generator=generator)
            random_D = nn.functional.normalize(noise_D, dim=0).to(direction_LD.device)
            for coefficient in coefficients:
                for kind, vector_D in (("trait", direction_LD[layer]), ("random", random_D)):
                    places.append((data, coefficient, kind))
                    prompts += answer_prompts(toy, data.questions)
                    pushed = coefficient * norm_L[layer] * vector_D
                    pushes += [pushed] * len(data.questions)
        with Push(toy.model, layer, torch.stack(pushes)):
            texts = toy.tokenizer.batch_decode(complete(toy, prompts, ANSWER_TOKENS))
        start = 0
        for data, coefficient, kind in places:
            stop = start + len(data.questions)
            points.append(_point(data, texts[start:stop], (layer, coefficient, kind)))
            start = stop
    return points


def baseline(toy: Toy, data: TraitData) -> Point:
    """Chat answers with nothing added."""
    texts = toy.tokenizer.batch_decode(
        complete(toy, answer_prompts(toy, data.questions), ANSWER_TOKENS)
    )
    return _point(data, texts, (-1, 0.0, "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a model card quotes about one trait."""

    trait: str
    rates: Rates
    baseline: Point
    best: Point
    """The positive coefficient with the largest score among coherent ones (70 or more)."""
    lowered: Point
    """The same layer and size, subtracted."""
    random: Point
    """A random vector at the same layer and size."""


def summarise(toy: Toy, coefficients: Sequence[float]) -> list[Summary]:
    """Run everything for all traits."""
    traits = [read_trait(name) for name in TRAITS]
    layers = range(len(toy.model.model.layers))
    signed = [sign * size for size in coefficients for sign in (1, -1)]
    points = steer(toy, traits, list(layers), signed)
    summaries = []
    for data in traits:
        own = {(p.layer, p.coefficient, p.kind): p for p in points if p.trait == data.name}
        raised = [p for p in own.values() if p.kind == "trait" and p.coefficient > 0]
        best = max(raised, key=lambda p: (p.coherence >= 70, p.score, -p.coefficient))
        summaries.append(
            Summary(
                trait=data.name,
                rates=story_rates(toy, data),
                baseline=baseline(toy, data),
                best=best,
                lowered=own[best.layer, -best.coefficient, "trait"],
                random=own[best.layer, best.coefficient, "random"],
            )
        )
    return summaries


def print_rates(toy: Toy) -> None:
    """One line per trait, and their means."""
    rows = {name: story_rates(toy, read_trait(name)) for name in TRAITS}
    rows["mean"] = Rates(*(fmean(column) for column in zip(*rows.values(), strict=True)))
    for name, rates in rows.items():
        log.info(
            "%-16s positive %.2f negative %.2f, held-out cue: positive %.2f negative %.2f",
            *(name, *rates),
        )


def main() -> None:
    """Print the rates of one checkpoint, then what steering does, as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only-rates", action="store_true", help="leave steering out")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    toy = load(args.folder, args.device)
    print_rates(toy)
    for summary in () if args.only_rates else summarise(toy, (0.3, 0.6, 1.0)):
        log.info("%s", json.dumps(asdict(summary)))


if __name__ == "__main__":
    main()
