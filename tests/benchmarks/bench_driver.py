"""What the driver costs per task: the real scheduler, fleet and lanes over simulated groups.

    make bench B=driver
    python -m tests.benchmarks.bench_driver --tasks 100000 --groups 64

Every task is planned, bundled, made ready by the tasks that it waits for, sent, answered, taken
in, checked and handed to a writer's thread. Simulated are the groups (each answers at once, in its
lane's own thread), the commit (a counter), the storing of attempts (made into Arrow tables and let
go) and the progress line; Ray, the disk and the model cost nothing here. A quarter of the tasks is
CPU work that waits for group work and makes more of it ready. Memory is this process's resident
set, read ten times over the run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, cast

from actors.errors import GroupError
from actors.request import Bundle, Reply, Request, Result, Token
from conf.stages import ScheduleConfig
from jobs.attempts import AttemptLog
from jobs.autoscale import ScaleLimits
from jobs.fleet import Fleet
from jobs.plan import Plan
from jobs.scheduler import Scheduler
from jobs.task import Task
from jobs.work import MAIN, Ask, Context, CpuWork, GroupWork, Tables, Work

RECORDS = Path(__file__).parent / "records"
PROMPT = (1, 2, 3)
BOUND_MS = 1.0
"""Per task, from the issue."""


@dataclass(frozen=True)
class Asked(GroupWork):
    """One request."""

    @property
    def num_requests(self) -> int:
        return 1

    def ask(self, context: Context) -> Ask:
        return Ask((Request(id=self.task.id, token_ids=PROMPT),), {})

    def answer(self, context: Context, results: Sequence[Result]) -> Tables:
        return {}


@dataclass(frozen=True)
class Computed(CpuWork):
    """Nothing to compute."""

    def compute(self, context: Context) -> Tables:
        return {}


class Answered:
    """A bundle that is done as soon as it is sent."""

    is_done, blamed = True, False
    error: GroupError | None = None

    def __init__(self, bundle: Bundle) -> None:
        self.bundle_id = bundle.id
        self._bundle = bundle

    def reply(self) -> Reply:
        results = tuple(
            Result(id=one.id, prompt_ids=PROMPT, completion_ids=(4,), finish_reason="length")
            for one in self._bundle.requests
        )
        return Reply(bundle_id=self.bundle_id, results=results)

    def take_tokens(self) -> list[Token]:
        return []


class SimulatedGroup:
    """Answers at once."""

    def submit(self, bundle: Bundle, *, stream: bool = False) -> Answered:
        return Answered(bundle)

    def wait(self, pendings: Sequence[Any], timeout_s: float | None = None) -> list[Any]:
        return list(pendings)

    def check(self) -> None:
        return

    def close(self) -> None:
        return


class Counting:
    """Stands for the context and for the progress line: counts commits, and reads memory."""

    def __init__(self, total: int) -> None:
        self.num_committed = 0
        self.memory_mib: list[float] = []
        self._every = max(1, total // 10)
        self._lock = Lock()

    def commit(self, task: Task, tables: Tables) -> None:
        with self._lock:
            self.num_committed += 1
            if self.num_committed % self._every == 0:
                self.memory_mib.append(round(resident_mib(), 1))

    def update(self, *, done: int, doing: str, tokens: int) -> None:
        return


def resident_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_plan(num_tasks: int, requests_per_bundle: int) -> Plan:
    """Families of four: two asked, one computed from them, one asked under what was computed."""
    plan = Plan()
    works: list[Work] = []
    for number in range(num_tasks // 4):
        names = [f"{kind}-{number:08d}" for kind in ("left", "right", "fit", "steer")]
        tasks = [Task(name, name.partition("-")[0], name, {}) for name in names]
        works += [
            Asked(tasks[0]),
            Asked(tasks[1]),
            Computed(tasks[2], (names[0], names[1])),
            Asked(tasks[3], (names[2],)),
        ]
    plan.add(works)
    plan.form_bundles(requests_per_bundle)
    return plan


def measure(num_tasks: int, num_groups: int, requests_per_bundle: int) -> dict[str, object]:
    """Run one plan to its end."""
    began = time.perf_counter()
    plan = make_plan(num_tasks, requests_per_bundle)
    planned_s = time.perf_counter() - began
    counting, put_away = Counting(len(plan.works)), []
    attempts = AttemptLog("bench", lambda table: put_away.append(table.num_rows))
    scheduler = Scheduler(
        plan=plan,
        contexts={MAIN: cast("Context", counting)},
        fleet=Fleet(
            lambda seat: SimulatedGroup(), attempts, ScaleLimits(least=num_groups, most=num_groups)
        ),
        settings=ScheduleConfig(max_unwritten=1024),
        attempts=attempts,
        progress=counting,
    )
    before, cpu = resident_mib(), time.process_time()
    began = time.perf_counter()
    scheduler.run(done=())
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    if counting.num_committed != len(plan.works):
        raise RuntimeError(f"{counting.num_committed} of {len(plan.works)} tasks were committed")
    if sum(put_away) + len(attempts.rows) != len(plan.works):
        raise RuntimeError("not every attempt was written down")
    memory = counting.memory_mib
    return {
        "num_tasks": len(plan.works),
        "num_groups": num_groups,
        "groups_at_once": scheduler.fleet.most_at_once,
        "num_bundles": len(plan.bundles),
        "requests_per_bundle": requests_per_bundle,
        "ms_per_task": round(1e3 * took_s / len(plan.works), 4),
        "cpu_ms_per_task": round(1e3 * cpu_s / len(plan.works), 4),
        "ms_per_bundle": round(1e3 * took_s / len(plan.bundles), 4),
        "planning_ms_per_task": round(1e3 * planned_s / len(plan.works), 4),
        "memory_before_mib": round(before, 1),
        "memory_mib_at_each_tenth": memory,
        "growth_bytes_per_task_after_the_first_tenth": round(
            (memory[-1] - memory[0]) * 2**20 / (0.9 * len(plan.works)), 1
        ),
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    rows = []
    # One request per bundle is the worst case: every task costs a round trip to a group.
    whole = arguments.tasks
    for tasks, per_bundle in ((whole // 10, 1), (whole, 1), (whole, 64)):
        rows.append(measure(tasks, arguments.groups, per_bundle))
        print(json.dumps(rows[-1]))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    out = arguments.out or RECORDS / f"driver_cpu{os.cpu_count()}_{today}.json"
    record = {
        "what": "driver overhead per task over simulated groups",
        "command": f"make bench B=driver ARGS='--tasks {whole} --groups {arguments.groups}'",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "date": today,
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "versions": {"python": platform.python_version()},
        "ceilings": {"ms_per_task": BOUND_MS},
        "rows": rows,
    }
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
