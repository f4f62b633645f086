"""One call to all ranks ends in all answers or one verdict, within limits that it knows itself.

Pure bookkeeping with the time passed in: Ray and the clock stay in ``group.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.diagnosis import Outcome
from actors.rank_report import RankStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds; None sets no limit."""

    whole_s: float | None = None
    """For the whole call."""
    straggler_s: float | None = None
    """For the others, once the first rank has answered."""
    stall_s: float | None = None
    """Without progress on any rank."""


class Watch:
    """Who answered one call to all ranks, when, and whether it is overdue."""

    def __init__(self, doing: str, *, world_size: int, limits: Limits, now_s: float) -> None:
        self.doing = doing
        self.outcomes: dict[int, Outcome] = {}
        self._world_size = world_size
        self.limits = limits
        self._started_s = now_s
        self._first_answer_s: float | None = None
        self._progress_s = now_s
        self._looked_s = now_s
        self._markers: dict[int, str] = {}
        self._locked_s: float | None = None

    @property
    def is_complete(self) -> bool:
        """True when every rank answered."""
        return len(self.answered) == self._world_size

    @property
    def is_failed(self) -> bool:
        """True once any rank raised or died."""
        return any(one.kind != "answered" for one in self.outcomes.values())

    @property
    def answered(self) -> list[int]:
        """Ranks that answered, in order."""
        return sorted(r for r, one in self.outcomes.items() if one.kind == "answered")

    @property
    def pending(self) -> list[int]:
        """Ranks of which nothing has been seen."""
        return [rank for rank in range(self._world_size) if rank not in self.outcomes]

    def values(self) -> list[object]:
        """What the ranks answered, in rank order; for a complete call."""
        return [self.outcomes[rank].value for rank in self.answered]

    def waited_s(self, now_s: float) -> float:
        """Seconds since the call began."""
        return now_s - self._started_s

    def begin(self, now_s: float) -> None:
        """Start the clocks (again): the call waited behind another one until now."""
        self._started_s = self._progress_s = now_s
        if self._first_answer_s is not None:
            self._first_answer_s = now_s

    def record(self, outcome: Outcome) -> None:
        """Take in what was seen of a rank. A death explains, and replaces, what it raised."""
        known = self.outcomes.get(outcome.rank)
        if known is not None and (known.kind == "died" or outcome.kind != "died"):
            return
        self.outcomes[outcome.rank] = outcome
        self._progress_s = outcome.at_s
        if outcome.kind == "answered" and self._first_answer_s is None:
            self._first_answer_s = outcome.at_s

    def note(self, statuses: Mapping[int, RankStatus], now_s: float) -> None:
        """Take in what ranks say of themselves; any change is progress of the whole group.

        The first word of a rank is no change: there is nothing to compare it with. When every
        rank was in a collective at two looks and none moved, the collectives do not match: one
        that all ranks make together ends at once.
        """
        self._looked_s = now_s
        is_locked = len(statuses) == self._world_size > 1
        for rank, status in statuses.items():
            is_locked &= status.in_collective and self._markers.get(rank) == status.marker
            if self._markers.get(rank, status.marker) != status.marker:
                self._progress_s = now_s
            self._markers[rank] = status.marker
        if not is_locked:
            self._locked_s = None
        elif self._locked_s is None:
            self._locked_s = now_s

    def forgive_returning(self, statuses: Mapping[int, RankStatus], now_s: float) -> bool:
        """True, and the straggler clock starts again, when the late ranks only send results home.

        Large captures take time to leave a rank after its last collective; that is no hang.
        """
        late = [statuses.get(rank) for rank in self.pending]
        if late and all(one is not None and one.stage == "returning" for one in late):
            self._first_answer_s = now_s
            return True
        return False

    def overdue(self, now_s: float) -> str | None:
        """Which clock has run out, in words; None while there is time."""
        limits = self.limits
        if limits.whole_s is not None and now_s - self._started_s > limits.whole_s:
            return f"it took longer than {limits.whole_s:g} s"
        if self.is_complete:
            return None
        late_s = None if self._first_answer_s is None else now_s - self._first_answer_s
        if limits.straggler_s is not None and late_s is not None and late_s > limits.straggler_s:
            return f"some ranks finished {limits.straggler_s:g} s before the others"
        is_locked = self._locked_s is not None and not self.outcomes
        locked_s = now_s - (self._locked_s or now_s)
        if is_locked and limits.straggler_s is not None and locked_s > limits.straggler_s:
            return "every rank waits in a collective, and they do not match"
        if limits.stall_s is not None and now_s - self._progress_s > limits.stall_s:
            return f"no rank made progress for {limits.stall_s:g} s"
        return None

    def is_look_due(self, now_s: float) -> bool:
        """True when the ranks have not been asked how they are for a while."""
        return self.limits.stall_s is not None and (
            now_s - max(self._looked_s, self._progress_s) >= self.check_every_s()
        )

    def check_every_s(self) -> float:
        """Seconds between two looks at the ranks, so that a clock is read in time."""
        clocks = [t for t in (self.limits.straggler_s, self.limits.stall_s) if t is not None]
        return max(0.2, min([*clocks, 4.0]) / 4)
