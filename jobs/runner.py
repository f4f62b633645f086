"""Checked points become one plan on one model group, and an exit code.

Everything that can be refused is refused before Ray starts. A request whose tasks are all committed
starts nothing and says so. However the run ends, the group is gone and the run folder is whole.
"""

from __future__ import annotations

import datetime
import logging
import math
import os
import platform
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from actors.judges.query import Judge
from actors.request import EngineSpec, Token
from conf.resolve import JobRequest
from jobs import points as point_records
from jobs.asks import GroupAsks
from jobs.assemble import assemble
from jobs.attempts import AttemptLog
from jobs.entry import ExitCode
from jobs.judges import local_model, open_judge
from jobs.lane import ClusterFailed, Group, GroupLane
from jobs.loopback import prepare_environment
from jobs.outcome import show_results, write_report
from jobs.plan import Plan
from jobs.preflight import Model, group_spec, identity, read_model
from jobs.progress import ConsoleProgress, TokenPrinter
from jobs.prompting import Encoder
from jobs.provenance import provenance, versions
from jobs.report.console import Console, duration
from jobs.scheduler import Scheduler, State
from jobs.stores import object_store
from jobs.work import Context
from storage.layout import REPORT
from storage.manifest import Run
from storage.schema import from_rows

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """Points that share a model, a cluster, a judge and a run folder: one plan, one group."""

    points: list[JobRequest]
    model: Model
    judge: Judge
    encoder: Encoder | None
    """Loaded already when the judge needs it."""
    asks: GroupAsks
    run_dir: Path
    plan: Plan = field(default_factory=Plan)


def run_points(points: Sequence[JobRequest], console: Console) -> int:
    """Run all points; the exit code is the worst of any batch.

    Raises:
        UserError: Before anything starts, when any point cannot be met.
    """
    batches = make_batches(points)
    codes = [_run(batch, console) for batch in batches]
    return max(codes)


def make_batches(points: Sequence[JobRequest]) -> list[Batch]:
    """Check every point against its model and plan it.

    Raises:
        UserError: A point cannot be met.
    """
    batches: dict[tuple[EngineSpec, str, str], Batch] = {}
    for request in points:
        model = read_model(request)
        run_dir = durable_folder(request.run_dir)
        key = (model.spec, repr(request.config.judge), str(run_dir))
        if key not in batches:
            batches[key] = _open_batch(request, model, run_dir)
        batch = batches[key]
        batch.points.append(request)
        version = f"{batch.judge.name} {batch.judge.version}"
        batch.plan.add(assemble(request, identity(request, model, version)))
    for batch in batches.values():
        batch.plan.form_bundles(batch.points[0].config.schedule.bundle_requests)
    return list(batches.values())


def _open_batch(request: JobRequest, model: Model, run_dir: Path) -> Batch:
    """An empty batch for the points that are like this one."""
    asks, encoder, local = GroupAsks(), None, None
    if request.config.judge.kind == "local_model":
        encoder = load_encoder(request)
        local = local_model(request.model_name, model.digest, encoder, asks)
    judge = open_judge(request.config.judge, run_dir, local=local)
    return Batch(points=[], model=model, judge=judge, encoder=encoder, asks=asks, run_dir=run_dir)


def load_encoder(request: JobRequest) -> Encoder:
    """The model's tokenizer."""
    trusted = request.config.model.trust_remote_code
    return Encoder.load(request.model_path, trust_remote_code=trusted)


def durable_folder(run_dir: Path) -> Path:
    """Where a relative run folder lies: here, or at home when here is a submitted job's copy."""
    if run_dir.is_absolute() or not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return run_dir.absolute()
    return Path.home() / "traitmill" / run_dir


def _run(batch: Batch, console: Console) -> int:
    """Run one batch to its exit code."""
    first = batch.points[0]
    if batch.run_dir != first.run_dir.absolute():
        console.note(
            f"run_dir={first.run_dir} is relative to a submitted job's copy of the code, "
            f"which is deleted with the job; writing to {batch.run_dir} instead."
        )
    store = object_store(first.config.storage)
    with Run.open(batch.run_dir, store=store) as run:
        commits = run.commits()
        done = {task for task in batch.plan.works if task in commits}
        if len(done) == len(batch.plan.works):
            console.note(
                f"nothing to do: all {len(done)} tasks of this request are committed in "
                f"{batch.run_dir}"
            )
            _finish(batch, run, console, is_changed=False)
            return ExitCode.DONE
        point_records.write(run, batch.points)
        return _Execution(batch, run, console).execute(done)


