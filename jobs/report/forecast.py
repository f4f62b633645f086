"""What the dry run predicted stands beside what a command then took, its misses included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.idle import in_words
from jobs.report.data import ReportData
from jobs.report.markup import decimal, missing, table, visible


def predictions(data: ReportData) -> str:
    """One table for each command that computed something, the last one first."""
    parts = [
        _one(str(row["command"]), found)
        for row in reversed(data.runs)
        if (found := _of(data, row["invocation"])) is not None
    ]
    heading = "<h3>Predicted and actual</h3>"
    return heading + ("".join(parts) or missing("No command of this run made a prediction."))


def _of(data: ReportData, invocation: str) -> Mapping[str, Any] | None:
    commit = data.commits.get(f"run-{invocation}")
    if commit is None or not isinstance(commit.provenance.get("forecast"), list):
        return None
    return commit.provenance


def _one(command: str, found: Mapping[str, Any]) -> str:
    rows = [
        [
            visible(row["quantity"]),
            visible(row["bound"]),
            _number(row["predicted"], row["unit"]),
            _number(row["actual"], row["unit"]),
        ]
        for row in found["forecast"]
        if isinstance(row, Mapping)
    ]
    uses = found.get("group_seconds")
    spent = ""
    if isinstance(uses, Mapping) and uses:
        seconds = {str(use): float(s) for use, s in uses.items()}
        spent = f"<p>The model groups' time: {visible(in_words(seconds))}.</p>"
    heads: Sequence[str] = ("quantity", "predicted is", "#predicted", "#actual")
    return f"<p><code>{visible(command)}</code></p>" + table(heads, rows) + spent


def _number(value: object, unit: object) -> str:
    """A count as a whole number, seconds and dollars with a digit."""
    if not isinstance(value, int | float):
        return decimal(None)
    if unit in ("s", "USD"):
        return f"{decimal(float(value), 2 if unit == 'USD' else 1)} {visible(unit)}"
    return visible(f"{value:,.0f} {unit}".strip())
