"""The first screen: what came out for each trait, and what exactly was run to get it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from jobs.report.data import Best, ReportData
from jobs.report.forecast import predictions
from jobs.report.markup import (
    decimal,
    mark,
    missing,
    quoted,
    section,
    size_text,
    table,
    visible,
    with_error,
)
from jobs.report.units import strength

MAX_TASK_ROWS = 400

NO_STEERING = "No steering results are committed in this run, so there is nothing to compare yet."


def label(data: ReportData, model: str, trait: str) -> str:
    """Name of a trait, with its model when the run has several."""
    return trait if len(data.models) < 2 else f"{trait} · {model}"


def tiles(data: ReportData) -> str:
    """One card for each trait: did steering work, by how much."""
    if not data.best:
        return missing(NO_STEERING)
    return f'<div class="tiles">{"".join(_tile(data, *key) for key in data.best)}</div>'


def _tile(data: ReportData, model: str, trait: str) -> str:
    best = data.best[model, trait]
    name = visible(label(data, model, trait))
    if best is None:
        return (
            f'<article class="tile bad"><h3>{name}</h3><p class="big">&ndash;</p>'
            f"<p>No cell reaches the coherence gate of {data.gate:g}.</p></article>"
        )
    row, judged = best.row, best.verdict
    css = "good" if judged.holds else "bad"
    moved, back = ("raised", "lowers") if best.sign > 0 else ("lowered", "raises")
    before, after = decimal(row["baseline_mean"]), decimal(row["trait_mean"])
    return (
        f'<article class="tile {css}"><h3>{name}</h3>'
        f'<p class="big">{with_error(row["delta"], row["delta_se"])} '
        '<span class="error">points</span></p>'
        f"<p>{before} → {after} at layer {row['layer']}, "
        f"coefficient {strength(row)}{_edge(data, row)}</p>"
        f'<p class="marks">{mark(judged.moved, yes=f"{moved} by 3 SE", no=f"not {moved} by 3 SE")}'
        f"{mark(judged.reversed, yes=f'negated {back}', no='negated does not', none='no room')}"
        f"{mark(judged.random_neutral, yes='random neutral', no='random moves it')}</p></article>"
    )


def _edge(data: ReportData, row: Mapping[str, Any]) -> str:
    """Say when nothing stronger was tried, so that the best may lie outside of the sweep."""
    names = ("model", "trait", "layer", "method", "coefficient_unit")
    tried = [
        abs(cell["coefficient"])
        for cell in data.summary
        if all(cell[name] == row[name] for name in names)
    ]
    return ", the largest tried" if abs(row["coefficient"]) >= max(tried) else ""


def headline(data: ReportData) -> str:
    """The table of best cells with their controls."""
    if not data.best:
        return section("results", "Steering at the best cell", missing(NO_STEERING))
    heads = ["trait", "#layer", "method", "#coefficient", "#baseline", "#steered", "#delta ± SE"]
    heads += ["#z", "#cross-fitted", "#negated", "#random", "#coherence", "verdict"]
    rows = [_headline_row(data, key, best) for key, best in data.best.items()]
    lead = (
        "Mean judge score from 0 to 100 over the steering questions. A coefficient is a length "
        "added to the residual stream, or a multiple of the layer's mean residual norm (x norm). "
        "Delta is paired by question, "
        "SE is its standard error over questions, z their ratio. The best cell is the one with the "
        "largest delta, or the lowest where the trait is meant to fall, whose mean coherence "
        f"reaches the gate of {data.gate:g}; choosing the "
        "largest of many flatters it, so <em>cross-fitted</em> repeats the choice on one half of "
        "the questions and measures on the other."
    )
    return section(
        "results", "Steering at the best cell", table(heads, rows, css="wide"), lead=lead
    )


def _headline_row(data: ReportData, key: tuple[str, str], best: Best | None) -> list[str]:
    name = f"<b>{visible(label(data, *key))}</b>"
    if best is None:
        return [name, *[decimal(None)] * 11, mark(False, no="no coherent cell")]
    row = best.row
    return [
        name,
        str(row["layer"]),
        visible(str(row["method"]).replace("_", " ")),
        visible(strength(row)),
        with_error(row["baseline_mean"], row["baseline_se"], sign=False),
        with_error(row["trait_mean"], row["trait_se"], sign=False),
        f"<b>{with_error(row['delta'], row['delta_se'])}</b>",
        decimal(row["z"]),
        with_error(*best.cross_fitted),
        _control(best.negated),
        _control(best.random),
        decimal(row["coherence_mean"]),
        mark(best.verdict.holds, yes="holds", no="does not hold"),
    ]


def _control(row: Mapping[str, Any] | None) -> str:
    return decimal(None) if row is None else with_error(row["delta"], row["delta_se"])


def what_was_run(data: ReportData) -> str:
    """Models, traits, seeds, digests, versions and times."""
    parts = [_facts(data), _commands(data), predictions(data), _vetting(data)]
    return section("run", "What was run", "".join(parts))


def _facts(data: ReportData) -> str:
    found: dict[str, set[str]] = defaultdict(set)
    versions: dict[str, set[str]] = defaultdict(set)
    for commit in data.commits.values():
        facts = commit.provenance
        for name in ("device", "dtype", "tensor_parallel_size"):
            if name in facts:
                found[name].add(str(facts[name]))
        if "model_digest" in facts:
            found["model"].add(f"{commit.model} · sha256 {str(facts['model_digest'])[:12]}")
        question = facts.get("question")
        if isinstance(question, Mapping):
            if "seed" in question:
                found["seed"].add(str(question["seed"]))
            if "judge" in question:
                found["judge"].add(str(question["judge"]))
        for package, version in _mapping(facts.get("versions")).items():
            versions[str(package)].add(str(version))
    for row in data.vectors:
        found["trait data"].add(f"{row['trait']} · sha256 {row['dataset_digest'][:12]}")
    lines = [
        (f"<b>{visible(name)}</b>", "<br>".join(visible(value) for value in sorted(found[name])))
        for name in ("model", "trait data", "judge", "seed", "device", "dtype")
        if found[name]
    ]
    ranks = ", ".join(sorted(found["tensor_parallel_size"]))
    if ranks:
        lines.append(("<b>ranks per model</b>", visible(ranks)))
    if versions:
        words = (f"{name} {', '.join(sorted(v))}" for name, v in sorted(versions.items()))
        lines.append(("<b>versions</b>", visible("; ".join(words))))
    if not lines:
        return missing("No result is committed in this run yet.")
    return table(["", ""], lines, css="facts")


def _commands(data: ReportData) -> str:
    if not data.runs:
        return missing("No command is recorded in this run.")
    rows = []
    for row in data.runs:
        end, start = row["finished_at"], row["started_at"]
        took = decimal(None) if end is None else f"{(end - start).total_seconds():.0f} s"
        rows.append(
            [
                f"<code>{visible(row['command'])}</code>",
                visible(start.strftime("%Y-%m-%d %H:%M:%S UTC")),
                took,
                decimal(None) if row["exit_code"] is None else str(row["exit_code"]),
                f"{row['num_tasks']} ({row['num_tasks_done_before']} already done)",
                visible(row["host"]),
            ]
        )
    return "<h3>Commands</h3>" + table(
        ["command", "started", "#took", "#exit code", "#tasks", "host"], rows
    )


def _vetting(data: ReportData) -> str:
    if not data.vetting:
        return missing("No vetted responses are committed in this run.")
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in data.vetting:
        groups[row["model"], row["trait"], row["polarity"]].append(row)
    rows = []
    for (model, trait, polarity), members in groups.items():
        scores = [row["score"] for row in members if row["score"] is not None]
        passed = sum(row["passed"] for row in members)
        rows.append(
            [
                visible(label(data, model, trait)),
                visible(polarity),
                f"{passed} of {len(members)}",
                decimal(sum(scores) / len(scores) if scores else None),
                str(len(members) - len(scores)),
            ]
        )
    heads = ["trait", "polarity", "#passed vetting", "#mean score", "#without a score"]
    return "<h3>Responses that the directions come from</h3>" + table(heads, rows)


def tasks(data: ReportData) -> str:
    """Every committed task with its files, by kind."""
    if not data.commits:
        return section("tasks", "Tasks and files", missing("No task is committed in this run."))
    kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    lines: list[list[str]] = []
    for task, commit in data.commits.items():
        kind = kinds[task.rpartition("-")[0]]
        for slot, amount in enumerate(
            [
                1,
                len(commit.files),
                sum(file.num_rows for file in commit.files),
                sum(file.size_bytes for file in commit.files),
            ]
        ):
            kind[slot] += amount
        if len(lines) < MAX_TASK_ROWS:
            lines += [
                [
                    f"<code>{visible(task)}</code>",
                    visible(commit.model),
                    visible(file.table),
                    str(file.num_rows),
                    size_text(file.size_bytes),
                    f"<code>{visible(file.sha256[:12])}</code>",
                ]
                for file in commit.files
            ]
    summary = [
        [visible(kind), str(n), str(files), str(rows), size_text(size)]
        for kind, (n, files, rows, size) in sorted(kinds.items())
    ]
    body = table(["kind", "#tasks", "#files", "#rows", "#size"], summary)
    note = "" if len(lines) < MAX_TASK_ROWS else f" (the first {MAX_TASK_ROWS})"
    files = table(["task", "model", "table", "#rows", "#size", "sha256"], lines)
    body += f"<details><summary>All committed files{note}</summary>{files}</details>"
    return section("tasks", "Tasks and files", body)


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, str):
        value = json.loads(value)
    return value if isinstance(value, Mapping) else {}


def words(text: str) -> str:
    """A model's words in a paragraph."""
    return f"<p>{quoted(text)}</p>"
