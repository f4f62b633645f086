"""What a run took is kept beside what was predicted for it, in the record of the invocation."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from actors.idle import in_words
from jobs.estimate import estimate, forecast, gpu_dollars, group_dollars
from jobs.report.console import duration
from jobs.scheduler import Scheduler
from jobs.task import Json
from jobs.work import MAIN
from storage.manifest import Run

if TYPE_CHECKING:
    from jobs.execution import Batch


def tally(batch: Batch, run: Run, scheduler: Scheduler, done: Collection[str]) -> dict[str, Json]:
    """Predicted and actual by quantity, and the seconds of the groups by what they went to.

    Args:
        batch: What was asked.
        run: With everything committed that there will be.
        scheduler: After the run.
        done: Tasks that were committed before.
    """
    config, fleet = batch.points[0].config, scheduler.fleet
    encoder = scheduler.contexts[MAIN].encoder
    found = estimate(batch.plan, batch.model.facts, batch.model.spec, encoder, done=done)
    commits = run.commits()
    fresh = [commits[task] for task in batch.plan.works if task in commits and task not in done]
    actual: dict[str, float] = {
        "tasks": len(fresh),
        "tokens read and generated": scheduler.num_tokens,
        "judged texts": batch.judge.totals.num_queries,
        "bytes in result files": sum(file.size_bytes for one in fresh for file in one.files),
        "computing time": round(scheduler.computing_s, 3),
    }
    paid = group_dollars(fleet.up_s / 3600, config)
    if paid is not None:
        actual["GPU dollars"] = paid
    return {
        "forecast": forecast(found, actual, dollars=gpu_dollars(found, config)),
        "group_seconds": {use: round(seconds, 3) for use, seconds in fleet.uses.items()},
    }


def sum_up(scheduler: Scheduler, took_s: float) -> str:
    """What it took, and what the groups' time went to."""
    fleet = scheduler.fleet
    line = f"{duration(took_s)}, {scheduler.num_tokens:,} tokens"
    if fleet.num_started:
        idle_s = max(0.0, fleet.up_s - scheduler.computing_s)
        at_once = f" ({fleet.most_at_once} at once)" if fleet.most_at_once > 1 else ""
        line += (
            f", {fleet.num_started} model group(s){at_once}: computed "
            f"{scheduler.computing_s:.1f} s, waited {idle_s:.1f} s for work"
        )
    if fleet.uses:
        line += f"\nthe groups' time: {in_words(fleet.uses)}"
    return line
