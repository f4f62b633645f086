"""Any number of groups serve one plan: a dead one is replaced while the others work on.

The fleet starts, supplies and ends groups; how many of which model is decided in
``jobs.autoscale``. It belongs to one thread, the scheduler's; the groups report to its queue.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from actors.errors import GroupError, RequestRefused
from actors.idle import GroupClock, Use
from actors.request import Bundle, Token
from jobs.attempts import AttemptLog
from jobs.autoscale import Load, ScaleLimits, decide
from jobs.failure import Decision
from jobs.failure import decide as decide_failure
from jobs.flight import Flight, Seat, StartGroup
from jobs.lane import ClusterFailed, Event, GroupLane, Landed, LaneState, Ready

logger = logging.getLogger(__name__)

PARK_S = 60.0
"""After a start that failed while other groups are up, no other is tried for so long."""
CLOSE_S = 15.0
"""For the groups to be gone at the end."""


@dataclass
class Fleet:
    """The model groups of one run."""

    start_group: StartGroup
    attempts: AttemptLog
    limits: ScaleLimits = field(default_factory=ScaleLimits)
    on_token: Callable[[Token], None] | None = None
    note_use: Callable[[str, GroupClock, Use], None] | None = None
    """Books a group's time until now, and says what it does from now on."""
    max_in_flight: int = 2
    """Bundles at one group: the next one is there before the last one is answered."""
    num_started: int = 0
    num_answered: int = 0
    most_at_once: int = 0
    """Groups that were ready at the same time."""
    up_s: float = 0.0
    """Seconds for which groups were ready, added up."""
    uses: Counter[str] = field(default_factory=Counter)
    """Seconds of groups that ended, by what they went to."""
    events: SimpleQueue[Event | None] = field(default_factory=SimpleQueue)
    """What happened; anybody may put None to wake the scheduler."""
    _lanes: list[GroupLane] = field(default_factory=list)
    _flying: dict[int, object] = field(default_factory=dict)
    _ready_s: dict[int, float] = field(default_factory=dict)
    _failed_starts: int = 0
    _parked_until_s: float = 0.0

    @property
    def num_flying(self) -> int:
        """Bundles at groups."""
        return len(self._flying)

    @property
    def loads(self) -> list[object]:
        """What the senders of the bundles at groups want back, the oldest first."""
        return list(self._flying.values())

    @property
    def num_up(self) -> int:
        """Groups that are ready or starting."""
        return sum(lane.state is not LaneState.ENDING for lane in self._lanes)

    @property
    def _roles_up(self) -> set[str]:
        return {lane.seat.role for lane in self._lanes}

    def adjust(self, waiting: Mapping[str, int]) -> None:
        """Start and stop groups as the work asks for.

        Args:
            waiting: Bundles that a group could take now, by model in the plan's order.
        """
        limits, now_s = self.limits, time.monotonic()
        # The judge's model may be up and have no bundle in the plan; it holds a place all the same.
        waiting = {**waiting, **{one: waiting.get(one, 0) for one in self._roles_up}}
        if now_s < self._parked_until_s:
            limits = dataclasses.replace(limits, most=max(1, self.num_up))
        loads = [self._load(role, count, now_s) for role, count in waiting.items()]
        for role, change in zip(waiting, decide(loads, limits), strict=True):
            for _ in range(change.start):
                self._start(role)
            for lane in self._idle(role)[: change.stop]:
                logger.info("%s ends: nothing for it to do", lane.name)
                self._end(lane)

    def lane_for(self, role: str, waiting: int) -> GroupLane | None:
        """The group of this model that should get the next bundle; None when all have enough.

        A group that is at work gets a second bundle only when groups that are starting would not
        go without one.
        """
        best: GroupLane | None = None
        starting = 0
        for lane in self._lanes:
            if lane.seat.role != role:
                continue
            if lane.state is LaneState.STARTING:
                starting += 1
            elif lane.state is LaneState.READY and lane.num_flying < self.max_in_flight:
                if not lane.num_flying:
                    return lane
                if best is None or lane.num_flying < best.num_flying:
                    best = lane
        return best if waiting > starting else None

    def send(self, lane: GroupLane, bundle: Bundle, load: object) -> None:
        """Give a group a bundle."""
        self._flying[id(load)] = load
        lane.num_flying += 1
        if lane.keeps_time and lane.clock is not None:
            lane.clock.switch("busy")
        lane.send(bundle, load)

    def blame(self, why: Use) -> None:
        """Book the time of groups that have nothing to do to what keeps work from them."""
        for lane in self._lanes:
            if lane.state is not LaneState.READY or lane.num_flying or lane.clock is None:
                continue
            if lane.keeps_time:
                lane.clock.switch(why)
            elif self.note_use is not None and lane.clock.use != "busy":
                self.note_use(lane.label, lane.clock, why)

    def wait(self, timeout_s: float) -> list[Flight]:
        """Wait for something to happen; returns the bundles that came back.

        Raises:
            ClusterFailed: No group is left and none can be started.
            UserError: The ranks found, while they loaded, that the request cannot be met.
        """
        flights: list[Flight] = []
        try:
            event = self.events.get(timeout=timeout_s)
            while True:
                if event is not None and (flight := self._take(event)) is not None:
                    flights.append(flight)
                event = self.events.get_nowait()
        except Empty:
            return flights

    def close(self) -> list[object]:
        """End every group; returns the loads of bundles that had no answer yet."""
        for lane in self._lanes:
            lane.close()
        deadline_s = time.monotonic() + CLOSE_S
        for lane in list(self._lanes):
            if not lane.join(max(0.0, deadline_s - time.monotonic())):
                logger.warning("%s did not end within %g s", lane.name, CLOSE_S)
            self._forget(lane)
        left = list(self._flying.values())
        self._flying.clear()
        return left

    def _take(self, event: Event) -> Flight | None:
        lane = event.lane
        if isinstance(event, Ready):
            self._failed_starts = 0
            self._ready_s[lane.seat.number] = lane.since_s = time.monotonic()
            if lane.state is LaneState.STARTING:
                lane.state = LaneState.READY
            ready = sum(one.state is LaneState.READY for one in self._lanes)
            self.most_at_once = max(self.most_at_once, ready)
        elif isinstance(event, Landed):
            error = event.flight.answer.error
            self._flying.pop(id(event.flight.load), None)
            lane.num_flying -= 1
            lane.since_s = time.monotonic()
            self.num_answered += error is None
            if error is not None and not isinstance(error, RequestRefused):
                lane.state = LaneState.ENDING
            return event.flight
        else:
            self._judge_end(lane, event.error, was_ready=self._forget(lane))
        return None

    def _judge_end(self, lane: GroupLane, error: BaseException | None, *, was_ready: bool) -> None:
        """A group ended by itself: it is replaced when there is work, unless it cannot start."""
        if error is None or lane.seat.cancelled.is_set():
            return
        if not isinstance(error, GroupError):
            raise error
        if was_ready:
            logger.warning("%s is gone: %s", lane.name, error)
            return
        self._failed_starts += 1
        attempt = self._failed_starts
        decision = decide_failure(error, attempt=attempt)
        self.attempts.add("model group", attempt, decision.value, error, lane.began, lane.name)
        if decision is Decision.RETRY:
            logger.warning("%s did not start: %s; another one is started", lane.name, error)
            return
        if not self.num_up:
            raise ClusterFailed(str(error)) from error
        logger.warning("%s; going on with %d group(s)", error, self.num_up)
        self._parked_until_s = time.monotonic() + PARK_S

    def _load(self, role: str, waiting: int, now_s: float) -> Load:
        mine = [lane for lane in self._lanes if lane.seat.role == role]
        return Load(
            waiting=waiting,
            flying=sum(lane.num_flying for lane in mine),
            up=sum(lane.state is not LaneState.ENDING for lane in mine),
            idle_s=tuple(now_s - lane.since_s for lane in self._idle(role)),
            leaving=sum(lane.state is LaneState.ENDING for lane in mine),
        )

    def _idle(self, role: str) -> list[GroupLane]:
        """Ready groups without work, the youngest first."""
        idle = [
            lane
            for lane in self._lanes
            if lane.seat.role == role and lane.state is LaneState.READY and not lane.num_flying
        ]
        return sorted(idle, key=lambda lane: -lane.seat.number)

    def _start(self, role: str) -> None:
        self.num_started += 1
        taken = {lane.seat.place for lane in self._lanes if lane.seat.role == role}
        place = next(one for one in range(1, len(taken) + 2) if one not in taken)
        seat = Seat(self.num_started, place, role, threading.Event())
        lane = GroupLane(
            seat,
            start_group=self.start_group,
            report=self.events.put,
            on_token=self.on_token,
            max_in_flight=self.max_in_flight,
        )
        self._lanes.append(lane)

    def _end(self, lane: GroupLane) -> None:
        lane.state = LaneState.ENDING
        lane.close()

    def _forget(self, lane: GroupLane) -> bool:
        """Drop a lane that ended; True when its group had been ready."""
        if lane in self._lanes:
            self._lanes.remove(lane)
            if lane.clock is not None:
                self.uses.update(lane.clock.seconds())
        ready_s = self._ready_s.pop(lane.seat.number, None)
        if ready_s is not None:
            self.up_s += time.monotonic() - ready_s
        return ready_s is not None
