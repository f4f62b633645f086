"""Bundles wait for their inputs, then for a group, in the plan's order, whatever is tried again.

Pure bookkeeping: a bundle is looked at only when something that it waits for changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from jobs.plan import PlannedBundle
from jobs.states import OPEN, TaskStates


class BundleQueue:
    """Bundles that still have something to answer, by the model that answers them."""

    def __init__(self, bundles: Sequence[PlannedBundle], states: TaskStates) -> None:
        """Args: ``bundles`` in the plan's order, those with nothing left to answer among them."""
        self._states = states
        self._places = {bundle.id: place for place, bundle in enumerate(bundles)}
        self._bundle_of: dict[str, PlannedBundle] = {}
        self._num_unready: dict[str, int] = {}
        self._ready: dict[str, list[tuple[int, str, PlannedBundle]]] = {
            bundle.role: [] for bundle in bundles
        }
        for bundle in bundles:
            if any(states[task] in OPEN for task in bundle.task_ids):
                self._enter(bundle)

    @property
    def roles(self) -> tuple[str, ...]:
        """The models that bundles of the plan need, the first to be needed first."""
        return tuple(self._ready)

    def num_ready(self, role: str) -> int:
        """Bundles that a group of this model could take now."""
        return len(self._ready.get(role, ()))

    @property
    def num_waiting(self) -> int:
        """Bundles that wait for their inputs."""
        return len(self._num_unready)

    def pop(self, role: str) -> PlannedBundle | None:
        """The next bundle for this model without its lost tasks; None when there is none."""
        heap = self._ready.get(role, [])
        while heap:
            _, _, bundle = heapq.heappop(heap)
            works = tuple(w for w in bundle.works if not self._states.is_lost(w.task.id))
            if any(self._states[work.task.id] in OPEN for work in works):
                return PlannedBundle(bundle.id, works)
        return None

    def push(self, bundle: PlannedBundle, *, place_of: str | None = None) -> None:
        """Queue a bundle whose inputs are there.

        Args:
            bundle: New here, or tried again.
            place_of: The bundle whose place it takes; None: its own, or the last.
        """
        at = self._places.get(place_of or bundle.id, len(self._places))
        self._places[bundle.id] = at
        heapq.heappush(self._ready.setdefault(bundle.role, []), (at, bundle.id, bundle))

    def note(self, tasks: Iterable[str]) -> None:
        """Tasks became ready or were lost: a bundle may have nothing left to wait for."""
        for task in tasks:
            bundle = self._bundle_of.pop(task, None)
            if bundle is None:
                continue
            self._num_unready[bundle.id] -= 1
            if not self._num_unready[bundle.id]:
                del self._num_unready[bundle.id]
                self.push(bundle)

    def _enter(self, bundle: PlannedBundle) -> None:
        unready = [task for task in bundle.task_ids if not self._states.is_ready(task)]
        if not unready:
            self.push(bundle)
            return
        self._num_unready[bundle.id] = len(unready)
        for task in unready:
            self._bundle_of[task] = bundle
