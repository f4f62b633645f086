"""How far a chosen token was from the best one, by a float32 run of stock transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actors.engine.engine import Engine
from actors.engine.sampler import gumbel_noise, request_key
from actors.request import Bundle, Reply, Request
from tests.gpu.twin import steer_in, stock_twin


@dataclass(frozen=True)
class Difference:
    """Where two runs of a request chose different tokens for the first time."""

    distance: float
    """Of the worse of both tokens from the best one in float32, over the largest move of a logit
    from float32 to bfloat16 there."""
    num_near: int
    """Tokens that are as near to the best as the worse of both."""


@torch.inference_mode()
def last_logits(model: Any, asked: Request, ids: tuple[int, ...], work: Bundle) -> Tensor:
    """float32 ``[V]``: stock logits of the last token, steered as the request says."""
    with steer_in(model, asked, work.vectors):
        found: Tensor = model(torch.tensor([ids], device="cuda")).logits[0, -1].float()
    return found


def first_differences(
    engine: Engine, path: Path, work: Bundle, one: Reply, other: Reply
) -> list[Difference]:
    """Every request whose completions differ, judged where they differ first."""
    places = []
    for asked, x, y in zip(work.requests, one.results, other.results, strict=True):
        pairs = zip(x.completion_ids, y.completion_ids, strict=False)
        at = next((i for i, (p, q) in enumerate(pairs) if p != q), None)
        if at is not None:
            ids = (*asked.token_ids, *x.completion_ids[:at])
            places.append((asked, ids, (x.completion_ids[at], y.completion_ids[at])))
    exact_model = stock_twin(engine, path, torch.float32)
    exact = [last_logits(exact_model, asked, ids, work) for asked, ids, _ in places]
    del exact_model
    rounded_model = stock_twin(engine, path, torch.bfloat16)
    found = []
    for (asked, ids, tokens), logits in zip(places, exact, strict=True):
        move = (last_logits(rounded_model, asked, ids, work) - logits).abs().max()
        below = _below_the_best(asked, len(ids), logits)
        worse = below[list(tokens)].max()
        found.append(Difference(float(worse / move), int((below <= worse).sum())))
    return found


def _below_the_best(asked: Request, position: int, logits_V: Tensor) -> Tensor:
    """How much larger each token's logit would have to be for it to be chosen, ``[V]``."""
    sampling = asked.sampling
    if not sampling.temperature:
        return logits_V.max() - logits_V
    key = torch.tensor([request_key(sampling.seed, asked.id)], device="cuda")
    where = torch.tensor([position], device="cuda")
    ids = torch.arange(len(logits_V), device="cuda")
    scores = logits_V / sampling.temperature + gumbel_noise(key, where, ids)[0]
    return (scores.max() - scores) * sampling.temperature
