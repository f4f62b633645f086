"""One group, many jobs: every ticket gets an answer or an error, and an unused group goes away.

Independent of Ray, so that it is tested without processes. Callers' threads submit and poll; one
thread of its own, ``serve``, owns the group. A group that dies is started again; the bundle that
was running gets the error, those that waited are sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from actors.errors import EngineOutOfDate, GroupClosed, GroupError, RequestRefused
from actors.fair_queue import Entry, FairQueue
from actors.merge import merge, split
from actors.pending import Answer, Group
from actors.request import Bundle, ModelInfo, Reply
from conf.errors import UserError

STEP_S = 0.2
"""The serving thread looks up from waiting this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidenceSpec:
    """Limits of a resident group."""

    idle_timeout_s: float = 1800.0
    """The group ends after so long without work. Starting counts as work."""
    job_timeout_s: float = 120.0
    """A job that asked nothing for so long is gone; its waiting bundles are dropped."""
    max_starts: int = 2
    """Starts that fail in a row before the residence gives up."""
    max_requests: int = 256
    """Requests of different jobs in one batch, at most."""
    max_in_flight: int = 2
    """Batches sent to the group at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a ticket ended."""

    reply: Reply | None = None
    error: Exception | None = None
    blamed: bool = False


class Residence:
    """The queue in front of one group, and the group's life."""

    def __init__(self, start_group: Callable[[int], Group], spec: ResidenceSpec) -> None:
        self.state = "starting"
        self.generation = 0
        self.error: str | None = None
        self._start_group = start_group
        self._spec = spec
        self._queue = FairQueue(max_requests=spec.max_requests)
        self._changed = threading.Condition()
        self._outcomes: dict[str, Outcome] = {}
        self._owner: dict[str, str] = {}
        self._seen_s: dict[str, float] = {}
        self._flying: list[tuple[list[Entry], Answer, float]] = []
        self._num_tickets = 0
        self._used_s = time.monotonic()
        self._tokens_per_s: float | None = None
        self._stopping = False
        self._info: ModelInfo | None = None

    def submit(self, job: str, bundle: Bundle, *, priority: int = 0, run: str = "") -> str:
        """Queue a bundle of a run; returns its ticket.

        Raises:
            GroupClosed: The residence has ended.
        """
        with self._changed:
            if self.state not in ("starting", "ready"):
                raise GroupClosed(
                    doing=f"run bundle {bundle.id}", cause=self.error or f"it is {self.state}"
                )
            self._num_tickets += 1
            ticket = f"t{self._num_tickets}"
            self._owner[ticket] = job
            self._seen_s[job] = time.monotonic()
            self._queue.add(Entry(ticket, job, bundle, priority=priority, run=run))
            self._changed.notify_all()
            return ticket

    def poll(self, job: str, tickets: Sequence[str], *, timeout_s: float) -> dict[str, Outcome]:
        """Wait for the first of these; a ticket's outcome is given once."""
        with self._changed:
            self._seen_s[job] = time.monotonic()
            self._changed.wait_for(
                lambda: any(one in self._outcomes for one in tickets), timeout=timeout_s
            )
            self._seen_s[job] = time.monotonic()
            done = {one: self._outcomes.pop(one) for one in tickets if one in self._outcomes}
            for ticket in done:
                self._owner.pop(ticket, None)
            return done

    def cancel(self, job: str) -> int:
        """Drop what a job has waiting; what runs is finished and forgotten. Returns how many."""
        with self._changed:
            self._seen_s.pop(job, None)
            for ticket in [one for one, owner in self._owner.items() if owner == job]:
                self._owner.pop(ticket)
                self._outcomes.pop(ticket, None)
            return len(self._queue.drop(job))

    def stop(self) -> None:
        """Ask the serving thread to end the group; open tickets get ``GroupClosed``."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def describe(self) -> dict[str, object]:
        """Where everything stands, as plain data."""
        with self._changed:
            now_s = time.monotonic()
            busy = bool(self._flying) or len(self._queue) > 0 or self.state == "starting"
            return {
                "state": self.state,
                "generation": self.generation,
                "error": self.error,
                "model": None if self._info is None else asdict(self._info),
                "idle_s": 0.0 if busy else now_s - self._used_s,
                "idle_timeout_s": self._spec.idle_timeout_s,
                "tokens_per_s": self._tokens_per_s,
                "running": [
                    {"job": one.job, "bundle": one.bundle.id, "for_s": now_s - began_s}
                    for batch, _, began_s in self._flying
                    for one in batch
                ],
                "jobs": sorted(self._seen_s),
                "queue": self._places(),
            }

    def serve(self) -> None:
        """Own the group until it is stopped, unused for too long, or cannot be started."""
        group: Group | None = None
        num_failed_starts = 0
        while not self._stopping:
            if group is None:
                try:
                    group = self._begin()
                except (GroupError, UserError) as error:
                    num_failed_starts += 1
                    is_final = isinstance(error, UserError | EngineOutOfDate)
                    if is_final or num_failed_starts >= self._spec.max_starts:
                        self._finish("failed", error)
                        return
                else:
                    num_failed_starts = 0
                continue
            self._send(group)
            try:
                self._wait(group)
            except GroupError:
                self._lose(group)
                group = None
            if self._is_unused():
                break
        if group is not None:
            group.close()
        self._finish("closed", None)

    def _begin(self) -> Group:
        """Start the group (again)."""
        with self._changed:
            self.state = "starting"
            self.generation += 1
        group = self._start_group(self.generation)
        with self._changed:
            self.state = "ready"
            self._info = group.info
            self._used_s = time.monotonic()
        return group

    def _send(self, group: Group) -> None:
        """Keep the group supplied."""
        with self._changed:
            while len(self._flying) < self._spec.max_in_flight and len(self._queue):
                batch = self._queue.take()
                try:
                    answer = group.submit(merge([one.bundle for one in batch]))
                except GroupClosed:
                    self._queue.put_back(batch)
                    return
                except RequestRefused as error:  # there was no room for it
                    for entry in batch:
                        self._deliver(entry, Outcome(error=error, blamed=True))
                    continue
                self._flying.append((batch, answer, time.monotonic()))

    def _wait(self, group: Group) -> None:
        """Wait for an answer, or for work.

        Raises:
            GroupError: The group died.
        """
        if not self._flying:
            group.check()
            with self._changed:
                if not len(self._queue) and not self._stopping:
                    self._changed.wait(STEP_S)
            self._forget_absent_jobs()
            return
        group.wait([answer for _, answer, _ in self._flying], timeout_s=STEP_S)
        self._used_s = time.monotonic()
        done = [one for one in self._flying if one[1].is_done]
        for _, answer, _ in done:
            if answer.error is not None and not isinstance(answer.error, RequestRefused):
                raise answer.error
        for flight in done:
            self._settle(*flight)
            self._flying.remove(flight)

    def _settle(self, batch: list[Entry], answer: Answer, began_s: float) -> None:
        """Give a batch's jobs their parts, or their error, or another try."""
        error = answer.error
        if error is None:
            replies = split(answer.reply(), [one.bundle for one in batch])
            self._note_rate(sum(one.cost for one in batch), time.monotonic() - began_s)
            for entry, reply in zip(batch, replies, strict=True):
                self._deliver(entry, Outcome(reply=reply))
        elif answer.blamed and len(batch) == 1:
            self._deliver(batch[0], Outcome(error=error, blamed=True))
        else:
            # Whichever of a shared batch is to blame shows when each runs by itself.
            for entry in batch:
                entry.is_solo = entry.is_solo or answer.blamed
            with self._changed:
                self._queue.put_back([one for one in batch if one.ticket in self._owner])

    def _lose(self, group: Group) -> None:
        """The group died: settle what it held and let go of it."""
        group.close()  # ends every open bundle, so that all of them can be settled
        for flight in self._flying:
            self._settle(*flight)
        self._flying = []

    def _deliver(self, entry: Entry, outcome: Outcome) -> None:
        """Keep an outcome for its job, if that still wants it."""
        with self._changed:
            if entry.ticket in self._owner:
                self._outcomes[entry.ticket] = outcome
            self._changed.notify_all()

    def _finish(self, state: str, error: Exception | None) -> None:
        """Answer every open ticket: there will be no more."""
        with self._changed:
            self.state = state
            self.error = None if error is None else str(error)
            reason = error or GroupClosed(doing="run a bundle", cause="the resident group ended")
            for ticket in self._owner:
                self._outcomes.setdefault(ticket, Outcome(error=reason))
            self._changed.notify_all()

    def _is_unused(self) -> bool:
        """True when nobody has used the group for too long."""
        with self._changed:
            busy = bool(self._flying) or len(self._queue) > 0 or self.state != "ready"
            unused = not busy and time.monotonic() - self._used_s > self._spec.idle_timeout_s
            if unused:
                self.state = "closing"  # nobody slips in between this look and the end
            return unused

    def _forget_absent_jobs(self) -> None:
        """Drop jobs whose driver is gone."""
        limit_s = time.monotonic() - self._spec.job_timeout_s
        for job in [one for one, seen_s in self._seen_s.items() if seen_s < limit_s]:
            self.cancel(job)

    def _note_rate(self, tokens: int, seconds: float) -> None:
        """Tokens per second, smoothed: what the estimates of waiting go by."""
        rate = tokens / max(seconds, 1e-3)
        known = self._tokens_per_s
        self._tokens_per_s = rate if known is None else 0.7 * known + 0.3 * rate

    def _places(self) -> list[dict[str, object]]:
        """Everything that waits, with its position and the seconds until it is answered."""
        places: list[dict[str, object]] = []
        tokens = sum(one.cost for batch, _, _ in self._flying for one in batch)
        for position, entry in enumerate(self._queue.order()):
            tokens += entry.cost
            rate = self._tokens_per_s
            places.append(
                {
                    "ticket": entry.ticket,
                    "job": entry.job,
                    "bundle": entry.bundle.id,
                    "priority": entry.priority,
                    "position": position,
                    "eta_s": None if rate is None else tokens / rate,
                }
            )
        return places
