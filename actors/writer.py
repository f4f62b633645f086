"""Captured rows go from the ranks to the disk without passing the driver, and commit as one task.

A writer is a CPU actor on the ranks' node. The driver only moves references: each rank streams its
share of the layers with backpressure, and at most a few parts are on their way to the writer. A
rank that dies loses the task in flight and nothing that was committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.diagnosis import why_it_died
from actors.errors import GroupError, RankDied
from actors.shares import CapturedPart
from storage.activations import ActivationWriter, RowBlock
from storage.manifest import Run

if TYPE_CHECKING:
    from actors.group import ModelGroup
    from actors.pending import Pending

MAX_PARTS_ON_THE_WAY = 4
"""Parts handed to the writer and not yet taken in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteJob:
    """What one task's activations file will hold."""

    task_id: str
    model: str
    groups: tuple[tuple[int, str], ...]
    """Layers and sites to come, in the order of the file."""
    width: int
    dtype: str
    prompts: str
    """Prompt set."""
    prompt_of: Mapping[str, str]
    """Request id -> prompt id."""
    provenance: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReceipt:
    """What became of a task."""

    task_id: str
    num_rows: int
    num_files: int
    size_bytes: int


class WriterActor:
    """Takes parts in, and commits them with the task's other tables."""

    def __init__(self, root: Path) -> None:
        self._run = Run.open(root)
        self._jobs: dict[str, tuple[WriteJob, ActivationWriter]] = {}
        self._num_rows: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"writer {self._run.root}"

    def begin(self, job: WriteJob) -> None:
        """Open a task's file; an unfinished attempt at the same task is given up."""
        self.abort(job.task_id)
        writer = ActivationWriter(
            self._run.wip,
            task_id=job.task_id,
            model=job.model,
            groups=job.groups,
            width=job.width,
            dtype=job.dtype,
            provenance=job.provenance,
        )
        self._jobs[job.task_id] = (job, writer)
        self._num_rows[job.task_id] = 0

    def add(self, task_id: str, part: CapturedPart) -> int:
        """Take a part in; returns the bytes that wait in memory for their layer's turn."""
        job, writer = self._jobs[task_id]
        for rows in part.rows:
            writer.add(
                RowBlock(
                    prompts=job.prompts,
                    prompt_id=job.prompt_of[rows.request_id],
                    layer=part.layer,
                    site=part.site,
                    values_ND=rows.values_ND,
                    positions=rows.positions,
                    token_ids=rows.token_ids,
                    is_response=rows.is_response,
                )
            )
            self._num_rows[task_id] += len(rows.positions)
        if part.is_last:
            writer.complete(part.layer, part.site)
        return writer.buffered_bytes

    def commit(self, task_id: str, tables: Mapping[str, pa.Table]) -> WriteReceipt:
        """Finish the file and make the task done."""
        job, writer = self._jobs.pop(task_id)
        commit = self._run.commit(
            task_id,
            tables,
            model=job.model,
            provenance=job.provenance,
            staged=[writer.finish()],
        )
        return WriteReceipt(
            task_id=task_id,
            num_rows=self._num_rows.pop(task_id),
            num_files=len(commit.files),
            size_bytes=sum(file.size_bytes for file in commit.files),
        )

    def abort(self, task_id: str) -> None:
        """Forget an unfinished task and delete its file."""
        if task_id in self._jobs:
            _, writer = self._jobs.pop(task_id)
            self._num_rows.pop(task_id)
            writer.abort()


class Writer:
    """The driver's hold on one writer actor."""

    def __init__(self, root: Path, *, name: str, node_id: str | None = None) -> None:
        """Args: ``node_id`` of the ranks' node, so that rows need not cross the network."""
        place = NodeAffinitySchedulingStrategy(node_id, soft=True) if node_id else None
        actor_class: Any = ray.remote(WriterActor)
        self._actor = actor_class.options(
            name=f"traitmill/writer/{name}", num_cpus=0.1, scheduling_strategy=place
        ).remote(root)

    def write(
        self,
        group: ModelGroup,
        pending: Pending,
        job: WriteJob,
        tables: Mapping[str, pa.Table],
    ) -> WriteReceipt:
        """Bring the rows of an answered bundle to the disk and commit the task.

        Args:
            group: Which answered it.
            pending: Submitted with ``hold_rows``, and done.
            job: What the file holds.
            tables: The task's other tables.

        Raises:
            RankDied: A rank died before its share was out; nothing was committed.
            StorageError: The rows could not be written.
        """
        self._fetch(self._actor.begin.remote(job), "open a file")
        try:
            self._forward(group.rows(pending), job)
            name = f"commit {job.task_id}"
            ref = self._actor.commit.options(name=name).remote(job.task_id, dict(tables))
            receipt: WriteReceipt = self._fetch(ref, name)
        except Exception:
            self._actor.abort.remote(job.task_id)
            raise
        return receipt

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)

    def _forward(self, streams: Sequence[Any], job: WriteJob) -> None:
        """Hand every part of every rank to the writer, a few at a time."""
        open_streams = dict.fromkeys(streams)
        on_the_way: deque[Any] = deque()
        ranks = {stream: rank for rank, stream in enumerate(streams)}
        while open_streams:
            ready, _ = ray.wait(list(open_streams), num_returns=1, fetch_local=False)
            for stream in ready:
                part = next(cast("Any", stream), None)
                if part is None:
                    del open_streams[stream]
                    continue
                name = f"write {job.task_id} rank {ranks[stream]}"
                on_the_way.append(
                    (self._actor.add.options(name=name).remote(job.task_id, part), ranks[stream])
                )
            while len(on_the_way) > (MAX_PARTS_ON_THE_WAY if open_streams else 0):
                ref, rank = on_the_way.popleft()
                self._fetch(ref, "send captured rows", rank)

    def _fetch(self, ref: Any, doing: str, rank: int | None = None) -> Any:  # noqa: ANN401
        """A value of the writer's; the loss of what a rank sent is that rank's death."""
        try:
            return ray.get(ref)  # noqa: TID251 - one actor, named in the error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, RayActorError):
                raise RankDied(doing=doing, cause=why_it_died(str(cause)), rank=rank) from error
            raise
        except RayActorError as error:
            raise GroupError(doing=doing, cause=f"the writer is gone: {error}") from error
