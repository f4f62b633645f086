"""A task and how it is answered: by the model group, or on the driver's CPUs.

Stages describe work with these classes and never schedule it; the scheduler runs it and never looks
inside. Work reads the results of other tasks through the context, so it runs as well in a second
process that finds them committed as in the one that made them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.model.family import ModelFacts
from actors.request import Request, Result
from jobs.failure import TaskFailed
from jobs.finished import Finished
from jobs.rows import CapturedRows, from_table, stage
from jobs.task import Json, Task

if TYPE_CHECKING:
    from actors.judges.query import Judge
    from jobs.prompting import Encoder
    from storage.manifest import Run

Tables: TypeAlias = dict[str, pa.Table]
"""Table name -> rows, as ``storage.schema`` declares them."""
LARGE = ("activations",)
"""Tables with a flat file of their own, read back layer by layer and never kept in memory."""
MAIN, EXTRACTED = "model", "extract_model"
"""The model of a run, and the one whose directions it uses when that is another."""
Vectors: TypeAlias = dict[str, NDArray[np.float32]]


class Ask(NamedTuple):
    """What the group is asked for one task."""

    requests: tuple[Request, ...]
    vectors: Vectors


@dataclass
class Context:
    """What all work of a run shares."""

    run: Run
    model_name: str
    model_digest: str
    facts: ModelFacts
    encoder: Encoder
    judge: Judge
    provenance: Mapping[str, Json]
    """Versions and digests that every commit carries."""
    finished: Finished
    """What tasks committed, in this run and before; all models of a run share it."""

    def commit(self, task: Task, tables: Tables) -> None:
        """Make a task done, and keep its small tables at hand for the next stage."""
        provenance = {**self.provenance, **task.sources, "question": task.question}
        small = {name: table for name, table in tables.items() if name not in LARGE}
        staged = [
            stage(
                tables[name],
                self.run.wip,
                task_id=task.id,
                model=self.model_name,
                provenance=provenance,
            )
            for name in LARGE
            if name in tables
        ]
        made = self.run.commit(
            task.id, small, model=self.model_name, provenance=provenance, staged=staged
        )
        self.finished.add(task.id, made, small)

    def rows(self, table: str, task_ids: Sequence[str]) -> pa.Table:
        """Rows of one table that these tasks committed, in the order of the tasks."""
        return self.finished.rows(table, task_ids)

    def activations(self, task_ids: Sequence[str], *, layer: int, site: str) -> CapturedRows:
        """Captured rows of one layer and site, in the order of the tasks."""
        wanted = [("layer", "=", layer), ("site", "=", site)]
        parts = self.finished.read("activations", task_ids, wanted)
        return from_table(pa.concat_tables(parts), layer=layer, site=site)


@dataclass(frozen=True)
class Work(ABC):
    """One task, the tasks it reads, and how it is answered."""

    task: Task
    after: tuple[str, ...] = ()
    """Ids of tasks whose tables this one reads."""
    role: str = field(default=MAIN, kw_only=True)
    """Which of the run's models it belongs to."""


@dataclass(frozen=True)
class GroupWork(Work):
    """Answered by the model group, in a bundle with others."""

    @property
    @abstractmethod
    def num_requests(self) -> int:
        """Known before any data is, so that bundles are part of the plan."""

    @abstractmethod
    def ask(self, context: Context) -> Ask:
        """The requests; their ids start with the task's id."""

    @abstractmethod
    def answer(self, context: Context, results: Sequence[Result]) -> Tables:
        """Rows from the results, which come in the order of the requests."""


@dataclass(frozen=True)
class CpuWork(Work):
    """Answered on the driver, beside the group."""

    lane = "compute"
    """``judge`` work waits for others and has its own threads; ``compute`` work uses a CPU."""

    @abstractmethod
    def compute(self, context: Context) -> Tables:
        """Rows from other tasks' rows."""


def check_results(task: Task, results: Sequence[Result]) -> None:
    """Refuse a task of which any request has no answer.

    Raises:
        TaskFailed: Names the first request and its error.
    """
    for result in results:
        if result.error is not None:
            raise TaskFailed(
                f"{task.label}: request {result.id} failed ({result.error.type}): "
                f"{result.error.message}"
            )
