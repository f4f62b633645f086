"""All that the report shows, read from a run's committed tables and from nothing else.

A run folder may hold several commands, models and superseded results. Each fact is shown once: of
rows with the same key the ones of the task that was tried last count. A table without rows is an
empty list, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from jobs.traits.steering import CellSummary, Scored, best_cell, cross_fitted_effect, verdict
from jobs.traits.steering import Verdict as SteeringVerdict
from storage.records import Commit

Row = Mapping[str, Any]

BASELINE = "baseline"
DEFAULT_GATE = 70.0
_UNIT = "coefficient_unit"
_CELL = ("model", "trait", "layer", "site", "method", "coefficient", _UNIT, "vector_kind")
_ANSWER = (*_CELL, "question", "sample")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Readable(Protocol):
    """The part of ``storage.manifest.Run`` that a report needs."""

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a table over all commits."""
        ...

    def commits(self) -> Mapping[str, Commit]:
        """All commits by task."""
        ...


@dataclass(frozen=True)
class Best:
    """The cell that was chosen for one trait of one model, and its controls."""

    row: Row
    negated: Row | None
    random: Row | None
    verdict: SteeringVerdict
    sign: int
    """1: the trait was to rise; -1: to fall."""
    cross_fitted: tuple[float | None, float | None]
    """Effect and error with choice and measurement on different questions."""


