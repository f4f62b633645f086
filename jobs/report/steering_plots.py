"""Figures of steering: how score and coherence answer to layer and coefficient.

As in ``jobs.report.plots``: plain data, roles instead of colours, null where nothing was scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.report.plots import Figure, Row, level, number
from jobs.report.units import axis, strength


def heat_map(
    rows: Sequence[Row],
    value: str,
    *,
    title: str,
    scale: str,
    limits: tuple[float, float],
    chosen: Row | None = None,
) -> Figure:
    """Layer by coefficient; the chosen cell is framed.

    Args:
        rows: Cells of one trait, method and vector kind.
        value: Column that is shown.
        title: Above the figure.
        scale: ``DIVERGING`` or ``SEQUENTIAL``.
        limits: Values at the ends of the colour scale.
        chosen: Cell to frame.
    """
    layers = sorted({row["layer"] for row in rows})
    coefficients = sorted({row["coefficient"] for row in rows})
    cells = {(row["layer"], row["coefficient"]): row for row in rows}
    notes = [[_cell_note(cells.get((x, y))) for y in coefficients] for x in layers]
    values = [[number(_get(cells, (x, y), value)) for y in coefficients] for x in layers]
    trace = {
        "type": "heatmap",
        "x": [f"{c:g}" for c in coefficients],
        "y": [str(layer) for layer in layers],
        "z": values,
        "text": [["" if v is None else f"{v:.0f}" for v in line] for line in values],
        "texttemplate": "%{text}",
        "customdata": notes,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "zmin": limits[0],
        "zmax": limits[1],
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 0.9},
        "role": scale,
    }
    layout: Figure = {
        "title": {"text": title},
        "xaxis": {"title": {"text": axis(_unit(rows))}, "type": "category"},
        "yaxis": {"title": {"text": "layer"}, "type": "category"},
    }
    if chosen is not None and chosen["layer"] in layers and chosen["coefficient"] in coefficients:
        x, y = coefficients.index(chosen["coefficient"]), layers.index(chosen["layer"])
        layout["shapes"] = [_frame(x, y)]
    return {"data": [trace], "layout": layout, "height": 165 + 34 * len(layers)}


def dose_response(rows: Sequence[Row], *, title: str, baseline: Row, gate: float) -> Figure:
    """Score against signed coefficient: the negated vector to the left, the random one dashed."""
    traces = []
    start = (0.0, baseline["baseline_mean"], baseline["baseline_se"], None)
    main = [start] + [
        ((-1 if row["vector_kind"] == "negated" else 1) * row["coefficient"], *_point(row))
        for row in rows
        if row["vector_kind"] in ("trait", "negated")
    ]
    random = [start] + [
        (row["coefficient"], *_point(row)) for row in rows if row["vector_kind"] == "random"
    ]
    traces.append(_line("trait vector", main, "accent", "solid"))
    if len(random) > 1:
        traces.append(_line("random vector", random, "neutral", "dash"))
    coherence = [(x, c, None, None) for x, _, _, c in sorted(main) if c is not None]
    if coherence:
        traces.append(_line("coherence", coherence, "faint", "dot", errors=False))
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": axis(_unit(rows))}, "zeroline": True},
        "yaxis": {"title": {"text": "mean score"}, "range": [-4, 104]},
        "legend": {"orientation": "h", "y": -0.32},
        "shapes": [level(gate)],
        "annotations": [
            {"text": "coherence gate", "x": 0, "xref": "paper", "y": gate, "showarrow": False}
            | {"xanchor": "left", "yanchor": "bottom", "font": {"size": 10}}
        ],
    }
    return {"data": traces, "layout": layout, "height": 330}


def _get(cells: Mapping[Any, Row], key: tuple[Any, Any], column: str) -> float | None:
    row = cells.get(key)
    return None if row is None else row[column]


def _unit(rows: Sequence[Row]) -> str | None:
    return next((row["coefficient_unit"] for row in rows), None)


def _point(row: Row) -> tuple[float | None, float | None, float | None]:
    return row["trait_mean"], row["trait_se"], row["coherence_mean"]


def _line(
    name: str,
    points: Sequence[tuple[float, float | None, float | None, float | None]],
    role: str,
    dash: str,
    *,
    errors: bool = True,
) -> Figure:
    points = sorted(points, key=lambda point: point[0])
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers" if errors else "lines",
        "name": name,
        "x": [number(x) for x, *_ in points],
        "y": [number(y) for _, y, *_ in points],
        "line": {"dash": dash},
        "role": role,
        "hovertemplate": "%{y:.1f} at %{x:g}<extra>%{fullData.name}</extra>",
    }
    if errors:
        bars = [number(se) for _, _, se, _ in points]
        trace["error_y"] = {"type": "data", "array": bars, "thickness": 1.2, "width": 4}
    return trace


def _cell_note(row: Row | None) -> str:
    if row is None:
        return "not run"
    parts = [f"layer {row['layer']}, coefficient {strength(row)}"]
    for label, column, error in (
        ("trait", "trait_mean", "trait_se"),
        ("delta", "delta", "delta_se"),
        ("coherence", "coherence_mean", None),
    ):
        value, spread = row[column], row[error] if error else None
        text = "no score" if value is None else f"{value:.1f}"
        parts.append(f"{label} {text}" + ("" if spread is None else f" ± {spread:.1f}"))
    return "<br>".join(parts)


def _frame(x: int, y: int) -> Figure:
    return {
        "type": "rect",
        "x0": x - 0.5,
        "x1": x + 0.5,
        "y0": y - 0.5,
        "y1": y + 0.5,
        "line": {"width": 3},
        "role": "ink",
    }
