"""Per-token projections as text that is coloured where the trait shows, and as lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jobs.report import plots
from jobs.report.data import ReportData, Row
from jobs.report.detail import Figures
from jobs.report.markup import missing, section, visible
from jobs.report.overview import label

MAX_PROMPTS = 6
MAX_TOKENS = 400
SMALLEST_REACH = 1e-6
"""Cosines that differ by less are the same but for rounding, and get no colour."""

Prompt = tuple[str, str, str]
"""Model, prompt set, prompt."""


def projections(data: ReportData, figures: Figures) -> str:
    """Several prompts with their answers, one coloured line of text for each trait."""
    title = "Projections, token by token"
    if not data.projections:
        return section("tokens", title, missing("No projection is committed in this run."))
    by_prompt = _by_prompt(data)
    scales = _scales(by_prompt)
    blocks = []
    for prompt in _spread(sorted(by_prompt)):
        series = by_prompt[prompt]
        texts = "".join(
            f'<div class="reading"><span class="who">{_who(trait, rows[0])}</span>'
            f'<p class="tokens">{_spans(rows, *scales[prompt[0], trait])}</p></div>'
            for trait, rows in series.items()
        )
        longest = max(series.values(), key=len)
        first = next((row["position"] for row in longest if row["is_response"]), None)
        figure = plots.projection_lines(
            {label(data, prompt[0], t): rows for t, rows in series.items()},
            title=visible(f"{prompt[1]} / {prompt[2]}"),
            first_response=first,
        )
        blocks.append(f'<article class="prompt">{figures.place(figure)}{texts}</article>')
    shown = len(blocks)
    lead = (
        f"{shown} of {len(by_prompt)} prompts. Colour is the cosine between a token's row and the "
        "trait's direction at the layer named beside it, less the trait's mean over all tokens, "
        "from "
        '<span class="token" style="--down:1">low</span> to '
        '<span class="token" style="--up:1">high</span>; hover for the numbers. The answer '
        "starts at the dotted line and is underlined."
    )
    return section("tokens", title, "".join(blocks), lead=lead)


def _by_prompt(data: ReportData) -> dict[Prompt, dict[str, list[Row]]]:
    """Rows by prompt and trait, at the layer and method that were chosen for the trait."""
    places: dict[tuple[str, str], set[tuple[int, str]]] = defaultdict(set)
    for row in data.projections:
        places[row["model"], row["trait"]].add((row["layer"], row["method"]))
    chosen = {key: _place(data, key, options) for key, options in places.items()}
    found: dict[Prompt, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in data.projections:
        if chosen[row["model"], row["trait"]] == (row["layer"], row["method"]):
            prompt = (row["model"], row["prompts"], row["prompt_id"])
            rows = found[prompt][row["trait"]]
            if len(rows) < MAX_TOKENS:
                rows.append(row)
    return {prompt: dict(sorted(series.items())) for prompt, series in found.items()}


def _place(
    data: ReportData, key: tuple[str, str], options: set[tuple[int, str]]
) -> tuple[int, str]:
    best = data.best.get(key)
    wanted = (best.row["layer"], best.row["method"]) if best else None
    if wanted in options:
        return wanted
    ordered = sorted(options)
    return ordered[len(ordered) // 2]


def _scales(
    by_prompt: dict[Prompt, dict[str, list[Row]]],
) -> dict[tuple[str, str], tuple[float, float]]:
    """(model, trait) -> mean cosine and largest distance from it."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for prompt, series in by_prompt.items():
        for trait, rows in series.items():
            values[prompt[0], trait] += [r["cosine"] for r in rows if r["cosine"] is not None]
    scales = {}
    for prompt, series in by_prompt.items():
        for trait in series:
            found = values[prompt[0], trait]
            mean = sum(found) / len(found) if found else 0.0
            reach = max((abs(v - mean) for v in found), default=0.0)
            scales[prompt[0], trait] = (mean, reach if reach > SMALLEST_REACH else 1.0)
    return scales


def _who(trait: str, row: Row) -> str:
    method = row["method"].replace("_", " ")
    return f"{visible(trait)}, layer {row['layer']}<br>{visible(method)}"


def _spans(rows: Sequence[Row], mean: float, reach: float) -> str:
    return "".join(_span(row, mean, reach) for row in rows)


def _span(row: Row, mean: float, reach: float) -> str:
    cosine = row["cosine"]
    style = ""
    if cosine is not None:
        share = (cosine - mean) / reach
        style = f' style="--{"up" if share > 0 else "down"}:{abs(share):.2f}"'
    note = (
        f"{row['token']!r}  id {row['token_id']}  position {row['position']}\n"
        f"cosine {'no value' if cosine is None else f'{cosine:.3f}'}, "
        f"projection {row['projection']:.3f}, row norm {row['row_norm']:.1f}"
    )
    css = "token answer" if row["is_response"] else "token"
    text = visible(row["token"].replace("\n", "\u23ce").replace("\t", "\u21e5"))
    return f'<span class="{css}"{style} title="{visible(note)}">{text}</span>'


def _spread(prompts: list[Prompt]) -> list[Prompt]:
    """At most ``MAX_PROMPTS``, evenly over the sets."""
    if len(prompts) <= MAX_PROMPTS:
        return prompts
    last = len(prompts) - 1
    return [prompts[round(i * last / (MAX_PROMPTS - 1))] for i in range(MAX_PROMPTS)]
