"""Jobs share a group by work done, not by how much they ask: none starves, each knows its place.

Higher priority goes first. Within a priority the job that has been served least goes next, one
bundle at a time. A job that joins late starts level with the others, without credit for the past.
Pure bookkeeping: no clock, no threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from actors.request import Bundle


@dataclass(slots=True)
class Entry:
    """One bundle of one job."""

    ticket: str
    job: str
    bundle: Bundle
    priority: int = 0
    """Higher goes first."""
    is_solo: bool = False
    """True keeps it from sharing a batch: it was there when a group died."""
    run: str = ""
    """Names the run. Bundles of one run never share a batch: a killed driver and its successor are
    two jobs of one run, whose results must not depend on the kill."""

    @property
    def cost(self) -> int:
        """Tokens it may take at most: read and generated."""
        return sum(len(one.token_ids) + one.sampling.max_new_tokens for one in self.bundle.requests)


class FairQueue:
    """Bundles of many jobs in the order in which they will run."""

    def __init__(self, *, max_requests: int) -> None:
        """Args: ``max_requests`` of different jobs share a batch, at most."""
        self._max_requests = max_requests
        self._waiting: dict[str, deque[Entry]] = {}
        self._served: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, entry: Entry) -> None:
        """Queue a bundle behind those of its job."""
        self._join(entry.job).append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Return bundles that were taken and not answered, ahead of their job's others."""
        for entry in reversed(list(entries)):
            self._join(entry.job).appendleft(entry)
            self._served[entry.job] -= entry.cost

    def take(self) -> list[Entry]:
        """The next batch: one bundle, and bundles of other jobs that can run beside it."""
        batch: list[Entry] = []
        for entry in self.order(first_of_each=True):
            if not batch or self._fits(entry, batch):
                batch.append(entry)
        for entry in batch:
            self._waiting[entry.job].popleft()
            self._served[entry.job] += entry.cost
        return batch

    def drop(self, job: str) -> list[Entry]:
        """Forget a job; returns the bundles it had waiting."""
        self._served.pop(job, None)
        return list(self._waiting.pop(job, ()))

    def order(self, *, first_of_each: bool = False) -> list[Entry]:
        """Waiting bundles in the order they would run, if nobody else came.

        Args:
            first_of_each: Give the next bundle of each job only.
        """
        served = dict(self._served)
        jobs = {job: iter(entries) for job, entries in self._waiting.items() if entries}
        heads = {job: next(entries) for job, entries in jobs.items()}
        ordered: list[Entry] = []
        while heads:
            job = max(heads, key=lambda one: (heads[one].priority, -served[one]))
            ordered.append(entry := heads.pop(job))
            served[job] += entry.cost
            following = None if first_of_each else next(jobs[job], None)
            if following is not None:
                heads[job] = following
        return ordered

    def _join(self, job: str) -> deque[Entry]:
        """Count a job from now on, level with the one that has had least."""
        if job not in self._served:
            self._served[job] = min(self._served.values(), default=0)
            self._waiting[job] = deque()
        return self._waiting[job]

    def _fits(self, entry: Entry, batch: list[Entry]) -> bool:
        """True when this bundle can share a batch with these."""
        if entry.is_solo or any(one.is_solo for one in batch):
            return False
        if entry.run and any(one.run == entry.run for one in batch):
            return False
        requests = [request for one in batch for request in one.bundle.requests]
        known = {one.id for one in requests}
        return len(requests) + len(entry.bundle.requests) <= self._max_requests and not any(
            one.id in known for one in entry.bundle.requests
        )
