"""Rows of finished tasks read the same whoever made them, and those at hand never fill the memory.

Small tables stay in memory for the stage that follows, up to a number of bytes; the one that was
not used for longest goes first, and is read from its file when it is wanted again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.parquet import read_table
from storage.records import Commit
from storage.schema import PARTITION_COLUMNS, schema_of

if TYPE_CHECKING:
    from storage.manifest import Run

AT_HAND_BYTES = 256 * 1024**2
"""Tables kept in memory."""


class Finished:
    """What the tasks of a run committed. Safe to use from several threads."""

    def __init__(self, run: Run, *, at_hand_bytes: int = AT_HAND_BYTES) -> None:
        """Args: ``run`` is the open folder; what it holds already counts."""
        self.commits: dict[str, Commit] = run.commits()
        self.num_bytes = 0
        self._run = run
        self._limit = at_hand_bytes
        self._at_hand: OrderedDict[tuple[str, str], pa.Table] = OrderedDict()
        self._lock = Lock()

    def add(self, task_id: str, commit: Commit, tables: Mapping[str, pa.Table]) -> None:
        """Note a commit, with the tables that it was made from."""
        with self._lock:
            self.commits[task_id] = commit
            for name, table in tables.items():
                self._keep((task_id, name), table)

    def rows(self, table: str, task_ids: Sequence[str]) -> pa.Table:
        """Rows of one table that these tasks committed, in the order of the tasks."""
        parts = [self._rows_of(table, task) for task in task_ids]
        names = [name for name in schema_of(table).names if name not in PARTITION_COLUMNS]
        return pa.concat_tables([part.select(names) for part in parts])

    def read(
        self, table: str, task_ids: Sequence[str], filters: list[Any] | None = None
    ) -> list[pa.Table]:
        """One table of these tasks from its files; rows that the filters leave."""
        with self._lock:
            files = [file for task in task_ids for file in self.commits[task].files]
        return [
            read_table(self._run.fetch(file), table, filters=filters)
            for file in files
            if file.table == table
        ]

    def forget(self) -> None:
        """Let go of every table at hand."""
        with self._lock:
            self._at_hand.clear()
            self.num_bytes = 0

    def _rows_of(self, table: str, task_id: str) -> pa.Table:
        key = (task_id, table)
        with self._lock:
            known = self._at_hand.get(key)
            if known is not None:
                self._at_hand.move_to_end(key)
                return known
        parts = self.read(table, [task_id])
        if not parts:
            return schema_of(table).empty_table()
        found = pa.concat_tables(parts)
        with self._lock:
            self._keep(key, found)
        return found

    def _keep(self, key: tuple[str, str], table: pa.Table) -> None:
        """Put a table at hand, and let go of the oldest ones above the limit."""
        old = self._at_hand.pop(key, None)
        self.num_bytes += table.nbytes - (old.nbytes if old is not None else 0)
        self._at_hand[key] = table
        while self.num_bytes > self._limit and self._at_hand:
            _, gone = self._at_hand.popitem(last=False)
            self.num_bytes -= gone.nbytes
