"""The sections behind the headline: figures, and the answers themselves, for each trait.

A section builds markup and leaves its figures in ``Figures`` under the names that the markup
refers to; the page's script draws a figure when it comes into view.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from jobs.report import plots, steering_plots
from jobs.report.data import BASELINE, Best, ReportData, Row
from jobs.report.markup import decimal, missing, quoted, section, visible
from jobs.report.overview import NO_STEERING, label
from jobs.report.units import strength

NUM_SAMPLES = 4
MAX_OPEN = 3
"""Traits whose answers are unfolded when the page opens."""
MAX_NARROW = 5
"""Directions in one similarity matrix before it takes the page's whole width."""
ANSWER_KINDS = (BASELINE, "trait", "negated", "random")
ANSWER_TITLES = {
    BASELINE: "unsteered",
    "trait": "steered",
    "negated": "negated vector",
    "random": "random vector",
}


class Figures:
    """Figures of the page by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, plots.Figure] = {}

    def place(self, figure: plots.Figure) -> str:
        """Keep a figure; returns the element that it will be drawn into."""
        name = f"figure{len(self.by_name)}"
        self.by_name[name] = figure
        title = visible(figure["layout"].get("title", {}).get("text", "figure"))
        return (
            f'<div class="figure" data-figure="{name}" role="img" aria-label="{title}" '
            f'style="height:{int(figure["height"])}px"></div>'
        )


def heat_maps(data: ReportData, figures: Figures) -> str:
    """Trait score and coherence over layers and coefficients, for each trait and method."""
    title = "Layer by coefficient"
    if not data.summary:
        return section("sweep", title, missing(NO_STEERING))
    blocks = []
    for (model, trait), best in data.best.items():
        cells = _trait_cells(data, model, trait)
        kinds = {(row["method"], row["coefficient_unit"] or "") for row in cells}
        for method, unit in sorted(kinds):
            rows = [
                r for r in cells if (r["method"], r["coefficient_unit"] or "") == (method, unit)
            ]
            chosen = best.row if best and best.row in rows else None
            pair = [
                steering_plots.heat_map(
                    rows,
                    "delta",
                    title="change of the trait score, points",
                    scale=plots.DIVERGING,
                    limits=(-100.0, 100.0),
                    chosen=chosen,
                ),
                steering_plots.heat_map(
                    rows,
                    "coherence_mean",
                    title="coherence, 0 to 100",
                    scale=plots.SEQUENTIAL,
                    limits=(0.0, 100.0),
                    chosen=chosen,
                ),
            ]
            name = f"{label(data, model, trait)} · {method.replace('_', ' ')}"
            body = "".join(figures.place(figure) for figure in pair)
            blocks.append(f'<h3>{visible(name)}</h3><div class="pair">{body}</div>')
    lead = (
        "Each cell is the mean over all steering questions, less the unsteered answers on the "
        "left. The chosen cell is framed. A blank cell was not run or has no score."
    )
    return section("sweep", title, "".join(blocks), lead=lead)


def dose_responses(data: ReportData, figures: Figures) -> str:
    """Score against coefficient at the chosen layer, with both controls."""
    title = "Dose and response"
    chosen = [(key, best) for key, best in data.best.items() if best]
    if not chosen:
        return section("dose", title, missing(NO_STEERING))
    blocks = []
    for (model, trait), best in chosen:
        names = ("model", "trait", "layer", "method", "site", "coefficient_unit")
        rows = [r for r in data.summary if all(r[name] == best.row[name] for name in names)]
        name = visible(f"{label(data, model, trait)}, layer {best.row['layer']}")
        figure = steering_plots.dose_response(rows, title=name, baseline=best.row, gate=data.gate)
        blocks.append(figures.place(figure))
    lead = (
        "At the chosen layer. Left of zero the negated vector was added, right of it the trait's. "
        "Bars are one standard error over questions. A direction that means something bends the "
        "solid line and leaves the dashed one flat."
    )
    return section("dose", title, f'<div class="grid">{"".join(blocks)}</div>', lead=lead)


def evaluations(data: ReportData, figures: Figures) -> str:
    """Held-out separation by layer and method, with the layer-0 warning."""
    title = "Held-out evaluation"
    if not data.evaluation:
        return section("evaluation", title, missing("No evaluation is committed in this run."))
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in data.evaluation:
        groups[row["model"], row["trait"]].append(row)
    blocks = []
    for (model, trait), rows in groups.items():
        name = visible(label(data, model, trait))
        placed = figures.place(plots.evaluation_by_layer(rows, title=name))
        note = plots.confound(rows)
        warning = f'<p class="note">{visible(note)}</p>' if note else ""
        blocks.append(f"<div>{placed}{warning}</div>")
    folds = {row["folds"] for row in data.evaluation}
    how = "on scenarios that were never used for fitting" if folds == {0} else "out of fold"
    lead = (
        f"How well projections tell positive from negative responses, {how}. Bars are 95 % "
        "bootstrap intervals over scenarios; the dotted line is the mean of random directions. "
        "High values here do not promise that steering works."
    )
    return section("evaluation", title, f'<div class="grid">{"".join(blocks)}</div>', lead=lead)


def similarities(data: ReportData, figures: Figures) -> str:
    """Cosines between traits at one layer, and of one trait across layers."""
    title = "Similarity of directions"
    if not data.vectors:
        return section("similarity", title, missing("No direction is committed in this run."))
    blocks = []
    for model in data.models:
        rows = [row for row in data.vectors if row["model"] == model]
        if not rows:
            continue
        layer, method = _common(data, model, rows)
        at_layer = [r for r in rows if r["layer"] == layer and r["method"] == method]
        where = f"{method.replace('_', ' ')}, layer {layer}"
        if len(data.models) > 1:
            where = f"{model}: {where}"
        figure = plots.similarity(
            [row["trait"] for row in at_layer],
            [row["direction"] for row in at_layer],
            title=visible(f"between traits ({where})"),
        )
        wide = " wide" if len(at_layer) > MAX_NARROW else ""
        blocks.append(f'<div class="block{wide}">{figures.place(figure)}</div>')
        for trait in sorted({row["trait"] for row in rows}):
            of_trait = [r for r in rows if r["trait"] == trait and r["method"] == method]
            if len(of_trait) > 1:
                name = visible(f"{label(data, model, trait)} across layers")
                labels = [str(row["layer"]) for row in of_trait]
                directions = [row["direction"] for row in of_trait]
                figure = plots.similarity(labels, directions, title=name, axis="layer")
                blocks.append(figures.place(figure))
    lead = "Cosine between unit directions: 1 the same, 0 unrelated, -1 opposite."
    return section("similarity", title, f'<div class="grid">{"".join(blocks)}</div>', lead=lead)


def samples(data: ReportData) -> str:
    """Answers side by side at the chosen cell: where it worked best, in between, and worst."""
    title = "Answers side by side"
    chosen = [(key, best) for key, best in data.best.items() if best]
    if not chosen or not data.answers:
        return section("samples", title, missing("No steered answers are committed in this run."))
    blocks: list[str] = []
    for (model, trait), best in chosen:
        rows = _answers_at(data, best)
        head = f"{label(data, model, trait)}, layer {best.row['layer']}, coefficient "
        head += strength(best.row)
        shown = " open" if len(blocks) < MAX_OPEN else ""
        compared = "".join(_comparison(rows[key], data) for key in _spread(rows, data, best.sign))
        blocks.append(
            f"<details{shown}><summary><h3>{visible(head)}</h3></summary>{compared}</details>"
        )
    lead = (
        "For each trait the questions with the largest, a middle and the smallest change of the "
        "score, so the weak answers are here too. T is the trait score, C coherence."
    )
    return section("samples", title, "".join(blocks), lead=lead)


Answers = dict[tuple[int, int], dict[str, Row]]


def _answers_at(data: ReportData, best: Best) -> Answers:
    names = ["model", "trait", "layer", "site", "method", "coefficient"]
    names += ["coefficient_unit"] if best.row["coefficient_unit"] else []
    found: Answers = defaultdict(dict)
    for row in data.answers:
        if row["vector_kind"] == BASELINE:
            here = (row["model"], row["trait"]) == (best.row["model"], best.row["trait"])
        else:
            here = all(row[name] == best.row[name] for name in names)
        if here:
            found[row["question"], row["sample"]][row["vector_kind"]] = row
    return {key: kinds for key, kinds in found.items() if BASELINE in kinds and "trait" in kinds}


def _spread(rows: Answers, data: ReportData, sign: int = 1) -> list[tuple[int, int]]:
    """Questions from the largest intended change on; those without both scores are left out."""
    changes: list[tuple[float, tuple[int, int]]] = []
    for key, kinds in rows.items():
        after, before = (_score(data, kinds[kind], "trait") for kind in ("trait", BASELINE))
        if after is not None and before is not None:
            changes.append((sign * (before - after), key))
    ordered = [key for _, key in sorted(changes)]
    if len(ordered) <= NUM_SAMPLES:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(i * last / (NUM_SAMPLES - 1))] for i in range(NUM_SAMPLES)]


def _comparison(kinds: dict[str, Row], data: ReportData) -> str:
    cells = []
    for kind in ANSWER_KINDS:
        row = kinds.get(kind)
        if row is None:
            continue
        scores = (
            f'<span class="chip">T {decimal(_score(data, row, "trait"), 0)}</span>'
            f'<span class="chip">C {decimal(_score(data, row, "coherence"), 0)}</span>'
        )
        cells.append(
            f'<div class="answer {kind}"><h4>{ANSWER_TITLES[kind]} {scores}</h4>'
            f"<p>{quoted(row['completion'])}</p></div>"
        )
    prompt = quoted(kinds[BASELINE]["prompt"])
    return (
        f'<article class="sample"><p class="asked">{prompt}</p>'
        f'<div class="answers">{"".join(cells)}</div></article>'
    )


def _score(data: ReportData, row: Row, kind: str) -> float | None:
    names = ("model", "trait", "layer", "method", "coefficient", "vector_kind")
    key: tuple[Any, ...] = (*(row[name] for name in names), row["question"], row["sample"])
    # Judgements of unsteered answers may leave layer, method and coefficient null.
    loose = (*key[:2], None, None, None, *key[5:])
    return (data.scores.get(key) or data.scores.get(loose) or {}).get(kind)


def _trait_cells(data: ReportData, model: str, trait: str) -> list[Row]:
    return [
        row
        for row in data.summary
        if (row["model"], row["trait"], row["vector_kind"]) == (model, trait, "trait")
    ]


def _common(data: ReportData, model: str, rows: list[Row]) -> tuple[int, str]:
    """Layer and method that most chosen cells have; the middle layer when none was chosen."""
    chosen = [best.row for key, best in data.best.items() if best and key[0] == model]
    votes = [(row["layer"], row["method"]) for row in chosen]
    if votes:
        return max(sorted(set(votes)), key=votes.count)
    layers = sorted({row["layer"] for row in rows})
    return layers[len(layers) // 2], sorted({row["method"] for row in rows})[0]
