"""Two groups share a plan; a rank or a node that is gone costs its bundles one retry."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.errors import RankDied
from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.request import EngineSpec, Request, Sampling
from conf.stages import ScheduleConfig
from jobs import driver
from jobs.attempts import AttemptLog
from jobs.autoscale import ScaleLimits
from jobs.fleet import Fleet
from jobs.plan import Plan
from jobs.scheduler import Scheduler
from jobs.task import Task
from jobs.work import MAIN, Ask, GroupWork

pytestmark = pytest.mark.ray

SPEC = EngineSpec(model_path="/nowhere", tensor_parallel_size=2)
# Two ranks fill a node, so the second group needs a node of its own.
CLUSTER = GroupSpec(
    name="node",
    engine="tests.fakes:FakeEngine.load",
    cpus_per_rank=1.0,
    place_timeout_s=1.0,
    stall_timeout_s=60.0,
)
NUM_TASKS, NUM_TOKENS = 40, 400


@dataclass(frozen=True)
class Asks(GroupWork):
    @property
    def num_requests(self) -> int:
        return 1

    def ask(self, context):
        sampling = Sampling(max_new_tokens=NUM_TOKENS)
        return Ask((Request(id=self.task.id, token_ids=(1, 2), sampling=sampling),), {})

    def answer(self, context, results):
        context.answers[self.task.id] = results[0].completion_ids
        return {}


class Ledger:
    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, ...]] = {}
        self.committed: list[str] = []

    def commit(self, task, tables) -> None:
        self.committed.append(task.id)

    def update(self, **_) -> None:
        pass


@pytest.fixture
def nodes():
    """A head and another node, which hold one group each."""
    small = {"num_cpus": 2, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **small})
    made.other = made.add_node(**small)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_killed_rank_costs_a_retry_and_the_other_group_finishes_the_plan(local_ray):
    alone = dataclasses.replace(SPEC, tensor_parallel_size=1)
    assert driver.room(CLUSTER, 1) == 2

    def kill(groups):
        os.kill(groups[2].processes[0].pid, signal.SIGKILL)
        return 2

    share_a_plan(alone, kill)


@pytest.mark.long
def test_a_lost_node_costs_a_retry_and_the_other_node_finishes_the_plan(nodes):
    assert driver.room(CLUSTER, 2) == 2
    here = ray.get_runtime_context().get_node_id()

    def lose_a_node(groups):
        (goes,) = [one for one in (1, 2) if groups[one].processes[0].node_id != here]
        nodes.remove_node(nodes.other, allow_graceful=False)
        return goes

    share_a_plan(SPEC, lose_a_node)


def share_a_plan(spec, lose):
    """Two groups at work, of which ``lose`` ends one and says which."""
    groups: dict[int, ModelGroup] = {}
    both = threading.Barrier(2)

    def start(seat):
        named = dataclasses.replace(CLUSTER, name=f"node-{seat.place}")
        made = ModelGroup.start(spec, named, generation=seat.number, cancelled=seat.cancelled)
        groups[seat.number] = made
        if seat.number <= 2:
            both.wait(60)
        return made

    plan, ledger, log = Plan(), Ledger(), AttemptLog("test")
    plan.add([Asks(Task(f"t{i:02d}", "ask", f"t{i}", {"i": i})) for i in range(NUM_TASKS)])
    plan.form_bundles(1)
    lost: dict[str, Any] = {}

    def lose_one():
        """Once both groups have answered something."""
        while len(ledger.committed) < 6:
            time.sleep(0.01)
        lost["at"] = time.monotonic()
        lost["group"] = lose(groups)

    scheduler = Scheduler(
        plan=plan,
        contexts={MAIN: ledger},
        fleet=Fleet(start, log, ScaleLimits(least=2, most=2)),
        settings=ScheduleConfig(),
        attempts=log,
        progress=ledger,
    )
    thread = threading.Thread(target=lose_one)
    thread.start()
    scheduler.run(done=())
    thread.join()

    goes = lost["group"]
    assert (groups[3 - goes].state.value, groups[goes].state.value) == ("closed", "failed")
    assert sorted(ledger.committed) == list(plan.works)
    assert set(ledger.answers.values()) == {tuple(range(3, 3 + NUM_TOKENS))}
    retries = [row for row in log.rows if row["outcome"] == "retry" and row["attempt"] == 1]
    assert {(row["error_type"], row["group"]) for row in retries if row["group"]} >= {
        (RankDied.__name__, f"group-{goes}")
    }
    assert time.monotonic() - lost["at"] < 60
