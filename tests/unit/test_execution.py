"""Groups have names that no two share, and no more are asked for than the cluster can hold."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from jobs import driver
from jobs.asks import GroupAsks
from jobs.autoscale import ScaleLimits
from jobs.entry import compose
from jobs.execution import Batch, Execution, scale_limits
from jobs.flight import Seat
from jobs.report.console import Console
from jobs.work import EXTRACTED, MAIN
from storage.manifest import Run


def request(*overrides: str):
    (point,) = compose("steer", list(overrides), Console())
    return point


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def execution(tmp_path):
    point = request("model=toy_mla", "extract_model=toy_gqa", "cluster.groups=3")
    models = {
        role: SimpleNamespace(spec=SimpleNamespace(tensor_parallel_size=2, role=role))
        for role in (MAIN, EXTRACTED)
    }
    batch = Batch([point], models, judge=None, encoder=None, asks=GroupAsks(), run_dir=tmp_path)
    with Run.open(tmp_path) as run:
        yield Execution(batch, run, Notes())


def test_the_limits_are_the_points_own():
    assert scale_limits(request()) == ScaleLimits(least=1, most=1, bundles_per_group=4, idle_s=60.0)
    point = request(
        "cluster.groups=2",
        "cluster.max_groups=5",
        "schedule.bundles_per_group=3",
        "schedule.idle_group_s=7",
    )
    assert scale_limits(point) == ScaleLimits(least=2, most=5, bundles_per_group=3, idle_s=7.0)


def test_every_seat_has_a_name_and_a_model_of_its_own(execution, monkeypatch):
    started = []

    def start(spec, group, number, *, resident, cancelled):
        started.append((spec.role, group.name, number, resident, cancelled))

    monkeypatch.setattr(driver, "start_group", start)
    cancelled = threading.Event()
    for number, place, role in ((4, 1, MAIN), (5, 2, MAIN), (6, 1, EXTRACTED), (7, 3, EXTRACTED)):
        execution._start_group(Seat(number, place, role, cancelled))
    assert started == [
        (MAIN, "toy_mla", 4, None, cancelled),
        (MAIN, "toy_mla-2", 5, None, cancelled),
        (EXTRACTED, "toy_gqa-extract", 6, None, cancelled),
        (EXTRACTED, "toy_gqa-extract-3", 7, None, cancelled),
    ]


def test_a_small_cluster_gets_no_more_groups_than_it_holds_and_says_so(execution, monkeypatch):
    monkeypatch.setattr(driver, "room", lambda group, num_ranks: 2)
    fleet = SimpleNamespace(limits=ScaleLimits(least=3, most=3))
    execution._measure_room(fleet)
    assert fleet.limits.most == 2
    assert execution.console.lines == ["3 model groups were asked for, the cluster has room for 2"]


def test_a_cluster_with_room_for_none_still_tries_one_and_hears_why(execution, monkeypatch):
    monkeypatch.setattr(driver, "room", lambda group, num_ranks: 0)
    fleet = SimpleNamespace(limits=ScaleLimits(least=3, most=3))
    execution._measure_room(fleet)
    assert fleet.limits.most == 1


def test_a_cluster_that_may_grow_is_not_measured(execution, monkeypatch):
    execution.batch.points[0].config.cluster.autoscaling = True
    monkeypatch.setattr(driver, "room", lambda group, num_ranks: 1)
    fleet = SimpleNamespace(limits=ScaleLimits(least=3, most=3))
    execution._measure_room(fleet)
    assert fleet.limits.most == 3


def test_each_role_asks_its_own_model(execution):
    assert execution.batch.request(MAIN).model_name == "toy_mla"
    assert execution.batch.request(EXTRACTED).model_name == "toy_gqa"
    assert execution.batch.model.spec.role == MAIN


def test_attempts_of_a_long_run_are_committed_in_pieces(execution):
    for _ in range(2):
        execution.attempts.add("t", 1, "done", None, 0.0)
        execution._put_away(execution.attempts.table())
    names = [name for name in execution.run.commits() if "attempts" in name]
    assert names == [f"run-{execution.invocation}-attempts-{i:04d}" for i in (1, 2)]
    assert execution.run.read("attempts").num_rows == 3
