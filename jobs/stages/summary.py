"""The steering cells of a trait, each against the same baseline; null where nothing was scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf.schema import TraitConfig
from jobs.stages import BASELINE
from jobs.traits.steering import Scored, summarise
from jobs.work import Context, CpuWork, Tables
from storage.schema import from_rows

Cell = tuple[int, str, float, str]
"""Layer, method, coefficient, kind of vector."""
_NUMBERS = (
    "trait_mean",
    "trait_se",
    "coherence_mean",
    "n",
    "baseline_mean",
    "baseline_se",
    "delta",
    "delta_se",
    "z",
)


_CELL = ("layer", "method", "coefficient", "vector_kind")
_LENGTHS = ("coefficient_unit", "applied_coefficient")


@dataclass(frozen=True, kw_only=True)
class SummaryWork(CpuWork):
    """All cells of one trait."""

    trait: TraitConfig
    site: str
    judged: tuple[str, ...]
    """Judging tasks, the baseline's first; among ``after``."""
    answered: tuple[str, ...]
    """Steering tasks whose answers were judged; among ``after``."""

    def compute(self, context: Context) -> Tables:
        """One row for each cell, in the order of layer, method, coefficient, kind."""
        rows = context.rows("judgements", self.judged).to_pylist()
        lengths = self._lengths(context)
        baseline = scored(row for row in rows if row["vector_kind"] == BASELINE)
        cells: dict[Cell, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["vector_kind"] != BASELINE:
                cell = (row["layer"], row["method"], row["coefficient"], row["vector_kind"])
                cells.setdefault(cell, []).append(row)
        out: list[dict[str, object]] = []
        for (layer, method, coefficient, kind), of_cell in sorted(cells.items()):
            found = summarise(scored(of_cell), baseline)
            out.append(
                {
                    "trait": self.trait.name,
                    "layer": layer,
                    "site": self.site,
                    "method": method,
                    "coefficient": coefficient,
                    "vector_kind": kind,
                    **lengths[layer, method, coefficient, kind],
                    **{name: getattr(found, name) for name in _NUMBERS},
                }
            )
        return {"steering_summary": from_rows("steering_summary", out)}

    def _lengths(self, context: Context) -> dict[Cell, dict[str, object]]:
        """What each cell's coefficient is measured in, and the length that it came to."""
        found: dict[Cell, dict[str, object]] = {}
        for task in self.answered:
            answers = context.rows("steering", (task,)).select([*_CELL, *_LENGTHS])
            for row in answers.group_by([*_CELL, *_LENGTHS]).aggregate([]).to_pylist():
                cell = (row["layer"], row["method"], row["coefficient"], row["vector_kind"])
                found[cell] = {name: row[name] for name in _LENGTHS}
        return found


def scored(rows: Any) -> list[Scored]:  # noqa: ANN401 - any iterable of judgement rows
    """Trait and coherence of each answer, joined."""
    found: dict[tuple[int, int], dict[str, float | None]] = {}
    for row in rows:
        found.setdefault((row["question"], row["sample"]), {})[row["kind"]] = row["score"]
    return [
        Scored(question, sample, both.get("trait"), both.get("coherence"))
        for (question, sample), both in sorted(found.items())
    ]
