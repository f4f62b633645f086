"""One invocation that has work to do: however it ends, the groups are gone and the folder whole."""

from __future__ import annotations

import dataclasses
import datetime
import math
import platform
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pyarrow as pa

from actors.judges.query import Judge
from actors.request import Token
from conf.resolve import JobRequest, extraction_request
from jobs import points as point_records
from jobs.asks import GroupAsks
from jobs.attempts import AttemptLog
from jobs.autoscale import ScaleLimits
from jobs.entry import ExitCode
from jobs.finished import Finished
from jobs.fleet import Fleet
from jobs.flight import Group, Seat
from jobs.lane import ClusterFailed
from jobs.loopback import prepare_environment
from jobs.outcome import show_results, write_report
from jobs.plan import Plan
from jobs.preflight import Model, group_spec
from jobs.progress import ConsoleProgress, TokenPrinter
from jobs.prompting import Encoder
from jobs.provenance import provenance, versions
from jobs.report.console import Console
from jobs.scheduler import Scheduler
from jobs.states import State
from jobs.tally import sum_up, tally
from jobs.task import Json
from jobs.work import MAIN, Context
from storage.layout import REPORT
from storage.manifest import Run
from storage.schema import from_rows


@dataclass
class Batch:
    """Points that share models, a cluster, a judge and a run folder: one plan, one fleet."""

    points: list[JobRequest]
    models: Mapping[str, Model]
    """By role: the run's model, and the one that directions are found in if that is another."""
    judge: Judge
    encoder: Encoder | None
    """Loaded already when the judge needs it."""
    asks: GroupAsks
    run_dir: Path
    plan: Plan = field(default_factory=Plan)

    @property
    def model(self) -> Model:
        """The run's model."""
        return self.models[MAIN]

    def request(self, role: str) -> JobRequest:
        """The first point, as it asks one of the models."""
        first = self.points[0]
        return first if role == MAIN else extraction_request(first) or first


def scale_limits(request: JobRequest) -> ScaleLimits:
    """How many groups this point wants."""
    cluster, schedule = request.config.cluster, request.config.schedule
    return ScaleLimits(
        least=cluster.groups,
        most=cluster.max_groups or cluster.groups,
        bundles_per_group=schedule.bundles_per_group,
        idle_s=schedule.idle_group_s,
    )


def load_encoder(request: JobRequest) -> Encoder:
    """The model's tokenizer."""
    trusted = request.config.model.trust_remote_code
    return Encoder.load(request.model_path, trust_remote_code=trusted)


