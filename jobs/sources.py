"""Every result names the seeds and the data it comes from, however many tasks lie in between.

A question names its own seed, and the tasks it builds on by their ids. Whoever opens one file alone
should not have to follow those ids, so the sum of them is stored beside the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from conf.schema import PromptItem, TraitConfig
from jobs.task import Json, Task, digest


def sources(task: Task, before: Iterable[Task], data: Mapping[str, str]) -> dict[str, Json]:
    """Seeds and dataset digests behind a task's answer.

    Args:
        task: The task, whose question may hold a seed.
        before: Tasks that it reads, with their own sources.
        data: Digests of what it reads itself, by trait or prompt set.

    Returns:
        ``seeds`` in order, and ``dataset_digests`` by trait or prompt set.
    """
    own = task.question.get("seed")
    seeds: set[int] = {own} if isinstance(own, int) else set()
    digests = dict(data)
    for earlier in before:
        seeds |= set(cast("Sequence[int]", earlier.sources.get("seeds", ())))
        digests |= cast("Mapping[str, str]", earlier.sources.get("dataset_digests", {}))
    return {"seeds": sorted(seeds), "dataset_digests": dict(sorted(digests.items()))}


def dataset_digest(trait: TraitConfig) -> str:
    """sha256 over the trait's pairs and questions."""
    pairs: list[Json] = [[pair.positive, pair.negative] for pair in trait.pairs]
    return digest({"trait": trait.name, "pairs": pairs, "questions": list(trait.questions)})


def prompts_digest(name: str, items: Sequence[PromptItem]) -> str:
    """sha256 over the prompts of a set that are used, in order."""
    return digest({"prompts": name, "items": [[item.id, item.text] for item in items]})
