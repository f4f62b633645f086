"""Every attempt is written down, in a table of its own, so that result tables hold no times.

A long run's attempts go to the disk in pieces, so that they do not pile up in memory.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

import pyarrow as pa

from storage.schema import from_rows

ROWS_AT_HAND = 4096
"""Attempts kept in memory before they are put away."""


@dataclass
class AttemptLog:
    """Attempts of one invocation, in the order they ended."""

    invocation: str
    put_away: Callable[[pa.Table], None] | None = None
    """Stores attempts; called with ``ROWS_AT_HAND`` of them at a time. None keeps all in memory."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """Not put away yet."""
    _lock: Lock = field(default_factory=Lock)

    def add(
        self,
        task_id: str,
        attempt: int,
        outcome: str,
        error: BaseException | None,
        began: float,
        group: str | None = None,
    ) -> None:
        """Note one attempt that just ended.

        Args:
            task_id: Task, bundle or ``model group``.
            attempt: 1 is the first.
            outcome: done, retry, split, skip or stop.
            error: What was raised; None when it succeeded.
            began: When it was sent, seconds since the epoch.
            group: Which model group; None when none was needed.
        """
        row: dict[str, object] = {
            "invocation": self.invocation,
            "of_task_id": task_id,
            "attempt": attempt,
            "outcome": outcome,
            "error_type": None if error is None else type(error).__name__,
            "error": None if error is None else str(error),
            "group": group,
            "started_at": datetime.datetime.fromtimestamp(began, datetime.UTC),
            "duration_s": time.time() - began,
            "judge_cost_usd": None,
            "num_tokens": 0,
        }
        with self._lock:
            self.rows.append(row)
            if self.put_away is None or len(self.rows) < ROWS_AT_HAND:
                return
            full, self.rows = self.rows, []
        self.put_away(from_rows("attempts", full))

    def table(self) -> pa.Table:
        """Attempts that were not put away yet."""
        return from_rows("attempts", self.rows)
