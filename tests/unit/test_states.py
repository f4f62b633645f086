"""A task is in one state; whoever finishes or fails it learns what that changes, and no more."""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobs.states import OPEN, State, TaskStates
from jobs.task import Task
from jobs.work import CpuWork


@dataclass(frozen=True)
class Planned(CpuWork):
    def compute(self, context):
        raise AssertionError("never run")


def works(**after: tuple[str, ...]):
    return {
        name: Planned(Task(name, "kind", name, {"name": name}), before)
        for name, before in after.items()
    }


CHAIN = works(a=(), b=(), fit=("a", "b"), steer=("fit",), other=())


def test_a_task_is_ready_when_the_last_of_its_inputs_is_done():
    states = TaskStates(CHAIN, done=())
    assert states.ready(CHAIN) == ["a", "b", "other"]
    assert states.finish("a") == []
    assert states.finish("b") == ["fit"]
    assert not states.is_ready("steer")
    assert states.finish("fit") == ["steer"]


def test_what_was_done_before_counts():
    states = TaskStates(CHAIN, done=["a", "b"])
    assert states.ready(CHAIN) == ["fit", "other"]
    assert states.counts == {"done": 2, "pending": 3}
    assert states.num_open == 3


def test_a_failed_task_takes_along_all_that_builds_on_it():
    states = TaskStates(CHAIN, done=())
    assert sorted(states.fail("a")) == ["fit", "steer"]
    assert [states[one] for one in CHAIN] == [
        State.FAILED,
        State.PENDING,
        State.BLOCKED,
        State.BLOCKED,
        State.PENDING,
    ]
    assert states.is_lost("steer")
    assert not states.is_lost("b")
    assert states.num_open == 2


def test_a_finished_task_stays_done_when_its_input_is_lost_but_is_not_asked_again():
    states = TaskStates(works(a=(), steer=("a",)), done=["steer"])
    assert states.fail("a") == ["steer"]
    assert states["steer"] is State.DONE
    assert states.is_lost("steer")


def test_an_input_named_twice_is_waited_for_once():
    states = TaskStates(works(a=(), b=("a", "a")), done=())
    assert states.finish("a") == ["b"]


def test_a_task_lost_twice_is_told_once():
    states = TaskStates(works(a=(), b=(), c=("a", "b")), done=())
    assert states.fail("a") == ["c"]
    assert states.fail("b") == []


def test_counts_follow_every_step():
    states = TaskStates(CHAIN, done=())
    states.set("a", State.RUNNING)
    assert states.counts == {"pending": 4, "running": 1}
    states.set("a", State.PENDING)
    assert states.count(State.RUNNING) == 0
    states.finish("a")
    states.fail("b")
    assert states.counts == {"done": 1, "failed": 1, "blocked": 2, "pending": 1}


def test_any_order_of_steps_agrees_with_looking_through_the_whole_plan():
    draw = random.Random(7)
    names = [f"t{i}" for i in range(60)]
    plan = works(
        **{
            name: tuple(draw.sample(names[:i], min(i, draw.randint(0, 3))))
            for i, name in enumerate(names)
        }
    )
    states = TaskStates(plan, done=())
    told = set(states.ready(plan))
    while told:
        name = draw.choice(sorted(told))
        told.remove(name)
        if draw.random() < 0.1:
            told -= set(states.fail(name))
        else:
            told |= {one for one in states.finish(name) if not states.is_lost(one)}
        for task, work in plan.items():
            open_inputs = [one for one in work.after if states[one] is not State.DONE]
            assert states.is_ready(task) == (not open_inputs)
            if states[task] is State.BLOCKED:
                assert any(states[one] in (State.FAILED, State.BLOCKED) for one in work.after)
    assert not any(states[name] in OPEN for name in names)