class _Execution:
    """One invocation that has work to do."""

    def __init__(self, batch: Batch, run: Run, console: Console) -> None:
        self.batch = batch
        self.run = run
        self.console = console
        self.invocation = uuid.uuid4().hex[:12]
        self.attempts = AttemptLog(self.invocation)
        self.started_at = datetime.datetime.now(datetime.UTC)

    def execute(self, done: set[str]) -> int:
        """Run what is not done; leave the folder whole whatever happens."""
        plan, first = self.batch.plan, self.batch.points[0]
        todo = len(plan.works) - len(done)
        self.console.note(
            f"{first.job}: {len(plan.works)} tasks for {len(plan.points)} point(s), {len(done)} "
            f"committed already, {todo} to do, in {self.batch.run_dir}"
        )
        scheduler = self._scheduler(done)
        code: int = ExitCode.INTERRUPTED
        try:
            code = self._schedule(scheduler, done)
        finally:
            if scheduler.lane.on_token is not None:
                self.console.note("")
            self._record(code, done)
            self._sum_up(scheduler)
            lost = [s for s in scheduler.states.values() if s in (State.FAILED, State.BLOCKED)]
            if lost:
                for sentence in scheduler.errors.values():
                    self.console.fail(sentence)
                self.console.note(
                    f"{len(lost)} of {len(plan.works)} tasks have no result; the "
                    "same command tries them again."
                )
        _finish(self.batch, self.run, self.console, is_changed=True)
        return code

    def _schedule(self, scheduler: Scheduler, done: set[str]) -> int:
        prepare_environment()
        from jobs import driver

        try:
            if any(bundle_task not in done for bundle_task in _group_tasks(self.batch.plan)):
                with driver.cluster(self.batch.points[0].config.cluster):
                    scheduler.run(done)
            else:
                scheduler.run(done)
        except ClusterFailed as error:
            self.console.fail(f"{error}; what is committed is safe, the same command continues.")
            return ExitCode.NO_CLUSTER if scheduler.lane.num_answered == 0 else ExitCode.SOME_FAILED
        except driver.Terminated:
            self.console.note("stopped; what is committed is safe, the same command continues.")
            return ExitCode.INTERRUPTED
        failed = any(s is not State.DONE for s in scheduler.states.values())
        return ExitCode.SOME_FAILED if failed else ExitCode.DONE

    def _scheduler(self, done: set[str]) -> Scheduler:
        prepare_environment()
        from jobs import driver

        batch, first = self.batch, self.batch.points[0]
        encoder = batch.encoder or load_encoder(first)
        printer = self._printer(encoder)
        context = Context(
            run=self.run,
            model_name=first.model_name,
            model_digest=batch.model.digest,
            facts=batch.model.facts,
            encoder=encoder,
            judge=batch.judge,
            provenance=provenance(first, batch.model),
            commits=self.run.commits(),
        )
        spec, group = batch.model.spec, group_spec(first)

        def start(number: int) -> Group:
            resident = driver.resident_use(first)
            return cast("Group", driver.start_group(spec, group, number, resident=resident))

        return Scheduler(
            plan=batch.plan,
            context=context,
            lane=GroupLane(
                start_group=start,
                attempts=self.attempts,
                on_token=printer,
            ),
            settings=first.config.schedule,
            attempts=self.attempts,
            asks=batch.asks,
            on_counts=driver.note_tasks,
            progress=ConsoleProgress(
                console=self.console,
                total=len(batch.plan.works),
                done_before=len(done),
                interval_s=math.inf if printer else first.config.schedule.progress_s,
            ),
        )

    def _sum_up(self, scheduler: Scheduler) -> None:
        """What it took, and how long the ranks waited for work."""
        lane, took = scheduler.lane, datetime.datetime.now(datetime.UTC) - self.started_at
        line = f"{duration(took.total_seconds())}, {scheduler.num_tokens:,} tokens"
        if lane.num_started:
            idle_s = max(0.0, lane.up_s - scheduler.computing_s)
            line += (
                f", {lane.num_started} model group(s): computed {scheduler.computing_s:.1f} s, "
                f"waited {idle_s:.1f} s for work"
            )
        self.console.note(line)

    def _printer(self, encoder: Encoder) -> Callable[[Token], None] | None:
        """What prints tokens as they come, when that was asked for."""
        first = self.batch.points[0]
        if not (first.job == "generate" and first.config.stream):
            return None
        return TokenPrinter(self.console, encoder).take

    def _record(self, code: int, done: set[str]) -> None:
        """This invocation and its attempts, in tables of their own."""
        row: dict[str, object] = {
            "invocation": self.invocation,
            "command": point_records.command(self.batch.points[0].job, sys.argv[1:]),
            "started_at": self.started_at,
            "finished_at": datetime.datetime.now(datetime.UTC),
            "exit_code": int(code),
            "num_tasks": len(self.batch.plan.works),
            "num_tasks_done_before": len(done),
            "versions": point_records.as_json(versions()),
            "host": platform.node(),
        }
        tables = {"runs": from_rows("runs", [row])}
        if self.attempts.rows:
            tables["attempts"] = self.attempts.table()
        self.run.commit(
            f"run-{self.invocation}",
            tables,
            model=self.batch.points[0].model_name,
            provenance={"invocation": self.invocation},
        )


def _group_tasks(plan: Plan) -> list[str]:
    return [task for bundle in plan.bundles for task in bundle.task_ids]


def _finish(batch: Batch, run: Run, console: Console, *, is_changed: bool) -> None:
    """Manifest, readme, report and the numbers on the console."""
    run.write_manifest()
    run.write_readme()
    show_results(run, batch.points, batch.plan.works, console)
    if batch.points[0].job == "pipeline":
        path = run.root / REPORT
        if is_changed or not path.exists():
            write_report(run)
        console.note(f"\nreport: {path}")
