"""A task is in exactly one state, and every step from one to the next costs the same.

Whoever finishes or fails a task learns at once which tasks became ready or were lost with it, so
nobody has to look through the plan, however long it is.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from jobs.work import Work


class State(enum.Enum):
    """Where a task is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    """A task that it waits for failed."""


OPEN = (State.PENDING, State.RUNNING)


class TaskStates:
    """The states of a plan's tasks, with what each of them still waits for.

    Attributes:
        by_task: State of each task, in the plan's order.
    """

    def __init__(self, works: Mapping[str, Work], done: Collection[str]) -> None:
        """Args: ``done`` are the tasks that are committed already."""
        self.by_task = {task: State.DONE if task in done else State.PENDING for task in works}
        self._counts = Counter(self.by_task.values())
        self._waiting_for: dict[str, int] = {}
        self._children: dict[str, list[str]] = {}
        self._lost: set[str] = set()
        for task, work in works.items():
            missing = {one for one in work.after if self.by_task[one] is not State.DONE}
            if missing:
                self._waiting_for[task] = len(missing)
            for one in missing:
                self._children.setdefault(one, []).append(task)

    @property
    def num_open(self) -> int:
        """Tasks that may still get a result."""
        return sum(self._counts[state] for state in OPEN)

    @property
    def counts(self) -> dict[str, int]:
        """Tasks in each state that any is in."""
        return {state.value: count for state, count in self._counts.items() if count}

    def count(self, state: State) -> int:
        """Tasks in one state."""
        return self._counts[state]

    def is_ready(self, task: str) -> bool:
        """True when everything that the task waits for is done."""
        return task not in self._waiting_for

    def is_lost(self, task: str) -> bool:
        """True when something that the task reads will never exist."""
        return task in self._lost

    def __getitem__(self, task: str) -> State:
        return self.by_task[task]

    def set(self, task: str, state: State) -> None:
        """Move a task between PENDING and RUNNING."""
        self._counts[self.by_task[task]] -= 1
        self._counts[state] += 1
        self.by_task[task] = state

    def finish(self, task: str) -> list[str]:
        """Make a task DONE; returns the tasks that have nothing left to wait for."""
        self.set(task, State.DONE)
        ready = []
        for child in self._children.pop(task, ()):
            self._waiting_for[child] -= 1
            if not self._waiting_for[child]:
                del self._waiting_for[child]
                ready.append(child)
        return ready

    def fail(self, task: str) -> list[str]:
        """Make a task FAILED and block what waits for it; returns all that is lost with it."""
        self.set(task, State.FAILED)
        lost: list[str] = []
        following = list(self._children.pop(task, ()))
        while following:
            child = following.pop()
            if child not in self._lost:
                self._lost.add(child)
                lost.append(child)
                following += self._children.get(child, ())
        for child in lost:
            if self.by_task[child] is State.PENDING:
                self.set(child, State.BLOCKED)
        return lost

    def ready(self, tasks: Iterable[str]) -> list[str]:
        """Those of these tasks that wait to be run and have nothing left to wait for."""
        return [
            task for task in tasks if self.by_task[task] is State.PENDING and self.is_ready(task)
        ]
