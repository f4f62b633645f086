"""What came out is printed as numbers with their errors, also when it is not what was hoped for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.resolve import JobRequest
from conf.schema import TraitConfig
from jobs.report.console import Console
from jobs.report.units import strength
from jobs.traits.steering import REVERSED_Z, Z_NEEDED, CellSummary, best_cell, verdict
from storage.layout import REPORT
from storage.manifest import Run

Row = Mapping[str, Any]
_HEADER = (
    "trait",
    "layer",
    "method",
    "coefficient",
    "baseline",
    "steered",
    "delta",
    "SE",
    "z",
    "negated",
    "random",
    "coherence",
    "raised",
    "lowered",
    "neutral",
)
_NUM_FOUND = 9
"""Columns of the first table; the rest follows in a second one, so that no line is too wide."""


def show_results(
    run: Run, points: Sequence[JobRequest], tasks: Collection[str], console: Console
) -> None:
    """Print the tables that the job was run for, from the rows of its own tasks alone."""

    def rows(table: str) -> list[Row]:
        return [row for row in run.read(table).to_pylist() if row["task_id"] in tasks]

    first = points[0]
    traits = {trait.name: trait for point in points for trait in point.traits}
    if first.job in ("extract", "pipeline"):
        show_directions(rows("evaluation"), list(traits), console)
    if first.job in ("steer", "pipeline"):
        gate = first.config.steering.coherence_gate
        show_steering(rows("steering_summary"), traits, gate, console)
    if first.job == "generate":
        table = "steering" if traits else "responses"
        for row in rows(table):
            name = f"{row['trait']} {row['question']}" if traits else row["prompt_id"]
            if traits or row["prompts"] is not None:
                console.note(f"{name}: {row['completion']!r}")


def show_directions(rows: Sequence[Row], traits: Sequence[str], console: Console) -> None:
    """For each trait and method, the layer that separates held-out responses best."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["trait"], row["method"])
        if row["trait"] in traits and (key not in best or row["auroc"] > best[key]["auroc"]):
            best[key] = row
    if not best:
        return
    console.table(
        "Directions, best layer by held-out separation",
        ("trait", "method", "layer", "AUROC", "95 % interval", "random", "d", "n"),
        [
            (
                row["trait"],
                row["method"],
                str(row["layer"]),
                number(row["auroc"], 3),
                f"{number(row['ci_low'], 2)} to {number(row['ci_high'], 2)}",
                number(row["random_auroc"], 2),
                number(row["cohens_d"], 1),
                f"{row['n_positive']}+{row['n_negative']}",
            )
            for _, row in sorted(best.items())
        ],
    )


def show_steering(
    rows: Sequence[Row], traits: Mapping[str, TraitConfig], gate: float, console: Console
) -> None:
    """For each trait, its best coherent cell beside the controls at the same strength."""
    lines, falling = [], []
    for name, trait in traits.items():
        cells = [row for row in rows if row["trait"] == name]
        line = steering_line(cells, trait, gate)
        if line is not None:
            lines.append(line)
            falling += [name] if trait.sign < 0 else []
    if lines:
        console.table(
            f"Steering, best cell with coherence {gate:g} or more: scores 0 to 100, paired by "
            "question",
            _HEADER[:_NUM_FOUND],
            [line[:_NUM_FOUND] for line in lines],
        )
        console.table(
            f"Controls in that cell\n  raised: delta by {Z_NEEDED:g} SE; lowered: negated by "
            f"{REVERSED_Z:g} SE; neutral: random by less than {Z_NEEDED:g} SE"
            f"{_meant_to_fall(falling)}",
            (_HEADER[0], *_HEADER[_NUM_FOUND:]),
            [[line[0], *line[_NUM_FOUND:]] for line in lines],
        )


def _meant_to_fall(names: Sequence[str]) -> str:
    """Say of which traits the two claims are meant the other way round."""
    if not names:
        return ""
    return f"\n  meant to be lowered, and raised by the negated vector: {', '.join(names)}"


def steering_line(cells: Sequence[Row], trait: TraitConfig, gate: float) -> list[str] | None:
    """One trait's line, or None when it has no cells."""
    if not cells:
        return None
    place = best_cell(cells, gate, sign=trait.sign)
    if place is None:
        return [trait.name, *["-"] * (len(_HEADER) - 2), "incoherent"]
    best = cells[place]
    negated, random = (control(cells, best, kind) for kind in ("negated", "random"))
    judged = verdict(
        summary(best),
        None if negated is None else summary(negated),
        None if random is None else summary(random),
        gate=gate,
        sign=trait.sign,
    )
    return [
        trait.name,
        str(best["layer"]),
        best["method"],
        strength(best),
        number(best["baseline_mean"], 1),
        number(best["trait_mean"], 1),
        signed(best["delta"]),
        number(best["delta_se"], 1),
        number(best["z"], 1),
        "-" if negated is None else with_error(negated),
        "-" if random is None else with_error(random),
        number(best["coherence_mean"], 1),
        yes(judged.moved),
        yes(judged.reversed),
        yes(judged.random_neutral),
    ]


def yes(answer: bool | None) -> str:
    """A claim that holds, fails, or was not tested."""
    return {True: "yes", False: "NO", None: "-"}[answer]


def control(cells: Sequence[Row], best: Row, kind: str) -> Row | None:
    """The control cell of the same point, layer, method and coefficient."""
    names = ("task_id", "layer", "method", "coefficient")
    for row in cells:
        if row["vector_kind"] == kind and all(row.get(name) == best.get(name) for name in names):
            return row
    return None


def summary(row: Row) -> CellSummary:
    """A row of ``steering_summary`` as the type that verdicts are made from."""
    return CellSummary(**{name: row[name] for name in CellSummary._fields})


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return "-" if value is None else f"{value:+.1f}"


def with_error(row: Row) -> str:
    """A control's difference and its standard error."""
    return f"{signed(row['delta'])} ± {number(row['delta_se'], 1)}"


def write_report(run: Run) -> Path:
    """Write the report from the committed tables alone."""
    from jobs.report import html

    path = run.root / REPORT
    html.write_report(run, path)
    return path