class Execution:
    """One invocation that has work to do."""

    def __init__(self, batch: Batch, run: Run, console: Console) -> None:
        self.batch = batch
        self.run = run
        self.console = console
        self.invocation = uuid.uuid4().hex[:12]
        self.attempts = AttemptLog(self.invocation, self._put_away)
        self.num_put_away = 0
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
            if scheduler.fleet.on_token is not None:
                self.console.note("")
            self._record(code, done, scheduler)
            took = datetime.datetime.now(datetime.UTC) - self.started_at
            self.console.note(sum_up(scheduler, took.total_seconds()))
            lost = [s for s in scheduler.states.values() if s in (State.FAILED, State.BLOCKED)]
            if lost:
                for sentence in scheduler.errors.values():
                    self.console.fail(sentence)
                self.console.note(
                    f"{len(lost)} of {len(plan.works)} tasks have no result; the "
                    "same command tries them again."
                )
        finish(self.batch, self.run, self.console, is_changed=True)
        return code

    def _schedule(self, scheduler: Scheduler, done: set[str]) -> int:
        prepare_environment()
        from jobs import driver

        try:
            if any(bundle_task not in done for bundle_task in _group_tasks(self.batch.plan)):
                with driver.cluster(self.batch.points[0].config.cluster):
                    self._measure_room(scheduler.fleet)
                    scheduler.run(done)
            else:
                scheduler.run(done)
        except ClusterFailed as error:
            self.console.fail(f"{error}; what is committed is safe, the same command continues.")
            return (
                ExitCode.NO_CLUSTER if scheduler.fleet.num_answered == 0 else ExitCode.SOME_FAILED
            )
        except driver.Terminated:
            self.console.note("stopped; what is committed is safe, the same command continues.")
            return ExitCode.INTERRUPTED
        failed = any(s is not State.DONE for s in scheduler.states.values())
        return ExitCode.SOME_FAILED if failed else ExitCode.DONE

    def _scheduler(self, done: set[str]) -> Scheduler:
        prepare_environment()
        from jobs import driver

        batch, first = self.batch, self.batch.points[0]
        finished = Finished(self.run)
        contexts = {role: self._context(role, finished) for role in batch.models}
        printer = self._printer(contexts[MAIN].encoder)
        return Scheduler(
            plan=batch.plan,
            contexts=contexts,
            fleet=Fleet(
                self._start_group,
                self.attempts,
                scale_limits(first),
                on_token=printer,
                note_use=driver.note_use,
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

    def _context(self, role: str, finished: Finished) -> Context:
        """What the work of one model sees."""
        batch, model = self.batch, self.batch.models[role]
        request = batch.request(role)
        known = batch.encoder if role == MAIN else None
        return Context(
            run=self.run,
            model_name=request.model_name,
            model_digest=model.digest,
            facts=model.facts,
            encoder=known or load_encoder(request),
            judge=batch.judge,
            provenance=provenance(request, model),
            finished=finished,
        )

    def _start_group(self, seat: Seat) -> Group:
        """Start one group of one of the models, under a name that no other has at the time."""
        from jobs import driver

        request, spec = self.batch.request(seat.role), self.batch.models[seat.role].spec
        group = group_spec(request)
        name = group.name if seat.role == MAIN else f"{group.name}-extract"
        if seat.place > 1:
            name = f"{name}-{seat.place}"
        started = driver.start_group(
            spec,
            dataclasses.replace(group, name=name),
            seat.number,
            resident=driver.resident_use(request),
            cancelled=seat.cancelled,
        )
        return cast("Group", started)

    def _measure_room(self, fleet: Fleet) -> None:
        """Ask for no more groups than the cluster can hold, unless it may grow."""
        from jobs import driver

        first = self.batch.points[0]
        if first.config.cluster.autoscaling or fleet.limits.most == 1:
            return
        room = driver.room(group_spec(first), self.batch.models[MAIN].spec.tensor_parallel_size)
        if room < fleet.limits.most:
            self.console.note(
                f"{fleet.limits.most} model groups were asked for, the cluster has room for {room}"
            )
            fleet.limits = dataclasses.replace(fleet.limits, most=max(1, room))

    def _printer(self, encoder: Encoder) -> Callable[[Token], None] | None:
        """What prints tokens as they come, when that was asked for."""
        first = self.batch.points[0]
        if not (first.job == "generate" and first.config.stream):
            return None
        return TokenPrinter(self.console, encoder).take

    def _record(self, code: int, done: set[str], scheduler: Scheduler) -> None:
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
        took = tally(self.batch, self.run, scheduler, done)
        self._commit(f"run-{self.invocation}", tables, took)

    def _put_away(self, attempts: pa.Table) -> None:
        """Attempts of a long run, before they pile up."""
        self.num_put_away += 1
        name = f"run-{self.invocation}-attempts-{self.num_put_away:04d}"
        self._commit(name, {"attempts": attempts}, {})

    def _commit(
        self, name: str, tables: dict[str, pa.Table], provenance: Mapping[str, Json]
    ) -> None:
        """Tables about the invocation, which no task owns."""
        self.run.commit(
            name,
            tables,
            model=self.batch.points[0].model_name,
            provenance={"invocation": self.invocation, **provenance},
        )


def _group_tasks(plan: Plan) -> list[str]:
    return [task for bundle in plan.bundles for task in bundle.task_ids]


def finish(batch: Batch, run: Run, console: Console, *, is_changed: bool) -> None:
    """Manifest, readme, report and the numbers on the console."""
    run.write_manifest()
    run.write_readme()
    show_results(run, batch.points, batch.plan.works, console)
    if batch.points[0].job == "pipeline":
        path = run.root / REPORT
        if is_changed or not path.exists():
            write_report(run)
        console.note(f"\nreport: {path}")
