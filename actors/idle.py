"""Every second of a group's life is booked to one cause, so an idle GPU has a name.

Works without any metrics server: the run summary reads it. Pure bookkeeping, thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal, get_args

Use = Literal["starting", "busy", "judge", "write", "queue", "recovering"]
"""``starting``: first load. ``busy``: a bundle runs. ``judge``, ``write``: the next bundle waits
for scores, or for unwritten results. ``queue``: no work. ``recovering``: after a failure."""
USES: tuple[Use, ...] = get_args(Use)


class GroupClock:
    """Seconds of one group by use."""

    def __init__(
        self, use: Use = "starting", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: dict[Use, float] = dict.fromkeys(USES, 0.0)
        self._use: Use = use
        self._since_s = clock()

    def switch(self, use: Use) -> float:
        """Book the time since the last switch, and say what comes now; returns what was booked."""
        with self._lock:
            now_s = self._clock()
            spent_s = now_s - self._since_s
            self._seconds[self._use] += spent_s
            self._use, self._since_s = use, now_s
            return spent_s

    @property
    def use(self) -> Use:
        """What the group does now."""
        return self._use

    def seconds(self) -> dict[Use, float]:
        """Seconds by use, the running one included."""
        with self._lock:
            now = dict(self._seconds)
            now[self._use] += self._clock() - self._since_s
            return now

    def sentence(self) -> str:
        """The whole life in one line, largest share first."""
        return in_words({str(use): s for use, s in self.seconds().items()})


def in_words(seconds: Mapping[str, float]) -> str:
    """Seconds by use in one line, largest share first."""
    whole_s = sum(seconds.values()) or 1.0
    parts = sorted(seconds.items(), key=lambda one: -one[1])
    shares = [f"{use} {s:.1f} s ({100 * s / whole_s:.0f} %)" for use, s in parts if s > 0]
    return ", ".join(shares) or "no time was spent"
