"""Every number on the command line has a range, and one outside of it is refused by its name.

What a number is for stands beside its setting in ``conf.schema``; here stands what makes sense at
all. A setting without a range fails a test, so a new one cannot be forgotten.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from conf.describe import settings
from conf.errors import UserError
from conf.schema import JobConfig

NUMBERS = ("int", "float", "int | None", "float | None")


class Range(NamedTuple):
    """Values that a setting may have; both ends included unless ``above`` is set."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    """True leaves ``least`` itself out."""
    zero: str = ""
    """What 0 means, where it means something."""

    def __contains__(self, value: object) -> bool:
        """Whether a finite number lies inside."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (value > self.least if self.above else value >= self.least) and value <= self.most

    def way_out(self) -> str:
        """The values that may be used, as the end of a sentence."""
        zero = f" ({self.zero})" if self.zero else ""
        if self.least == -math.inf:
            return "use a whole number"
        if self.most == math.inf:
            return f"use {self.least:g}{zero} or more" if not self.above else "use more than 0"
        first = f"above {self.least:g}" if self.above else f"{self.least:g}{zero}"
        return f"use {first} to {self.most:g}" if self.most < 1e6 else f"use {first} to 2^63 - 1"


_COUNT, _NOT_NEGATIVE, _SECONDS = Range(1), Range(0), Range(0, above=True)
_SCORE, _SEED, _TEMPERATURE = Range(0, 100), Range(0, 2**63 - 1), Range(0, zero="greedy")

RANGES = {
    "model.random_seed": _SEED,
    "cluster.tensor_parallel_size": _COUNT,
    "cluster.groups": _COUNT,
    "cluster.max_groups": _COUNT,
    "cluster.idle_timeout_s": _SECONDS,
    "cluster.num_cpus": _COUNT,
    "cluster.cpus_per_rank": _NOT_NEGATIVE,
    "cluster.gpus_per_rank": _NOT_NEGATIVE,
    "cluster.threads_per_rank": _COUNT,
    "cluster.place_timeout_s": _SECONDS,
    "cluster.start_timeout_s": _SECONDS,
    "cluster.load_timeout_s": _SECONDS,
    "cluster.straggler_timeout_s": _SECONDS,
    "cluster.stall_timeout_s": _SECONDS,
    "cluster.max_batch_tokens": _COUNT,
    "cluster.max_batch_requests": _COUNT,
    "cluster.page_size": _COUNT,
    "cluster.kv_cache_bytes": _COUNT,
    "cluster.max_sequence_tokens": Range(2),
    "cluster.device_memory_bytes": _COUNT,
    "cluster.price_per_gpu_hour": _NOT_NEGATIVE,
    "storage.max_pending_bytes": _COUNT,
    "storage.upload_timeout_s": _SECONDS,
    "judge.max_concurrency": _COUNT,
    "judge.requests_per_minute": Range(0, zero="no limit"),
    "judge.timeout_s": _SECONDS,
    "judge.max_attempts": _COUNT,
    "judge.max_answer_chars": _COUNT,
    "judge.usd_per_million_prompt_tokens": _NOT_NEGATIVE,
    "judge.usd_per_million_completion_tokens": _NOT_NEGATIVE,
    "seed": _SEED,
    "extraction.num_pairs": _COUNT,
    "extraction.samples": _COUNT,
    "extraction.max_new_tokens": _COUNT,
    "extraction.temperature": _TEMPERATURE,
    "extraction.held_out": Range(0, 1),
    "extraction.positive_min": _SCORE,
    "extraction.negative_max": _SCORE,
    "extraction.min_passed": _COUNT,
    "steering.num_questions": _COUNT,
    "steering.samples": _COUNT,
    "steering.max_new_tokens": _COUNT,
    "steering.temperature": _TEMPERATURE,
    "steering.coherence_gate": _SCORE,
    "capture.max_new_tokens": Range(0, zero="the prompts only"),
    "capture.temperature": _TEMPERATURE,
    "capture.num_prompts": _COUNT,
    "generate.max_new_tokens": _COUNT,
    "generate.temperature": _TEMPERATURE,
    "generate.top_p": Range(0, 1, above=True),
    "generate.top_k": Range(0, zero="all tokens"),
    "generate.samples": _COUNT,
    "schedule.bundle_requests": _COUNT,
    "schedule.cpu_workers": _COUNT,
    "schedule.max_unwritten": _COUNT,
    "schedule.max_unwritten_bytes": _COUNT,
    "schedule.group_attempts": _COUNT,
    "schedule.bundles_per_group": _COUNT,
    "schedule.idle_group_s": _NOT_NEGATIVE,
    "schedule.judge_attempts": _COUNT,
    "schedule.progress_s": _NOT_NEGATIVE,
    "schedule.priority": Range(),
}


def numeric_settings() -> list[str]:
    """Dotted paths of all settings that hold one number."""
    return [item.path for item in settings(JobConfig) if item.type in NUMBERS]


def check_ranges(config: JobConfig) -> None:
    """Refuse the first number that is outside of its range; null is for others to judge.

    Raises:
        UserError: Names the setting, the value and the values that may be used.
    """
    for path, allowed in RANGES.items():
        value: object = config
        for name in path.split("."):
            value = getattr(value, name)
        if value is None or value in allowed:
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        raise UserError(f"{path}={text} {_fault(value, allowed)}; {allowed.way_out()}.")


def _fault(value: object, allowed: Range) -> str:
    if not isinstance(value, int | float) or math.isnan(value) or math.isinf(value):
        return "is no finite number"
    return "is too large" if value > allowed.most else "is too small"
