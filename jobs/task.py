"""A task's id is a hash of its question: equal questions have equal ids, wherever they are asked.

The question holds everything that changes the answer (model digest, data, settings, seed, versions
of our numeric code, ids of the tasks it builds on) and nothing that does not (paths, times, batch
sizes, hosts, number of ranks). So a rerun finds its answers, and a changed question never does.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

NUMERICS = {"engine": 1, "fit": 1, "evaluate": 1, "steer": 1, "project": 1, "judge": 1}
"""Versions of the code behind the numbers. Raise one when its answers change, and old results of
that kind are computed again."""


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of results: it is committed whole or not at all."""

    id: str
    kind: str
    """Stage, such as responses or steering."""
    label: str
    """What a person reads, such as ``steering anxiety layer 3``."""
    question: Mapping[str, Json]
    """What was hashed; stored as provenance."""
    sources: Mapping[str, Json] = field(default_factory=dict)
    """Seeds and data behind the answer, also through other tasks; stored, not hashed."""


def make_task(kind: str, label: str, question: Mapping[str, Json]) -> Task:
    """A task with its id: the kind and 24 hex digits of the question's sha256."""
    return Task(f"{kind}-{digest(question)[:24]}", kind, label, question)


def digest(value: Json) -> str:
    """sha256 of a value's canonical JSON: keys sorted, no blanks, floats by their shortest form.

    Raises:
        ValueError: The value holds NaN or infinity, which have no JSON form.
    """
    text = json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Json) -> Json:
    """Numbers that are equal hash equally: 2.0 as 2, -0.0 as 0."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value
