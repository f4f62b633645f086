"""What the report reads: each fact once, the newest of superseded ones, null kept null."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.report.data import ReportData
from jobs.report.detail import Figures, _answers_at, _spread, samples, similarities
from jobs.report.overview import headline, label, tiles
from jobs.report.tokens import projections
from storage.manifest import Run
from storage.schema import from_rows
from tests import report_run
from tests.report_run import PROVENANCE, START, build


@pytest.fixture
def run(tmp_path):
    with build(tmp_path / "run") as opened:
        yield opened


def summary_row(run, **changes):
    row = next(r for r in run.read("steering_summary").to_pylist() if r["vector_kind"] == "trait")
    return {k: v for k, v in row.items() if k not in ("task_id", "model")} | changes


def commit(run, task, model="toy", **tables):
    ready = {name: from_rows(name, rows) for name, rows in tables.items()}
    run.commit(task, ready, model=model, provenance=PROVENANCE)


def attempt(task, minutes):
    return {
        "invocation": "x",
        "of_task_id": task,
        "attempt": 1,
        "outcome": "done",
        "started_at": START + timedelta(minutes=minutes),
        "duration_s": 1.0,
        "num_tokens": 0,
    }


def test_the_best_cell_is_coherent_and_has_its_controls(run):
    best = ReportData(run).best["toy", "anxiety"]
    assert best is not None
    assert (best.row["layer"], best.row["coefficient"]) == (2, 1.0)
    assert best.negated is not None
    assert best.negated["vector_kind"] == "negated"
    assert best.negated["layer"] == 2
    assert best.random is not None
    assert best.random["delta"] == pytest.approx(2.5)


def test_of_a_trait_that_is_to_fall_the_lowest_coherent_cell_is_the_best(tmp_path):
    with build(tmp_path / "falls", falls=True) as fallen, build(tmp_path / "rises") as risen:
        best = ReportData(fallen).best["toy", "anxiety"]
        mirrored = ReportData(risen).best["toy", "anxiety"]
        page = tiles(ReportData(fallen))
        data = ReportData(fallen)
        order = _spread(_answers_at(data, best), data, best.sign)
    assert best is not None
    assert mirrored is not None
    assert (best.sign, mirrored.sign) == (-1, 1)
    assert (best.row["layer"], best.row["coefficient"]) == (2, 1.0)
    assert best.row["delta"] == -mirrored.row["delta"] == pytest.approx(-62.5)
    assert best.verdict == mirrored.verdict
    assert best.verdict.moved
    assert best.cross_fitted[0] == pytest.approx(-mirrored.cross_fitted[0])
    assert "lowered by 3 SE" in page
    assert "negated raises" in page
    assert [question for question, _ in order] == [5, 3, 2, 0]  # question q fell by 60 + q


def test_the_gate_is_the_one_that_the_run_was_told(run):
    assert ReportData(run).gate == 70.0
    with Run.open(run.root.parent / "other") as other:
        assert ReportData(other).gate == 70.0


def test_the_cross_fitted_effect_comes_from_the_judgements(run):
    best = ReportData(run).best["toy", "anxiety"]
    assert best is not None
    # Question q: 80 + 2 q steered, 20 + q unsteered; q runs from 0 to 5.
    assert best.cross_fitted[0] == pytest.approx(62.5)
    assert best.cross_fitted[1] == pytest.approx(1.870829 / 6**0.5, rel=1e-6)


def test_of_two_results_for_one_cell_the_task_tried_last_counts(run):
    older, newer = "summary-" + "9" * 24, "summary-" + "1" * 24
    commit(run, older, steering_summary=[summary_row(run, layer=7, delta=11.0)])
    commit(run, newer, steering_summary=[summary_row(run, layer=7, delta=22.0)])
    commit(run, "run-" + "5" * 12, attempts=[attempt(older, 1), attempt(newer, 2)])
    rows = [row for row in ReportData(run).summary if row["layer"] == 7]
    assert [row["delta"] for row in rows] == [22.0]


def test_models_are_kept_apart_and_named_when_there_are_several(run):
    assert label(ReportData(run), "toy", "anxiety") == "anxiety"
    commit(run, "summary-" + "8" * 24, "other", steering_summary=[summary_row(run)])
    data = ReportData(run)
    assert data.models == ["other", "toy"]
    assert set(data.best) == {("other", "anxiety"), ("toy", "anxiety")}
    assert label(data, "other", "anxiety") == "anxiety · other"
    assert "anxiety · other" in tiles(data)


def test_a_run_record_alone_is_no_model_with_results(tmp_path):
    with Run.open(tmp_path) as empty:
        commit(empty, "run-" + "7" * 12, attempts=[attempt("x", 0)])
        assert ReportData(empty).models == []


def test_a_trait_without_a_coherent_cell_has_no_best_and_says_so(tmp_path):
    with Run.open(tmp_path) as only:
        with build(tmp_path / "source") as source:
            row = summary_row(source, coherence_mean=50.0)
        commit(only, "summary-" + "0" * 24, steering_summary=[row])
        data = ReportData(only)
        assert data.best == {("toy", "anxiety"): None}
        assert "No cell reaches the coherence gate of 70" in tiles(data)
        assert "no coherent cell" in headline(data)
        assert "&ndash;" in headline(data)


def test_scores_that_are_null_stay_null(tmp_path):
    with Run.open(tmp_path) as only:
        with build(tmp_path / "source") as source:
            row = summary_row(source, trait_mean=None, delta=None, delta_se=None, z=None)
        commit(only, "summary-" + "0" * 24, steering_summary=[row])
        data = ReportData(only)
        assert data.summary[0]["delta"] is None
        assert data.best == {("toy", "anxiety"): None}


def test_samples_run_from_the_largest_change_to_the_smallest(run):
    page = samples(ReportData(run))
    order = [page.index(f"trait 2 1.0 {question}.") for question in (5, 3, 2, 0)]
    assert order == sorted(order)
    assert "trait 2 1.0 4." not in page


def test_similarity_compares_at_the_layer_that_was_chosen(run):
    figures = Figures()
    similarities(ReportData(run), figures)
    titles = [figure["layout"]["title"]["text"] for figure in figures.by_name.values()]
    assert titles == ["between traits (mean difference, layer 2)", "anxiety across layers"]


def test_projections_are_shown_at_the_chosen_layer(run):
    figures = Figures()
    page = projections(ReportData(run), figures)
    assert page.count('<article class="prompt">') == 6
    assert all(len(figure["data"][0]["x"]) == 6 for figure in figures.by_name.values())


def test_projections_at_other_layers_are_shown_when_the_chosen_was_not_projected(tmp_path):
    with Run.open(tmp_path) as only:
        commit(only, "projection-" + "0" * 24, projections=report_run.projections("guilt", "x"))
        figures = Figures()
        page = projections(ReportData(only), figures)
        assert page.count('<article class="prompt">') == 6
