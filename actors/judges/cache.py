"""A text is judged once: scores survive crashes and are found again by what was asked, of whom.

One SQLite file in write-ahead mode: several threads and processes of one node may share it, and a
killed writer loses at most its last batch. Only scores are kept: what had none is asked again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from actors.judges.endpoint import JudgeUnavailable
from actors.judges.query import Judge, JudgeQuery, JudgeScore, JudgeTotals

LOCK_TIMEOUT_S = 30.0
"""For another writer to finish."""
KEYS_PER_QUERY = 500
"""Placeholders in one SQL statement."""


class ScoreCache:
    """Scores on disk, by judge version and query digest; the file is made when first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_made = False
        if path.exists():  # one that is damaged is noticed before anything is computed
            self.get("", [""])

    def get(self, version: str, digests: Sequence[str]) -> dict[str, float]:
        """Scores of those digests that are known."""
        found: dict[str, float] = {}
        with self._connect() as connection:
            for start in range(0, len(digests), KEYS_PER_QUERY):
                part = digests[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                rows = connection.execute(
                    f"SELECT digest, score FROM scores WHERE version = ? AND digest IN ({marks})",
                    (version, *part),
                )
                found.update(dict(rows))
        return found

    def put(self, version: str, scores: Mapping[str, JudgeScore]) -> None:
        """Keep scores by digest. The first score of a query stays."""
        rows = [(version, digest, one.score) for digest, one in scores.items()]
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO scores VALUES (?, ?, ?)",
                [row for row in rows if row[2] is not None],
            )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """One transaction. A connection belongs to its thread, so each use makes its own."""
        with self._lock:
            if not self._is_made:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT_S)
            try:
                if not self._is_made:
                    _make(connection)
                    self._is_made = True
                with connection:
                    yield connection
            finally:
                connection.close()


def _make(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS scores (version TEXT, digest TEXT, score REAL, "
            "PRIMARY KEY (version, digest)) WITHOUT ROWID"
        )


class CachedJudge:
    """A judge that asks another one only what it does not know.

    ``whole_batches`` asks for a whole batch again when any of it is unknown. A model's arithmetic
    depends a little on what shares its batch, so a judge that runs one gives the same digits only
    for the same batch.
    """

    def __init__(self, judge: Judge, cache: ScoreCache, *, whole_batches: bool = False) -> None:
        self._judge = judge
        self._cache = cache
        self._whole_batches = whole_batches
        self._totals = JudgeTotals()

    @property
    def name(self) -> str:
        """Of the judge that is asked."""
        return self._judge.name

    @property
    def version(self) -> str:
        """Of the judge that is asked."""
        return self._judge.version

    @property
    def totals(self) -> JudgeTotals:
        """Of both; calls and retries are the asked judge's."""
        asked = self._judge.totals
        return replace(self._totals, num_calls=asked.num_calls, num_retries=asked.num_retries)

    def score(self, queries: Sequence[JudgeQuery]) -> list[JudgeScore]:
        """Scores in the order of the queries; equal queries are asked once."""
        digests = [query.digest() for query in queries]
        known = self._cache.get(self.version, list(dict.fromkeys(digests)))
        unknown: dict[str, JudgeQuery] = {}
        for digest, query in zip(digests, queries, strict=True):
            if digest not in known:
                unknown.setdefault(digest, query)
        if unknown and self._whole_batches:
            known = {}
            unknown = dict(zip(digests, queries, strict=True))
        fresh: dict[str, JudgeScore] = {}
        if unknown:
            answers = self._ask(unknown)
            fresh = dict(zip(unknown, answers, strict=True))
            self._cache.put(self.version, fresh)
        scores = [
            _first_use(fresh, digest, query.id)
            if digest in fresh
            else JudgeScore(id=query.id, score=known[digest], cached=True)
            for digest, query in zip(digests, queries, strict=True)
        ]
        self._totals.count(scores)
        return scores

    def _ask(self, unknown: Mapping[str, JudgeQuery]) -> list[JudgeScore]:
        """Scores of the asked judge; what it has when its server goes away is kept."""
        try:
            return self._judge.score(list(unknown.values()))
        except JudgeUnavailable as error:
            if error.scores and not self._whole_batches:
                self._cache.put(self.version, dict(zip(unknown, error.scores, strict=True)))
            raise


def _first_use(fresh: dict[str, JudgeScore], digest: str, query_id: str) -> JudgeScore:
    """A fresh score under the asker's id; a second asker of the same query pays nothing."""
    score = fresh[digest]
    fresh[digest] = replace(score, cached=True, cost_usd=0.0, latency_s=0.0)
    return replace(score, id=query_id)
