"""A plan is fixed before anything runs: its tasks, what each waits for, and which share a bundle.

Bundles are formed from the whole list, finished tasks included, and a bundle with any unfinished
task runs whole. So an interrupted run answers each bundle exactly as an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from jobs.work import CpuWork, GroupWork, Work


@dataclass(frozen=True)
class PlannedBundle:
    """Work that goes to the group together: the unit of scheduling and of retry."""

    id: str
    works: tuple[GroupWork, ...]

    @property
    def task_ids(self) -> tuple[str, ...]:
        """In the order of the works."""
        return tuple(work.task.id for work in self.works)

    @property
    def role(self) -> str:
        """Which of the run's models answers it."""
        return self.works[0].role

    @property
    def num_requests(self) -> int:
        """Sequences in the bundle."""
        return sum(work.num_requests for work in self.works)

    def parts(self, *, alone: bool) -> tuple[PlannedBundle, ...]:
        """Smaller bundles, to find the task that a group refuses or does not survive.

        Args:
            alone: True: every task by itself, where each further failure would cost a group; else
                two halves.
        """
        middle = len(self.works) // 2
        cuts: list[tuple[GroupWork, ...]] = [(one,) for one in self.works]
        if not alone:
            cuts = [self.works[:middle], self.works[middle:]]
        return tuple(PlannedBundle(f"{self.id}.{i}", works) for i, works in enumerate(cuts))


@dataclass
class Plan:
    """Deduplicated work in a fixed order, and the points that asked for it."""

    works: dict[str, Work] = field(default_factory=dict)
    """By task id, every task after those it waits for."""
    points: list[set[str]] = field(default_factory=list)
    """For each point of the sweep, the tasks that it needs."""
    bundles: list[PlannedBundle] = field(default_factory=list)

    def add(self, works: Iterable[Work]) -> None:
        """Add one point's work; a task that another point also needs is kept once."""
        needed: set[str] = set()
        for work in works:
            missing = [task for task in work.after if task not in self.works]
            if missing:
                raise ValueError(f"{work.task.label} waits for {missing[0]}, which is not planned")
            self.works.setdefault(work.task.id, work)
            needed.add(work.task.id)
        self.points.append(needed)

    def form_bundles(self, max_requests: int) -> None:
        """Pack group work of one kind and model, in the plan's order, into bundles of so many."""
        self.bundles = []
        alike: dict[tuple[str, str], list[GroupWork]] = {}
        for work in self.works.values():
            if isinstance(work, GroupWork):
                alike.setdefault((work.role, work.task.kind), []).append(work)
        for (_, kind), some in alike.items():
            for works in _packed(some, max_requests):
                self.bundles.append(PlannedBundle(f"{kind}-b{len(self.bundles):04d}", works))

    def unfinished(self, done: Collection[str]) -> list[Work]:
        """Work without committed results, in order."""
        return [work for task, work in self.works.items() if task not in done]

    def cpu_works(self) -> list[CpuWork]:
        """Work for the driver's CPUs, in order."""
        return [work for work in self.works.values() if isinstance(work, CpuWork)]


def _packed(works: Sequence[GroupWork], max_requests: int) -> Iterable[tuple[GroupWork, ...]]:
    """Consecutive works up to the limit; one that is larger alone is a bundle by itself."""
    current: list[GroupWork] = []
    size = 0
    for work in works:
        if current and size + work.num_requests > max_requests:
            yield tuple(current)
            current, size = [], 0
        current.append(work)
        size += work.num_requests
    if current:
        yield tuple(current)
