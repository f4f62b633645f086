"""Figures: what is drawn where, nulls for what is missing, roles instead of colours."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jobs.report import plots, steering_plots
from jobs.report.markup import script_json

COLUMNS = ("trait_mean", "trait_se", "coherence_mean", "delta", "delta_se")


def cell(layer, coefficient, delta, kind="trait", coherence=90.0):
    return {
        "layer": layer,
        "coefficient": coefficient,
        "coefficient_unit": "residual_norm",
        "vector_kind": kind,
        "trait_mean": None if delta is None else 20.0 + delta,
        "trait_se": 2.0,
        "coherence_mean": coherence,
        "delta": delta,
        "delta_se": 1.5,
    }


def heat(rows, chosen=None):
    return steering_plots.heat_map(
        rows, "delta", title="t", scale=plots.DIVERGING, limits=(-100, 100), chosen=chosen
    )


def test_a_heat_map_has_layers_down_and_coefficients_across_in_order():
    rows = [cell(5, 2.0, 40.0), cell(1, 0.5, 10.0), cell(1, 2.0, 30.0), cell(5, 0.5, 20.0)]
    trace = heat(rows)["data"][0]
    assert trace["y"] == ["1", "5"]
    assert trace["x"] == ["0.5", "2"]
    assert trace["z"] == [[10.0, 30.0], [20.0, 40.0]]
    assert trace["text"] == [["10", "30"], ["20", "40"]]
    assert (trace["zmin"], trace["zmax"]) == (-100, 100)


def test_a_cell_without_a_score_and_one_that_was_not_run_are_blank_and_say_why():
    trace = heat([cell(1, 0.5, None), cell(2, 1.0, 0.0)])["data"][0]
    assert trace["z"] == [[None, None], [None, 0.0]]
    assert trace["text"] == [["", ""], ["", "0"]]
    assert "no score" in trace["customdata"][0][0]
    assert trace["customdata"][0][1] == "not run"
    assert "delta 0.0 ± 1.5" in trace["customdata"][1][1]


def test_the_chosen_cell_is_framed_at_its_place():
    rows = [cell(1, 0.5, 10.0), cell(5, 0.5, 20.0), cell(1, 2.0, 30.0)]
    (shape,) = heat(rows, chosen=rows[2])["layout"]["shapes"]
    assert (shape["x0"], shape["x1"], shape["y0"], shape["y1"]) == (0.5, 1.5, -0.5, 0.5)
    assert "shapes" not in heat(rows)["layout"]
    assert "shapes" not in heat(rows, chosen=cell(9, 9.0, 1.0))["layout"]


def test_a_dose_runs_from_the_negated_vector_through_the_baseline_to_the_trait():
    rows = [
        cell(1, 1.0, 40.0),
        cell(1, 0.5, 20.0),
        cell(1, 0.5, -8.0, kind="negated"),
        cell(1, 1.0, -12.0, kind="negated"),
        cell(1, 1.0, 1.0, kind="random"),
    ]
    baseline = {"baseline_mean": 20.0, "baseline_se": 3.0}
    figure = steering_plots.dose_response(rows, title="t", baseline=baseline, gate=70.0)
    main, random, coherence = figure["data"]
    assert main["x"] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert main["y"] == [8.0, 12.0, 20.0, 40.0, 60.0]
    assert main["error_y"]["array"] == [2.0, 2.0, 3.0, 2.0, 2.0]
    assert random["x"] == [0.0, 1.0]
    assert random["y"] == [20.0, 21.0]
    assert random["line"]["dash"] == "dash"
    assert coherence["x"] == [-1.0, -0.5, 0.5, 1.0]
    assert "error_y" not in coherence
    assert figure["layout"]["shapes"][0]["y0"] == 70.0


def test_a_dose_without_controls_or_coherence_draws_what_there_is():
    rows = [cell(1, 1.0, None, coherence=None)]
    figure = steering_plots.dose_response(
        rows, title="t", baseline={"baseline_mean": None, "baseline_se": None}, gate=70.0
    )
    assert [trace["name"] for trace in figure["data"]] == ["trait vector"]
    assert figure["data"][0]["y"] == [None, None]


def evaluated(layer, method, auroc, low, high, d=1.0):
    return {
        "layer": layer,
        "method": method,
        "auroc": auroc,
        "ci_low": low,
        "ci_high": high,
        "cohens_d": d,
        "accuracy": 0.8,
        "n_positive": 6,
        "n_negative": 5,
        "random_auroc": 0.55,
    }


def test_evaluation_has_a_line_for_each_method_with_intervals_and_the_random_control():
    rows = [
        evaluated(1, "probe", 0.9, 0.7, 1.0),
        evaluated(0, "probe", 0.6, 0.5, 0.8),
        evaluated(0, "mean_difference", 0.7, 0.4, 0.9, d=None),
    ]
    mean, probe, control = plots.evaluation_by_layer(rows, title="t")["data"]
    assert mean["name"] == "mean difference"
    assert "d no spread" in mean["customdata"][0]
    assert probe["x"] == [0, 1]
    assert probe["y"] == [0.6, 0.9]
    assert probe["error_y"]["array"] == pytest.approx([0.2, 0.1])
    assert probe["error_y"]["arrayminus"] == pytest.approx([0.1, 0.2])
    assert control["name"] == "random direction"
    assert control["y"] == [0.55, 0.55]


def test_the_first_layer_warning_takes_the_best_method_of_each_layer():
    rows = [evaluated(0, "probe", 0.99, 0.9, 1.0), evaluated(0, "mean", 0.6, 0.5, 0.7)]
    assert plots.confound([*rows, evaluated(1, "probe", 0.99, 0.9, 1.0)])
    assert plots.confound([rows[1], evaluated(1, "probe", 0.99, 0.9, 1.0)]) is None


def test_similarity_is_the_matrix_of_cosines():
    figure = plots.similarity(["a<b", "c"], [[1.0, 0.0], [0.6, 0.8]], title="t")
    trace = figure["data"][0]
    assert np.allclose(trace["z"], [[1.0, 0.6], [0.6, 1.0]])
    assert trace["x"] == ["a&lt;b", "c"]
    assert (trace["zmin"], trace["zmax"]) == (-1, 1)


def test_projection_lines_mark_the_answer_and_escape_their_tokens():
    rows = [
        {"position": i, "cosine": c, "projection": 2.0, "token": "<i>"}
        for i, c in enumerate([0.1, None, -0.2])
    ]
    figure = plots.projection_lines({"anxiety": rows}, title="t", first_response=2)
    (trace,) = figure["data"]
    assert trace["y"] == [0.1, None, -0.2]
    assert trace["customdata"][0] == ["&lt;i&gt;", 2.0]
    assert figure["layout"]["shapes"][0]["x0"] == 1.5
    assert (
        "shapes"
        not in plots.projection_lines({"anxiety": rows}, title="t", first_response=None)["layout"]
    )


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_null(value):
    assert plots.number(value) is None
    assert plots.number(0.123456) == 0.1235


def test_a_figure_is_json_and_names_roles_not_colours():
    figure = heat([cell(1, 0.5, 3.0)], chosen=cell(1, 0.5, 3.0))
    text = script_json(figure)
    assert json.loads(text) == figure
    assert "#" not in text
    assert figure["data"][0]["role"] == plots.DIVERGING


def test_the_drawing_library_is_the_one_that_came_with_plotly_and_cannot_end_its_script():
    source = plots.plotly_source()
    assert "plotly.js v" in source[:300]
    assert "</script" not in source.lower()
    assert len(source) < 5_200_000
