"""What a plan will take is said before anything starts, and kept beside what it then took.

Tasks, requests, prompt tokens and judged texts are exact; generated tokens and captured bytes are
limits; hours, dollars and file sizes are guesses that name what they rest on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from actors.model.family import ModelFacts
from actors.request import EngineSpec
from conf.schema import JobConfig, JudgeConfig
from jobs.capacity import SPEEDS, Memory, bundle_seconds, size_memory
from jobs.demand import Demands, judged_texts, judged_tokens
from jobs.plan import Plan
from jobs.prompting import Encoder
from jobs.task import Json
from jobs.work import GroupWork

JUDGE_TOKENS = 400
"""Definition, rubric and question around one answer."""
JUDGE_ANSWER_TOKENS = 1
JUDGE_CALL_S = 1.0
"""One call to an endpoint; they overlap."""
Bound = Literal["exact", "at most", "about"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One plan in numbers; what is committed already is left out, except in ``tasks``."""

    tasks: Mapping[str, int]
    todo: Mapping[str, int]
    requests: Mapping[str, int]
    num_bundles: int
    prompt_tokens: int
    new_tokens: int
    captured_bytes: int
    written_bytes: int
    judged_texts: int
    judge_tokens: int
    memory: Memory
    compute_s: float
    """The group's computing time if every answer has full length."""
    source: str
    """Record behind ``compute_s``."""


def estimate(
    plan: Plan,
    facts: ModelFacts,
    spec: EngineSpec,
    encoder: Encoder,
    *,
    done: Collection[str] = (),
    device_bytes: int | None = None,
) -> Estimate:
    """Add up what is not done yet; a bundle with any unfinished task runs whole."""
    demands = Demands(facts, spec.dtype, encoder)
    bundles = [
        [demands.of(work) for work in bundle.works]
        for bundle in plan.bundles
        if any(task not in done for task in bundle.task_ids)
    ]
    works = plan.unfinished(done)
    requests: Counter[str] = Counter()
    for work in works:
        if isinstance(work, GroupWork):
            requests[work.task.kind] += work.num_requests
    flat = [one for bundle in bundles for one in bundle]
    memory = size_memory(facts, spec, bundles, device_bytes)
    return Estimate(
        tasks=Counter(work.task.kind for work in plan.works.values()),
        todo=Counter(work.task.kind for work in works),
        requests=requests,
        num_bundles=len(bundles),
        prompt_tokens=sum(one.prompt_tokens for one in flat),
        new_tokens=sum(one.new_tokens for one in flat),
        captured_bytes=sum(one.captured_bytes for one in flat),
        written_bytes=demands.written_bytes(works, plan),
        judged_texts=sum(judged_texts(work, plan) for work in works),
        judge_tokens=sum(judged_tokens(work, plan, around=JUDGE_TOKENS) for work in works),
        memory=memory,
        compute_s=sum(bundle_seconds(facts, spec, bundle, memory) for bundle in bundles),
        source=SPEEDS[spec.device].source,
    )


def hours(found: Estimate, config: JobConfig) -> float:
    """From the first bundle to the last: computing and judging overlap, the longer one counts."""
    return max(found.compute_s, judge_seconds(found, config.judge)) / 3600


def judge_seconds(found: Estimate, judge: JudgeConfig) -> float:
    """Time of the judge's calls alone; the lexicon takes next to none."""
    if judge.kind != "endpoint":
        return 0.0
    paced_s = (
        60 * found.judged_texts / judge.requests_per_minute if judge.requests_per_minute else 0
    )
    return max(found.judged_texts * JUDGE_CALL_S / judge.max_concurrency, paced_s)


def gpu_dollars(found: Estimate, config: JobConfig) -> float | None:
    """What the group's GPUs cost for that long; None when no price is set."""
    return group_dollars(hours(found, config), config)


def group_dollars(group_hours: float, config: JobConfig) -> float | None:
    """The price of so many hours of one group; None when no price is set."""
    price = config.cluster.price_per_gpu_hour
    if price is None:
        return None
    num_gpus = config.cluster.tensor_parallel_size * config.cluster.gpus_per_rank
    return group_hours * num_gpus * price


def judge_dollars(found: Estimate, judge: JudgeConfig) -> float:
    """At the prices of the configuration; 0 when they are 0."""
    read = found.judge_tokens * judge.usd_per_million_prompt_tokens
    written = found.judged_texts * JUDGE_ANSWER_TOKENS * judge.usd_per_million_completion_tokens
    return (read + written) / 1e6


def forecast(
    found: Estimate, actual: Mapping[str, float], *, dollars: float | None = None
) -> list[dict[str, Json]]:
    """What was predicted beside what it was, by quantity, for the record of a run.

    Args:
        found: Made before the run.
        actual: By the quantity's name; what is not there was not measured.
        dollars: Predicted for the GPUs; None without a price.
    """
    predicted: list[tuple[str, str, Bound, float]] = [
        ("tasks", "", "exact", sum(found.todo.values())),
        ("tokens read and generated", "", "at most", found.prompt_tokens + found.new_tokens),
        ("judged texts", "", "exact", found.judged_texts),
        ("bytes in result files", "B", "about", found.written_bytes),
        ("computing time", "s", "about", found.compute_s),
    ]
    if dollars is not None:
        predicted.append(("GPU dollars", "USD", "about", dollars))
    return [
        {
            "quantity": name,
            "unit": unit,
            "bound": bound,
            "predicted": value,
            "actual": actual.get(name),
        }
        for name, unit, bound, value in predicted
    ]