class ReportData:
    """Tables of a run as rows, each fact once."""

    def __init__(self, run: Readable) -> None:
        self._run = run
        self.commits = run.commits()
        self.runs = sorted(self._rows("runs"), key=lambda row: row["started_at"] or _LONG_AGO)
        self._order = self._attempt_times()

    @cached_property
    def models(self) -> list[str]:
        """Slugs of the models with results, in order of name."""
        return sorted({commit.model for task, commit in self.commits.items() if _is_result(task)})

    @cached_property
    def gate(self) -> float:
        """Coherence that a chosen cell needs, as the run was told."""
        for commit in self.commits.values():
            question = commit.provenance.get("question")
            if isinstance(question, Mapping) and isinstance(question.get("gate"), int | float):
                return float(question["gate"])
        return DEFAULT_GATE

    @cached_property
    def summary(self) -> list[Row]:
        """Steering cells, each once."""
        return self._latest("steering_summary", _CELL)

    @cached_property
    def evaluation(self) -> list[Row]:
        """Held-out evaluations, each once."""
        return self._latest("evaluation", ("model", "trait", "layer", "site", "method"))

    @cached_property
    def vectors(self) -> list[Row]:
        """Directions, each once."""
        return self._latest("vectors", ("model", "trait", "layer", "site", "method"))

    @cached_property
    def answers(self) -> list[Row]:
        """Steered and unsteered answers, each once."""
        columns = [
            *("task_id", *_ANSWER, "applied_coefficient", "prompt", "completion"),
            *("finish_reason", "num_rows_steered", "seed"),
        ]
        return self._latest("steering", _ANSWER, columns)

    @cached_property
    def scores(self) -> dict[tuple[Any, ...], dict[str, float | None]]:
        """Scores by kind of each answer: (model, trait, layer, method, coefficient, kind, q, s)."""
        names = ("model", *_SCORE_KEY)
        columns = ["task_id", "model", "table", *_SCORE_KEY, "kind", "score"]
        found: dict[tuple[Any, ...], dict[str, float | None]] = {}
        for row in self._latest("judgements", (*names, "table", "kind"), columns):
            if row["table"] == "steering":
                found.setdefault(tuple(row[n] for n in names), {})[row["kind"]] = row["score"]
        return found

    @cached_property
    def vetting(self) -> list[Row]:
        """Vetted responses, each once."""
        return self._latest("vetting", ("model", "trait", "polarity", "scenario", "sample"))

    @cached_property
    def projections(self) -> list[Row]:
        """Per-token projections, each once, by prompt and position."""
        keys = ("model", "prompts", "prompt_id", "trait", "layer", "method", "position")
        rows = self._latest("projections", keys)
        return sorted(rows, key=lambda row: (row["prompts"], row["prompt_id"], row["position"]))

    @cached_property
    def best(self) -> dict[tuple[str, str], Best | None]:
        """(model, trait) -> the chosen cell; None when no cell reaches the coherence gate."""
        out: dict[tuple[str, str], Best | None] = {}
        for key in sorted({(row["model"], row["trait"]) for row in self.summary}):
            cells = [row for row in self.summary if (row["model"], row["trait"]) == key]
            place = best_cell(cells, self.gate, sign=self.sign(*key))
            out[key] = None if place is None else self._compare(cells[place], cells)
        return out

    def sign(self, model: str, trait: str) -> int:
        """The way a trait was meant to go, as its last summary was told."""
        for row in self.summary:
            if (row["model"], row["trait"]) == (model, trait):
                question = self.commits[row["task_id"]].provenance.get("question")
                if isinstance(question, Mapping) and question.get("sign") == -1:
                    return -1
        return 1

    def _compare(self, row: Row, cells: Sequence[Row]) -> Best:
        sign = self.sign(row["model"], row["trait"])
        controls = {kind: _same_cell(cells, row, kind) for kind in ("negated", "random")}
        judged = verdict(
            _summary(row),
            *(None if cell is None else _summary(cell) for cell in controls.values()),
            gate=self.gate,
            sign=sign,
        )
        honest = self._honest(row, sign)
        return Best(row, controls["negated"], controls["random"], judged, sign, honest)

    def _honest(self, row: Row, sign: int) -> tuple[float | None, float | None]:
        cells: dict[object, list[Scored]] = {}
        baseline: list[Scored] = []
        for key, both in self.scores.items():
            model, trait, layer, method, coefficient, kind, question, sample = key
            if (model, trait) != (row["model"], row["trait"]):
                continue
            scored = Scored(question, sample, both.get("trait"), both.get("coherence"))
            if kind == BASELINE:
                baseline.append(scored)
            elif kind == "trait":
                cells.setdefault((layer, method, coefficient), []).append(scored)
        found = cross_fitted_effect(cells, baseline, self.gate, sign=sign)
        return found.mean, found.se

    def _attempt_times(self) -> dict[str, datetime]:
        times: dict[str, datetime] = {}
        for row in self._rows("attempts", ["of_task_id", "started_at"]):
            started = row["started_at"] or _LONG_AGO
            times[row["of_task_id"]] = max(times.get(row["of_task_id"], started), started)
        return times

    def _rows(self, table: str, columns: Sequence[str] | None = None) -> list[Row]:
        rows: list[Row] = self._run.read(table, columns=columns).to_pylist()
        return rows

    def _latest(
        self, table: str, keys: Iterable[str], columns: Sequence[str] | None = None
    ) -> list[Row]:
        """Rows in order of their keys; of equal keys the one of the task tried last."""
        names = tuple(keys)
        found: dict[tuple[Any, ...], Row] = {}
        rows = self._rows(table, columns)
        rows.sort(key=lambda row: (self._order.get(row["task_id"], _LONG_AGO), row["task_id"]))
        for row in rows:
            found[tuple(row[name] for name in names)] = row
        return [found[key] for key in sorted(found, key=_sortable)]


_SCORE_KEY = ("trait", "layer", "method", "coefficient", "vector_kind", "question", "sample")


def _is_result(task: str) -> bool:
    return not task.startswith("run-")


def _same_cell(cells: Sequence[Row], like: Row, kind: str) -> Row | None:
    names = ("layer", "site", "method", "coefficient", _UNIT)
    for row in cells:
        if row["vector_kind"] == kind and all(row[name] == like[name] for name in names):
            return row
    return None


def _summary(row: Row) -> CellSummary:
    return CellSummary(**{name: row[name] for name in CellSummary._fields})


def _sortable(key: tuple[Any, ...]) -> tuple[tuple[bool, Any], ...]:
    """Keys with nulls in them: null first, then by value."""
    return tuple((part is not None, part if part is not None else 0) for part in key)
