"""What a tormented run did, read from its events: what each kill cost, and how soon it was over.

A bundle or task is in flight from when it was sent or begun until all of it is committed. A kill
may cost what was in flight and nothing else.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

DETECTED = {
    "rank": ("failed", "group failed"),
    "supervisor": ("failed", "group failed"),
    "judge": ("judge away",),
    "driver": ("process gone",),
    "whole Ray": ("process gone",),
}
"""The event that shows that a kill was noticed."""
GOES_ON = ("answered", "commit")
"""What shows that a new driver is at work."""
RECOVERED = {"judge": ("judge answered",), "rank": ("answered",), "supervisor": ("answered",)}
"""What shows that work goes on after other kills; the driver commits its own work meanwhile."""


@dataclass
class Kill:
    """One kill and what was in flight at its moment."""

    way: str
    t: float
    during: str
    """What the job was doing."""
    bundles: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    repeated_bundles: int = 0
    repeated_tasks: int = 0
    detected_s: float | None = None
    recovered_s: float | None = None
    """None when the next kill came first."""


@dataclass
class Story:
    """The events of one run folder, in order, as they come."""

    path: Path
    kills: list[Kill] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    def look(self) -> list[dict[str, Any]]:
        """Events since the last look."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as lines:
            lines.seek(self._read)
            text = lines.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        new = [json.loads(line) for line in whole.splitlines()]
        self.events += new
        return new

    def note(self, event: str, **fields: Any) -> None:
        """Write an event of the trial itself, such as a process that is gone."""
        with self.path.open("ab") as lines:
            lines.write(json.dumps({"t": time.time(), "e": event, **fields}).encode() + b"\n")

    def flying(self, t: float) -> tuple[frozenset[str], frozenset[str]]:
        """Bundles and CPU tasks that were begun and not wholly committed at a moment."""
        done = {e["task"] for e in self.events if e["e"] == "commit" and e["t"] <= t}
        bundles = {e["bundle"]: e["tasks"] for e in self.events if e["e"] == "sent" and e["t"] <= t}
        begun = {e["task"] for e in self.events if e["e"] == "begin" and e["t"] <= t}
        open_bundles = {name for name, tasks in bundles.items() if not done.issuperset(tasks)}
        return frozenset(open_bundles), frozenset(begun - done)

    def settle(self) -> list[str]:
        """Work out every kill's cost and times; returns what was computed without need."""
        self.look()
        self.events.sort(key=lambda e: e["t"])
        wasted = []
        for number, kill in enumerate(self.kills):
            later = self.kills[number + 1 :]
            kill.bundles, kill.tasks = self.flying(kill.t)
            self._time(kill, next((one.t for one in later if hides(one, kill)), float("inf")))
            wasted += self._cost(kill, later[0].t if later else float("inf"))
        return wasted

    def _time(self, kill: Kill, until: float) -> None:
        after = [e for e in self.events if kill.t < e["t"] <= until]
        seen = next((e for e in after if e["e"] in DETECTED[kill.way]), None)
        if seen is None:
            return
        kill.detected_s = seen["t"] - kill.t
        goes_on = RECOVERED.get(kill.way, GOES_ON)
        again = next((e for e in after if e["t"] > seen["t"] and e["e"] in goes_on), None)
        kill.recovered_s = None if again is None else again["t"] - kill.t

    def _cost(self, kill: Kill, until: float) -> list[str]:
        """Count what was sent or begun again; returns what had been committed whole before."""
        before = [e for e in self.events if e["t"] <= kill.t]
        after = [e for e in self.events if kill.t < e["t"] <= until]
        sent = {e["bundle"] for e in before if e["e"] == "sent"}
        begun = {e["task"] for e in before if e["e"] == "begin"}
        again = {e["bundle"] for e in after if e["e"] == "sent"} & sent
        anew = {e["task"] for e in after if e["e"] == "begin"} & begun
        kill.repeated_bundles = len(again & kill.bundles)
        kill.repeated_tasks = len(anew & kill.tasks)
        return sorted((again - kill.bundles) | (anew - kill.tasks))

    def num_lost(self) -> int:
        """Tasks that were committed and had to be committed again: none, ever."""
        counts = Counter(e["task"] for e in self.events if e["e"] == "commit")
        return sum(count - 1 for count in counts.values())


def hides(later: Kill, kill: Kill) -> bool:
    """True when what is seen after the later kill may be its work, and not the first one's.

    The judge and the ranks fail apart from each other; a driver takes both with it.
    """
    return "judge" not in (later.way, kill.way) or later.way in (kill.way, "driver", "whole Ray")


def rows(kills: list[Kill]) -> list[dict[str, Any]]:
    """One row per way of killing, and one over all."""
    table = []
    for way in (*DETECTED, "all"):
        of_way = [kill for kill in kills if way in (kill.way, "all")]
        found = [one.detected_s for one in of_way if one.detected_s is not None]
        back = [one.recovered_s for one in of_way if one.recovered_s is not None]
        table.append(
            {
                "way": way,
                "kills": len(of_way),
                "detected": len(found),
                "detected_s_median": round(median(found), 2) if found else None,
                "detected_s_max": round(max(found), 2) if found else None,
                "recovered": len(back),
                "recovered_s_median": round(median(back), 2) if back else None,
                "recovered_s_max": round(max(back), 2) if back else None,
                "bundles_in_flight": sum(len(one.bundles) for one in of_way),
                "bundles_recomputed": sum(one.repeated_bundles for one in of_way),
                "cpu_tasks_in_flight": sum(len(one.tasks) for one in of_way),
                "cpu_tasks_recomputed": sum(one.repeated_tasks for one in of_way),
                "most_bundles_in_flight": max((len(one.bundles) for one in of_way), default=0),
            }
        )
    return table
