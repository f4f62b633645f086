"""One model group and the thread that serves it: every bundle sent comes back, whatever happens.

The thread starts the group, sends bundles, waits for answers, looks after an idle group, and closes
it; nobody else touches it. What happens is reported as events. It decides nothing: a group that
failed is closed, and what it had not answered comes back with the reason.
"""

from __future__ import annotations

import contextlib
import enum
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeAlias

from actors.errors import GroupClosed, GroupError, ObjectStoreFull, RequestRefused
from actors.idle import GroupClock
from actors.request import Bundle, Token
from conf.errors import UserError
from jobs.flight import Answer, Dropped, Flight, Group, Seat, StartGroup

BUSY_WAIT_S = 0.05
"""Longest wait for answers while the group could take another bundle."""
FULL_WAIT_S = 0.5
"""Longest wait otherwise, so that a lane that is closed is seen."""
IDLE_CHECK_S = 0.5
"""An idle group's ranks are looked at so often."""


class ClusterFailed(Exception):  # noqa: N818 - the name says what happened
    """The run stopped: no group can be had, or results cannot be stored."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """Keep type and message between processes."""
        return type(self), (self.message,)


class Ready(NamedTuple):
    """The group is up."""

    lane: GroupLane


class Landed(NamedTuple):
    """A bundle came back, answered or not."""

    lane: GroupLane
    flight: Flight


class Ended(NamedTuple):
    """The group is gone, or never was."""

    lane: GroupLane
    error: BaseException | None
    """None when it was closed on request."""


Event: TypeAlias = Ready | Landed | Ended


class LaneState(enum.Enum):
    """Where a lane is, as its owner knows it from the events."""

    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    """It takes no more bundles."""


class GroupLane:
    """The way to one model group.

    Attributes:
        seat: Which group.
        state: Set by the owner.
        num_flying: Bundles sent and not landed, counted by the owner.
        since_s: When the state, or the number in flight, last changed; of the monotonic clock.
        began: When the start began, seconds since the epoch.
        clock: What the group's seconds go to; None before it is up.
        keeps_time: True when the clock is ours, because the group's own is out of reach: a resident
            group's, whose time other jobs use too.
        label: What metrics call the group.
    """

    def __init__(
        self,
        seat: Seat,
        *,
        start_group: StartGroup,
        report: Callable[[Event], None],
        on_token: Callable[[Token], None] | None = None,
        max_in_flight: int = 2,
    ) -> None:
        """Args: ``on_token`` is called with every token as it is written; None: no streaming."""
        self.seat = seat
        self.state = LaneState.STARTING
        self.num_flying = 0
        self.since_s = time.monotonic()
        self.began = time.time()
        self.clock: GroupClock | None = None
        self.keeps_time = False
        self.label = ""
        self.max_in_flight = max_in_flight
        self._start_group = start_group
        self._report = report
        self._on_token = on_token
        self._inbox: SimpleQueue[tuple[Bundle, object] | None] = SimpleQueue()
        self._flying: list[Flight] = []
        self._lock = threading.Lock()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Of the group, for the record of attempts."""
        return f"group-{self.seat.number}"

    def send(self, bundle: Bundle, load: object) -> None:
        """Give the group a bundle; it comes back as ``Landed``, also when the group just ended."""
        with self._lock:
            if not self._is_over:
                self._inbox.put((bundle, load))
                return
        self._report(Landed(self, self._dropped(bundle, load)))

    def close(self) -> None:
        """Ask the group to end, now, also while it starts; ``Ended`` follows."""
        self.seat.cancelled.set()
        self._inbox.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; True when it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        expected: GroupError | UserError | None = None
        try:
            with contextlib.closing(self._start_group(self.seat)) as group:
                known: GroupClock | None = getattr(group, "clock", None)
                self.keeps_time = known is None
                self.clock = known or GroupClock("queue")
                self.label = getattr(getattr(group, "cluster", None), "name", self.name)
                self._report(Ready(self))
                self._serve(group)
        except (GroupError, UserError) as error:
            expected = error
        finally:
            error_ = expected or sys.exc_info()[1]
            self._give_back(error_)
            self._report(Ended(self, error_))

    def _serve(self, group: Group) -> None:
        """Serve until closed.

        Raises:
            GroupError: The group failed.
        """
        while True:
            order, is_new = self._next_order()
            if is_new and order is None:
                return
            if order is not None:
                self._submit(group, *order)
            elif self._flying:
                self._wait(group)
            else:
                group.check()

    def _next_order(self) -> tuple[tuple[Bundle, object] | None, bool]:
        """What was sent, and whether anything was; None stands for the order to end."""
        try:
            if self._flying:
                return self._inbox.get_nowait(), True
            return self._inbox.get(timeout=IDLE_CHECK_S), True
        except Empty:
            return None, False

    def _submit(self, group: Group, bundle: Bundle, load: object) -> None:
        began = time.time()
        answer: Answer
        try:
            if self._on_token is None:
                answer = group.submit(bundle)
            else:
                answer = group.submit(bundle, stream=True)
        except GroupClosed as error:
            self._flying.append(Flight(load, Dropped(bundle.id, error), began, self.name))
            raise
        except ObjectStoreFull as error:
            answer = Dropped(bundle.id, error, blamed=True)
        self._flying.append(Flight(load, answer, began, self.name))

    def _wait(self, group: Group) -> None:
        """Wait a little for answers, and report those that came.

        Raises:
            GroupError: Why the group answered something with more than a refusal.
        """
        answers = [flight.answer for flight in self._flying]
        is_full = len(answers) >= self.max_in_flight
        group.wait(answers, timeout_s=FULL_WAIT_S if is_full else BUSY_WAIT_S)
        if self._on_token is not None:
            for answer in answers:
                for token in answer.take_tokens():
                    self._on_token(token)
        failures = (one.answer.error for one in self._flying if one.answer.is_done)
        broken = next((e for e in failures if e and not isinstance(e, RequestRefused)), None)
        if broken is not None:
            raise broken
        landed = [flight for flight in self._flying if flight.answer.is_done]
        self._flying = [flight for flight in self._flying if not flight.answer.is_done]
        for flight in landed:
            self._report(Landed(self, flight))

    def _give_back(self, error: BaseException | None) -> None:
        """Every bundle that is still here comes back: answered, failed, or dropped."""
        reason = error if isinstance(error, GroupError) else None
        with self._lock:
            self._is_over = True
        with contextlib.suppress(Empty):
            while True:
                order = self._inbox.get_nowait()
                if order is not None:
                    self._flying.append(self._dropped(*order))
        for flight in self._flying:
            if flight.answer.is_done:
                self._report(Landed(self, flight))
                continue
            name = flight.answer.bundle_id
            why = reason or GroupClosed(doing=f"run bundle {name}", cause="it was closed")
            self._report(Landed(self, flight._replace(answer=Dropped(name, why))))
        self._flying = []

    def _dropped(self, bundle: Bundle, load: object) -> Flight:
        """A bundle that the group never saw."""
        lost = GroupClosed(doing=f"run bundle {bundle.id}", cause="the group ended before")
        return Flight(load, Dropped(bundle.id, lost), time.time(), self.name)
