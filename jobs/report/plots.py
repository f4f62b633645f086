"""Figures as plain data: what plotly.js draws, with no colour of the page in it.

Each function returns ``{"data", "layout", "height"}``, ready for JSON. Text colour, grid and
background belong to the page's script, which follows the reader's light or dark setting. A missing
value is null, which plotly leaves blank; it is never drawn as zero. Plotly reads tags in its texts,
so whatever a model or a file wrote is escaped here as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from jobs.report.markup import visible
from jobs.traits.evaluation import confound_note
from jobs.traits.similarity import cosine_matrix

Row = Mapping[str, Any]
Figure = dict[str, Any]

DIVERGING = "diverging"
SEQUENTIAL = "sequential"
"""Roles of traces and lines, which the page's script turns into colours."""


def plotly_source() -> str:
    """The drawing library, to be written into the page once."""
    return str(get_plotlyjs())


def evaluation_by_layer(rows: Sequence[Row], *, title: str) -> Figure:
    """AUROC by layer, one line for each method with its interval, and the random control."""
    traces: list[Figure] = []
    roles = ("accent", "cool", "second", "neutral")
    for index, method in enumerate(sorted({row["method"] for row in rows})):
        of_method = sorted((r for r in rows if r["method"] == method), key=lambda r: r["layer"])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": visible(method.replace("_", " ")),
                "x": [row["layer"] for row in of_method],
                "y": [number(row["auroc"]) for row in of_method],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_gap(row["ci_high"], row["auroc"]) for row in of_method],
                    "arrayminus": [_gap(row["auroc"], row["ci_low"]) for row in of_method],
                    "thickness": 1,
                    "width": 3,
                },
                "role": roles[index % len(roles)],
                "customdata": [_evaluation_note(row) for row in of_method],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    control = {row["layer"]: row["random_auroc"] for row in rows}
    layers = sorted(control)
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "random direction",
            "x": layers,
            "y": [number(control[layer]) for layer in layers],
            "line": {"dash": "dot"},
            "role": "neutral",
            "hovertemplate": "random direction: %{y:.2f}<extra></extra>",
        }
    )
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": "layer"}, "dtick": max(1, len(layers) // 8)},
        "yaxis": {"title": {"text": "AUROC, held out"}, "range": [0, 1.04]},
        "legend": {"orientation": "h", "y": -0.32},
        "shapes": [level(0.5)],
    }
    return {"data": traces, "layout": layout, "height": 320}


def similarity(
    labels: Sequence[str], directions: Sequence[Sequence[float]], *, title: str, axis: str = ""
) -> Figure:
    """Cosine of every direction with every other; ``axis`` says what the labels are."""
    matrix = cosine_matrix([np.asarray(direction) for direction in directions])
    values = [[round(float(v), 4) for v in line] for line in matrix]
    names = [visible(label) for label in labels]
    trace = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": values,
        "text": [[f"{v:.2f}" for v in line] for line in values],
        "texttemplate": "%{text}" if len(labels) <= 14 else "",
        "hovertemplate": "%{y} · %{x}: %{z:.3f}<extra></extra>",
        "zmin": -1,
        "zmax": 1,
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 0.9},
        "role": DIVERGING,
    }
    layout = {
        "title": {"text": title},
        "xaxis": {"type": "category", "title": {"text": axis}},
        "yaxis": {"type": "category", "autorange": "reversed", "title": {"text": axis}},
    }
    return {"data": [trace], "layout": layout, "height": (170 if axis else 150) + 34 * len(labels)}


def projection_lines(
    series: Mapping[str, Sequence[Row]], *, title: str, first_response: int | None
) -> Figure:
    """Cosine of each token with each trait's direction along one prompt and its answer."""
    roles = ("accent", "cool", "second", "third", "neutral")
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": visible(trait),
            "x": [row["position"] for row in rows],
            "y": [number(row["cosine"]) for row in rows],
            "customdata": [[visible(row["token"]), number(row["projection"], 3)] for row in rows],
            "hovertemplate": "%{customdata[0]}<br>cosine %{y:.3f}, "
            "projection %{customdata[1]}<extra>%{fullData.name}</extra>",
            "marker": {"size": 4},
            "role": roles[index % len(roles)],
        }
        for index, (trait, rows) in enumerate(series.items())
    ]
    layout: Figure = {
        "title": {"text": title},
        "xaxis": {"title": {"text": "token position"}},
        "yaxis": {"title": {"text": "cosine"}},
        "legend": {"orientation": "h", "y": -0.34},
    }
    if first_response is not None:
        edge = first_response - 0.5
        layout["shapes"] = [
            {"type": "line", "x0": edge, "x1": edge, "y0": 0, "y1": 1, "yref": "paper"}
            | {"line": {"dash": "dot", "width": 1}, "role": "neutral"}
        ]
    return {"data": traces, "layout": layout, "height": 290}


def number(value: float | None, digits: int = 4) -> float | None:
    """A value that JSON can hold; what is missing or not finite is null."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)


def _gap(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else number(max(high - low, 0.0))


def _evaluation_note(row: Row) -> str:
    effect = "no spread" if row["cohens_d"] is None else f"{row['cohens_d']:.2f}"
    return (
        f"AUROC {row['auroc']:.3f} ({row['ci_low']:.2f} to {row['ci_high']:.2f})<br>"
        f"d {effect}, accuracy {row['accuracy']:.2f}<br>"
        f"{row['n_positive']} positive, {row['n_negative']} negative"
    )


def level(y: float) -> Figure:
    """A dotted line across the figure."""
    return {
        "type": "line",
        "x0": 0,
        "x1": 1,
        "xref": "paper",
        "y0": y,
        "y1": y,
        "line": {"dash": "dot", "width": 1},
        "role": "neutral",
    }


def confound(rows: Sequence[Row]) -> str | None:
    """Warning when layer 0 separates as well as any; the best method of each layer counts."""
    best: dict[int, float] = {}
    for row in rows:
        best[row["layer"]] = max(row["auroc"], best.get(row["layer"], 0.0))
    return confound_note(best)
