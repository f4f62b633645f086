"""Checked points become one plan for one set of model groups, and an exit code.

Everything that can be refused is refused before Ray starts. A request whose tasks are all committed
starts nothing and says so.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from conf.errors import UserError
from conf.resolve import JobRequest, extraction_request
from jobs import points as point_records
from jobs.asks import GroupAsks
from jobs.assemble import assemble
from jobs.entry import ExitCode
from jobs.execution import Batch, Execution, finish, load_encoder
from jobs.judges import local_model, open_judge
from jobs.preflight import Model, identity, read_models
from jobs.readiness import check_open_tasks, committed
from jobs.report.console import Console
from jobs.stores import open_run
from jobs.work import EXTRACTED, MAIN
from storage.errors import DiskFullError

logger = logging.getLogger(__name__)


def run_points(points: Sequence[JobRequest], console: Console) -> int:
    """Run all points; the exit code is the worst of any batch.

    Raises:
        UserError: Before anything starts, when any point cannot be met.
    """
    batches = make_batches(points)
    for batch in batches:
        if _is_local(batch):  # what a bucket has is known when the run is open
            check_open_tasks(batch, committed(batch))
    for batch in batches:
        prove_folder(batch.run_dir)
    codes = [_run(batch, console) for batch in batches]
    return max(codes)


def make_batches(points: Sequence[JobRequest]) -> list[Batch]:
    """Check every point against its model and plan it.

    Raises:
        UserError: A point cannot be met.
    """
    batches: dict[tuple[object, ...], Batch] = {}
    for request in points:
        models = read_models(request)
        run_dir = durable_folder(request.run_dir)
        specs = tuple((role, model.spec) for role, model in models.items())
        key = (specs, repr(request.config.judge), str(run_dir))
        if key not in batches:
            batches[key] = _open_batch(request, models, run_dir)
        batch = batches[key]
        batch.points.append(request)
        version = f"{batch.judge.name} {batch.judge.version}"
        other = extraction_request(request) if EXTRACTED in models else None
        source = identity(other, models[EXTRACTED], version) if other is not None else None
        batch.plan.add(assemble(request, identity(request, models[MAIN], version), source))
    for batch in batches.values():
        batch.plan.form_bundles(batch.points[0].config.schedule.bundle_requests)
    return list(batches.values())


def _open_batch(request: JobRequest, models: Mapping[str, Model], run_dir: Path) -> Batch:
    """An empty batch for the points that are like this one."""
    asks, encoder, local = GroupAsks(), None, None
    if request.config.judge.kind == "local_model":
        encoder = load_encoder(request)
        local = local_model(request.model_name, models[MAIN].digest, encoder, asks)
    judge = open_judge(request.config.judge, run_dir, local=local)
    return Batch(points=[], models=models, judge=judge, encoder=encoder, asks=asks, run_dir=run_dir)


def durable_folder(run_dir: Path) -> Path:
    """Where a relative run folder lies: here, or at home when here is a submitted job's copy."""
    if run_dir.is_absolute() or not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return run_dir.absolute()
    return Path.home() / "traitmill" / run_dir


def prove_folder(run_dir: Path) -> None:
    """Make the run folder and write into it, before anything is computed for it.

    Raises:
        UserError: It cannot be a folder, or nothing can be written there.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_dir):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(str(run_dir), 0, error.strerror) from error
        why = error.strerror or str(error)
        if isinstance(error, FileExistsError):
            why = "a file of that name is there"
        raise UserError(
            f"run_dir={run_dir} cannot hold results ({why}); choose a folder that you can write to."
        ) from error


def _is_local(batch: Batch) -> bool:
    """True without a bucket: the run folder tells what is committed."""
    return batch.points[0].config.storage.kind == "local"


def _run(batch: Batch, console: Console) -> int:
    """Run one batch to its exit code."""
    first = batch.points[0]
    if batch.run_dir != first.run_dir.absolute():
        console.note(
            f"run_dir={first.run_dir} is relative to a submitted job's copy of the code, "
            f"which is deleted with the job; writing to {batch.run_dir} instead."
        )
    with open_run(first.config.storage, batch.run_dir) as run:
        commits = run.commits()
        done = {task for task in batch.plan.works if task in commits}
        if len(done) == len(batch.plan.works):
            console.note(
                f"nothing to do: all {len(done)} tasks of this request are committed in "
                f"{batch.run_dir}"
            )
            finish(batch, run, console, is_changed=False)
            return ExitCode.DONE
        if not _is_local(batch):
            check_open_tasks(batch, done)
        point_records.write(run, batch.points)
        return Execution(batch, run, console).execute(done)
