"""Requests of many kinds side by side, and what it means that two replies are the same."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine.scheduler import Scheduler
from actors.engine.steer import OPERATORS
from actors.request import STEERING_SITES, Capture, Reply, Request, Steering
from tests import tiny
from tests.tiny import ask

SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0, "seed": 2},
    {"repetition_penalty": 1.3},
    {},
    {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
    {"temperature": 1.2, "repetition_penalty": 0.8, "top_p": 0.8},
)
POSITIONS = ("all", "prompt", "response", "from:3", "from:-1", "from:-2", "at:0,2,6,9")


def unit_vectors(width: int, count: int = 8) -> dict[str, np.ndarray]:
    """Eight unit vectors."""
    rng = np.random.default_rng(17)
    rows = rng.normal(size=(count, width)).astype("f4")
    return {f"v{i}": row / np.linalg.norm(row) for i, row in enumerate(rows)}


def _coefficient(operator: str, draw: random.Random) -> float:
    return {
        "add": draw.choice([-3.0, 2.0, 6.0]),
        "add_norm_matched": draw.choice([-0.5, 0.3, 1.1]),
        "ablate": draw.choice([1.0, 0.5, -1.0]),
        "floor": draw.choice([-0.5, 0.0, 2.0]),
        "ceiling": draw.choice([-2.0, 0.0, 0.5]),
    }[operator]


def different_requests(count: int) -> list[Request]:
    """Requests of all operators, sites and positions; every second one is read."""
    draw = random.Random(23)
    requests = []
    for i, prompt in enumerate(tiny.prompts(count, 30, seed=19, shortest=3)):
        entries = []
        for _ in range(draw.choice([1, 1, 2, 4])):
            operator = OPERATORS[(i + len(entries)) % 5]
            entries.append(
                Steering(
                    layer=draw.randrange(3),
                    site=draw.choice(STEERING_SITES),
                    vector=f"v{draw.randrange(8)}",
                    operator=operator,
                    coefficient=_coefficient(operator, draw),
                    positions=draw.choice(POSITIONS),
                )
            )
        read = Capture(layers=(0, 1, 2), sites=("resid_post", "attn_out"), tokens="all")
        options = {"capture": (read,)} if i % 2 else {}
        requests.append(ask(i, prompt, 9, ignore_eos=True, steering=tuple(entries), **options))
    return requests


def spell(ids: Iterable[int]) -> str:
    """Every token as its number, so that a stop string may cross tokens."""
    return " ".join(f"<{i}>" for i in ids)


def requests(width: int) -> tuple[list[Request], dict[str, np.ndarray]]:
    """28 requests with steering, captures, draws and ends of several kinds, some of one prompt.

    An engine for them decodes with ``spell``.
    """
    draw = random.Random(5)
    prompts = tiny.prompts(20, 48, seed=6) + [tuple(range(20, 52))] * 8
    vectors = {f"v{i}": np.random.default_rng(i).normal(size=width).astype("f4") for i in range(8)}
    found = []
    for i, prompt in enumerate(prompts):
        steering = Steering(
            layer=draw.randrange(3),
            vector=f"v{i % 8}",
            coefficient=draw.choice([0.0, 0.4, -0.7]),
            positions=draw.choice(["all", "response", "prompt", "from:-1"]),
        )
        capture = Capture(
            layers=(0, 2),
            sites=("resid_post", "mlp_out"),
            tokens=draw.choice(["response[:]", "prompt[-1]", "all[3:9]", "response[-3:]"]),
            reduction=draw.choice(["none", "mean", "sum"]),
        )
        kinds = [(steering, None), (None, capture), (steering, capture), (None, None)]
        steer, read = kinds[i % 4]
        found.append(
            ask(
                i,
                prompt,
                draw.choice([1, 7, 26]),
                steering=(steer,) if steer else (),
                capture=(read,) if read else (),
                **SAMPLINGS[i % len(SAMPLINGS)],
                stop_strings=("7> <", "never") if i % 3 == 1 else (),
                num_top_logprobs=draw.choice([0, 3]),
            )
        )
    return found, vectors


def assert_same_answers(got: Reply, want: Reply) -> None:
    """Tokens, ends and receipts are equal; captures and log-probabilities within rounding."""
    assert {r.id for r in got.results} == {r.id for r in want.results}
    by_id = {r.id: r for r in got.results}
    for expected in want.results:
        result = by_id[expected.id]
        assert result.completion_ids == expected.completion_ids, expected.id
        assert result.finish_reason == expected.finish_reason
        assert result.receipts == expected.receipts, expected.id
        for reading, other in zip(result.captures, expected.captures, strict=True):
            assert reading.positions.tolist() == other.positions.tolist()
            assert reading.values.keys() == other.values.keys()
            for site in reading.values:
                np.testing.assert_allclose(
                    reading.values[site], other.values[site], rtol=2e-4, atol=2e-4
                )
        if expected.logprobs is not None:
            np.testing.assert_allclose(result.logprobs.chosen, expected.logprobs.chosen, atol=1e-4)


def bytes_for_pages(path: Path, count: int) -> int:
    """Cache bytes in which this many pages of one rank's whole model fit."""
    probe = tiny.engine(path, kv_cache_bytes=1 << 20)
    return (1 << 20) // probe.info.num_pages * count + 64


@contextmanager
def preemptions() -> Iterator[list[str]]:
    """Ids of the requests that gave their pages back in this process, in order."""
    found: list[str] = []
    preempt = Scheduler._preempt

    def spy(self: Scheduler, victim: object) -> None:
        found.append(victim.request.id)
        preempt(self, victim)

    Scheduler._preempt = spy
    try:
        yield found
    finally:
        Scheduler._preempt = preempt
