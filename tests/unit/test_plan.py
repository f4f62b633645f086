"""A plan is fixed before anything runs: order, deduplication and bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.request import Result
from jobs.plan import Plan, PlannedBundle
from jobs.task import make_task
from jobs.work import Ask, Context, CpuWork, GroupWork, Tables


@dataclass(frozen=True)
class Generated(GroupWork):
    """Group work of a known size that is never run."""

    size: int = 1

    @property
    def num_requests(self) -> int:
        return self.size

    def ask(self, context: Context) -> Ask:
        raise AssertionError("a plan asks nothing")

    def answer(self, context: Context, results: Sequence[Result]) -> Tables:
        raise AssertionError("a plan answers nothing")


@dataclass(frozen=True)
class Fitted(CpuWork):
    """CPU work that is never run."""

    def compute(self, context: Context) -> Tables:
        raise AssertionError("a plan computes nothing")


def group_work(name: str, size: int = 1, *, kind: str = "responses", after: Sequence[str] = ()):
    return Generated(make_task(kind, name, {"name": name}), tuple(after), size)


def cpu_work(name: str, after: Sequence[str] = ()) -> Fitted:
    return Fitted(make_task("fit", name, {"name": name}), tuple(after))


def planned(*works: GroupWork | CpuWork) -> Plan:
    plan = Plan()
    plan.add(works)
    return plan


def labels(bundle: PlannedBundle) -> list[str]:
    return [work.task.label for work in bundle.works]


def test_work_that_two_points_need_is_planned_once() -> None:
    plan = Plan()
    shared = group_work("guilt responses")
    plan.add([shared, group_work("guilt layer 2", after=[shared.task.id])])
    plan.add([shared, group_work("guilt layer 3", after=[shared.task.id])])

    assert [work.task.label for work in plan.works.values()] == [
        "guilt responses",
        "guilt layer 2",
        "guilt layer 3",
    ]
    assert [len(point) for point in plan.points] == [2, 2]
    assert plan.points[0] & plan.points[1] == {shared.task.id}


def test_work_never_stands_before_what_it_waits_for() -> None:
    late = group_work("late")

    with pytest.raises(ValueError, match=r"early waits for responses-.*, which is not planned"):
        planned(cpu_work("early", after=[late.task.id]), late)


def test_bundles_are_filled_in_order_up_to_the_limit() -> None:
    plan = planned(*(group_work(name, 3) for name in "abcde"))
    plan.form_bundles(7)

    assert [labels(bundle) for bundle in plan.bundles] == [["a", "b"], ["c", "d"], ["e"]]
    assert [bundle.num_requests for bundle in plan.bundles] == [6, 6, 3]
    assert [bundle.id for bundle in plan.bundles] == [
        "responses-b0000",
        "responses-b0001",
        "responses-b0002",
    ]


def test_a_limit_that_fits_exactly_is_used_up() -> None:
    plan = planned(*(group_work(name, 4) for name in "abcd"))
    plan.form_bundles(8)

    assert [labels(bundle) for bundle in plan.bundles] == [["a", "b"], ["c", "d"]]


def test_work_larger_than_the_limit_is_a_bundle_by_itself() -> None:
    plan = planned(group_work("small", 1), group_work("huge", 50), group_work("tiny", 1))
    plan.form_bundles(8)

    assert [labels(bundle) for bundle in plan.bundles] == [["small"], ["huge"], ["tiny"]]


def test_kinds_never_share_a_bundle() -> None:
    plan = planned(
        group_work("a"), group_work("s", kind="steering"), group_work("b"), cpu_work("fit")
    )
    plan.form_bundles(100)

    assert [labels(bundle) for bundle in plan.bundles] == [["a", "b"], ["s"]]
    assert [bundle.id for bundle in plan.bundles] == ["responses-b0000", "steering-b0001"]


def test_bundles_do_not_depend_on_what_is_done() -> None:
    """So an interrupted run answers each bundle exactly as an undisturbed one."""
    plan = planned(*(group_work(name, 2) for name in "abcdef"))
    plan.form_bundles(4)
    before = [bundle.task_ids for bundle in plan.bundles]

    done = {before[0][0], before[1][1]}
    assert len(plan.unfinished(done)) == 4
    plan.form_bundles(4)

    assert [bundle.task_ids for bundle in plan.bundles] == before


@given(
    sizes=st.lists(st.integers(1, 20), max_size=30),
    limit=st.integers(1, 40),
)
def test_every_work_is_in_exactly_one_bundle(sizes: list[int], limit: int) -> None:
    plan = planned(*(group_work(f"w{i}", size) for i, size in enumerate(sizes)))
    plan.form_bundles(limit)

    assert [label for bundle in plan.bundles for label in labels(bundle)] == [
        f"w{i}" for i in range(len(sizes))
    ]
    for bundle in plan.bundles:
        assert bundle.num_requests <= limit or len(bundle.works) == 1


def test_a_halved_bundle_keeps_every_task_once_and_in_order() -> None:
    plan = planned(*(group_work(name) for name in "abcde"))
    plan.form_bundles(10)
    left, right = plan.bundles[0].parts(alone=False)

    assert (labels(left), labels(right)) == (["a", "b"], ["c", "d", "e"])
    assert (left.id, right.id) == ("responses-b0000.0", "responses-b0000.1")
    assert (*left.task_ids, *right.task_ids) == plan.bundles[0].task_ids


def test_halving_ends_at_single_tasks() -> None:
    plan = planned(*(group_work(name) for name in "abcdefgh"))
    plan.form_bundles(10)
    bundle, steps = plan.bundles[0], 0
    while len(bundle.works) > 1:
        bundle, _ = bundle.parts(alone=False)
        steps += 1

    assert steps == 3
    assert labels(bundle) == ["a"]


def test_a_bundle_that_costs_groups_is_cut_into_single_tasks() -> None:
    plan = planned(*(group_work(name) for name in "abc"))
    plan.form_bundles(10)
    parts = plan.bundles[0].parts(alone=True)

    assert [labels(one) for one in parts] == [["a"], ["b"], ["c"]]
    assert [one.id for one in parts] == [f"responses-b0000.{i}" for i in range(3)]


def test_work_for_different_models_never_shares_a_bundle() -> None:
    ours = replace(group_work("ours"), role="model")
    theirs = replace(group_work("theirs"), role="extract_model")
    plan = planned(theirs, ours, replace(group_work("theirs again"), role="extract_model"))
    plan.form_bundles(8)

    assert [(bundle.role, labels(bundle)) for bundle in plan.bundles] == [
        ("extract_model", ["theirs", "theirs again"]),
        ("model", ["ours"]),
    ]


def test_unfinished_work_comes_in_the_plans_order() -> None:
    works = [group_work(name) for name in "abc"]
    plan = planned(*works)

    assert [w.task.label for w in plan.unfinished({works[1].task.id})] == ["a", "c"]
    assert plan.unfinished({work.task.id for work in works}) == []


def test_cpu_work_is_listed_apart() -> None:
    first = group_work("responses")
    plan = planned(first, cpu_work("one", [first.task.id]), cpu_work("two"))

    assert [work.task.label for work in plan.cpu_works()] == ["one", "two"]


def test_an_empty_plan_has_no_bundles() -> None:
    plan = Plan()
    plan.form_bundles(8)

    assert plan.bundles == []
    assert plan.unfinished(set()) == []
