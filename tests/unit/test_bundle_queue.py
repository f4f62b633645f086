"""Bundles come out in the plan's order as soon as their inputs are there, also a second time."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.bundle_queue import BundleQueue
from jobs.plan import Plan, PlannedBundle
from jobs.states import TaskStates
from jobs.task import Task
from jobs.work import GroupWork


@dataclass(frozen=True)
class Asked(GroupWork):
    @property
    def num_requests(self) -> int:
        return 1

    def ask(self, context):
        raise AssertionError("never asked")

    def answer(self, context, results):
        raise AssertionError("never answered")


def work(name: str, *after: str, kind: str = "ask", role: str = "model") -> Asked:
    return Asked(Task(name, kind, name, {"name": name}), after, role=role)


def queue_of(*works: Asked, size: int = 1, done=()):
    plan = Plan()
    plan.add(works)
    plan.form_bundles(size)
    states = TaskStates(plan.works, done)
    return BundleQueue(plan.bundles, states), states


def drain(queue: BundleQueue, role: str = "model") -> list[tuple[str, ...]]:
    found = []
    while (bundle := queue.pop(role)) is not None:
        found.append(bundle.task_ids)
    return found


def test_bundles_come_in_the_plans_order():
    queue, _ = queue_of(work("a"), work("b"), work("c"))
    assert queue.num_ready("model") == 3
    assert drain(queue) == [("a",), ("b",), ("c",)]
    assert queue.pop("model") is None


def test_a_bundle_waits_for_the_inputs_of_all_its_tasks():
    queue, states = queue_of(
        work("a"), work("b"), work("s1", "a", kind="steer"), work("s2", "b", kind="steer"), size=2
    )
    assert queue.num_waiting == 1
    assert drain(queue) == [("a", "b")]
    queue.note(states.finish("a"))
    assert queue.num_ready("model") == 0
    queue.note(states.finish("b"))
    assert drain(queue) == [("s1", "s2")]
    assert queue.num_waiting == 0


def test_a_bundle_whose_tasks_are_all_done_is_not_queued_and_a_mixed_one_is_whole():
    queue, _ = queue_of(work("a"), work("b"), work("c"), work("d"), size=2, done=["a", "b", "c"])
    assert drain(queue) == [("c", "d")]


def test_a_lost_task_leaves_its_bundle_and_the_others_go():
    queue, states = queue_of(
        work("a"), work("b"), work("s1", "a", kind="steer"), work("s2", "b", kind="steer"), size=2
    )
    queue.pop("model")
    queue.note(states.finish("b"))
    queue.note(states.fail("a"))
    assert drain(queue) == [("s2",)]


def test_a_bundle_of_lost_tasks_never_comes():
    queue, states = queue_of(work("a"), work("s", "a", kind="steer"))
    queue.pop("model")
    queue.note(states.fail("a"))
    assert queue.pop("model") is None


def test_what_is_tried_again_keeps_its_place():
    queue, _ = queue_of(work("a"), work("b"), work("c"))
    first = queue.pop("model")
    assert first is not None
    queue.push(first)
    assert drain(queue) == [("a",), ("b",), ("c",)]


def test_halves_stand_where_the_whole_stood():
    queue, _ = queue_of(work("a"), work("b"), work("c"), work("d"), work("e"), size=2)
    first = queue.pop("model")
    assert first is not None
    for half in first.parts(alone=False):
        queue.push(half, place_of=first.id)
    assert drain(queue) == [("a",), ("b",), ("c", "d"), ("e",)]
    queue.push(first.parts(alone=False)[1])
    assert drain(queue) == [("b",)]


def test_a_single_task_that_is_tried_again_goes_last():
    queue, _ = queue_of(work("a"), work("b"), work("c"))
    queue.pop("model")
    queue.push(PlannedBundle("a-again", (work("a"),)))
    assert drain(queue) == [("b",), ("c",), ("a",)]


def test_each_model_has_a_line_of_its_own_in_the_order_they_are_needed():
    queue, _ = queue_of(work("r", role="extract_model"), work("s", kind="steer"))
    assert queue.roles == ("extract_model", "model")
    assert drain(queue) == [("s",)]
    assert drain(queue, "extract_model") == [("r",)]
    assert queue.pop("nobody") is None
