"""Sections of the report, one by one: what each says, and what it says when there is nothing."""

from __future__ import annotations

import json
import re

import pytest

from jobs.report import detail, forecast, overview, tokens
from jobs.report.data import ReportData
from storage.manifest import Run
from storage.schema import from_rows
from tests import report_run
from tests.report_run import PROVENANCE, build


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with build(tmp_path_factory.mktemp("run")) as run:
        read = ReportData(run)
        # Everything is read while the run is open.
        assert read.best
        assert read.answers
        assert read.scores
        assert read.projections
        assert read.vectors
        assert read.evaluation
        assert read.vetting
        yield read


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    with Run.open(tmp_path_factory.mktemp("empty")) as run:
        yield ReportData(run)


def plain(markup):
    return " ".join(re.sub(r"<[^>]+>", " ", markup).split())


def with_rows(folder, **tables):
    run = Run.open(folder)
    ready = {name: from_rows(name, rows) for name, rows in tables.items()}
    run.commit("summary-" + "0" * 24, ready, model="toy", provenance=PROVENANCE)
    return run


def test_a_tile_is_good_only_when_every_control_held(tmp_path):
    rows = [r for r in report_run.summary("guilt") if r["vector_kind"] != "random"]
    with with_rows(tmp_path, steering_summary=rows) as run:
        good = overview.tiles(ReportData(run))
    assert 'class="tile good"' in good
    assert "not tested" in good


def test_a_random_vector_that_moves_the_trait_marks_the_tile(data):
    # The fixture's random vector lifts the score by 2.5 with an error of 0.76: 3.3 errors.
    made = overview.tiles(data)
    assert 'class="tile bad"' in made
    assert "random moves it" in made


def test_a_baseline_at_the_end_of_the_scale_leaves_no_room_for_the_negated_vector(tmp_path):
    rows = [r | {"baseline_mean": 1.0} for r in report_run.summary("guilt")]
    with with_rows(tmp_path, steering_summary=rows) as run:
        assert "no room" in overview.tiles(ReportData(run))


def test_a_cell_inside_the_sweep_is_not_called_the_largest_tried(tmp_path):
    rows = [
        r | {"delta": -1.0} if r["coefficient"] == 1.0 else r for r in report_run.summary("guilt")
    ]
    with with_rows(tmp_path, steering_summary=rows) as run:
        assert "the largest tried" not in overview.tiles(ReportData(run))


def test_lengths_and_multiples_of_the_norm_never_share_a_heat_map(tmp_path):
    ratios = report_run.summary("guilt")
    lengths = [
        row | {"coefficient": row["coefficient"] * 90, "coefficient_unit": "length", "delta": 1.0}
        for row in ratios
    ]
    with with_rows(tmp_path, steering_summary=[*ratios, *lengths]) as run:
        data, figures = ReportData(run), detail.Figures()
        detail.heat_maps(data, figures)
        detail.dose_responses(data, figures)
    axes = [figure["layout"]["xaxis"]["title"]["text"] for figure in figures.by_name.values()]
    shown = [figure["data"][0]["x"] for figure in figures.by_name.values()]
    length, norm = "length in the residual stream", "x the layer's mean residual norm"
    assert axes == [f"coefficient ({unit})" for unit in (length, length, norm, norm, norm)]
    assert shown[:4] == [["45", "90"]] * 2 + [["0.5", "1"]] * 2
    assert shown[4] == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_equal_numbers_of_different_units_are_different_cells(tmp_path):
    ratios = report_run.summary("guilt")
    lengths = [row | {"coefficient_unit": "length", "delta": 1.0} for row in ratios]
    with with_rows(tmp_path, steering_summary=[*ratios, *lengths]) as run:
        data = ReportData(run)
    assert len(data.summary) == len(ratios) + len(lengths)


def test_the_headline_table_has_a_column_for_each_control(data):
    made = overview.headline(data)
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", made)
    assert heads == [
        "trait",
        "layer",
        "method",
        "coefficient",
        "baseline",
        "steered",
        "delta ± SE",
        "z",
        "cross-fitted",
        "negated",
        "random",
        "coherence",
        "verdict",
    ]
    assert made.count("<tr>") == 2


def test_vetting_counts_what_passed_and_what_had_no_score(data):
    text = plain(overview.what_was_run(data))
    # Three positives passed and one was refused; the mean is over the three that have a score.
    assert "anxiety positive 3 of 4 80.0 1" in text
    assert "anxiety negative 3 of 3 5.0 0" in text


def test_a_command_that_was_killed_has_a_dash_for_its_time(tmp_path):
    command = report_run.command("x") | {"finished_at": None, "exit_code": None}
    run = Run.open(tmp_path)
    ready = {"runs": from_rows("runs", [command])}
    run.commit("run-" + "1" * 12, ready, model="toy", provenance={})
    with run:
        text = plain(overview.what_was_run(ReportData(run)))
    assert "2026-01-02 03:04:05 UTC &ndash; &ndash;" in text


def test_tasks_are_summed_by_kind_and_listed_by_file(data):
    text = plain(overview.tasks(data))
    # Six questions times 18 steered cells and one unsteered answer; twice as many judgements.
    assert re.search(r"steering 1 3 360 [\d.]+ kB", text)
    assert re.search(r"vetting 1 1 7 [\d.]+ kB", text)


def test_long_lists_of_files_are_cut_with_a_word(data, monkeypatch):
    monkeypatch.setattr(overview, "MAX_TASK_ROWS", 3)
    assert "All committed files (the first 3)" in plain(overview.tasks(data))


def test_heat_maps_come_in_pairs_and_frame_the_chosen_cell(data):
    figures = detail.Figures()
    made = detail.heat_maps(data, figures)
    assert made.count('class="pair"') == 1
    scores, coherence = figures.by_name.values()
    assert scores["data"][0]["z"][2] == [42.5, 62.5]
    assert coherence["data"][0]["z"] == [[90.0, 90.0], [90.0, 40.0], [90.0, 90.0]]
    assert scores["layout"]["shapes"][0]["x0"] == 0.5
    assert scores["layout"]["shapes"][0]["y0"] == 1.5


def test_only_the_trait_vector_is_in_the_heat_map(data):
    figures = detail.Figures()
    detail.heat_maps(data, figures)
    cells = next(iter(figures.by_name.values()))["data"][0]["z"]
    assert min(min(line) for line in cells) > 0


def test_a_dose_is_drawn_at_the_chosen_layer(data):
    figures = detail.Figures()
    detail.dose_responses(data, figures)
    (figure,) = figures.by_name.values()
    assert figure["layout"]["title"]["text"] == "anxiety, layer 2"
    assert figure["data"][0]["x"] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert figure["data"][0]["y"] == [13.0, 17.0, 22.5, 65.0, 85.0]


def test_an_evaluation_without_a_keyword_problem_has_no_warning(data):
    made = detail.evaluations(data, detail.Figures())
    assert 'class="note"' not in made
    assert "never used for fitting" in made


def test_cross_validated_results_are_called_out_of_fold(tmp_path):
    rows = [r | {"folds": 5} for r in report_run.evaluation("guilt")]
    rows = [r | {"auroc": 0.97} for r in rows]
    with with_rows(tmp_path, evaluation=rows) as run:
        made = detail.evaluations(ReportData(run), detail.Figures())
    assert "out of fold" in made
    assert "Layer 0 already reaches AUROC 0.97" in made


def test_answers_without_a_score_are_left_out_of_the_comparison(tmp_path):
    judged = [
        r | {"score": None, "reason": "refused"} if r["question"] == 5 else r
        for r in report_run.judgements("guilt")
    ]
    with with_rows(
        tmp_path,
        steering=report_run.steering("guilt", "x"),
        judgements=judged,
        steering_summary=report_run.summary("guilt"),
    ) as run:
        made = detail.samples(ReportData(run))
    assert "trait 2 1.0 5." not in made
    assert "trait 2 1.0 4." in made


def test_answers_of_the_first_traits_are_open_and_the_rest_folded(data, monkeypatch):
    assert detail.samples(data).count("<details open>") == 1
    monkeypatch.setattr(detail, "MAX_OPEN", 0)
    assert detail.samples(data).count("<details>") == 1


def test_a_token_tells_its_numbers_and_a_line_break_is_seen(tmp_path):
    rows = report_run.projections("guilt", "\nx\t")
    with with_rows(tmp_path, projections=rows) as run:
        made = tokens.projections(ReportData(run), detail.Figures())
    assert "cosine 0.100, projection 1.000, row norm 10.0" in made
    assert "id 8  position 3" in made
    assert "t2\u23cex\u21e5" in made
    assert made.count('class="token answer"') == 6 * 3
    assert made.count('<span class="who">guilt, layer 2<br>mean difference</span>') == 6


def test_long_prompts_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_TOKENS", 4)
    with with_rows(tmp_path, projections=report_run.projections("guilt", "x")) as run:
        made = tokens.projections(ReportData(run), detail.Figures())
    assert made.count("position 3") == 6
    assert made.count("position 4") == 0


def test_constant_projections_have_no_colour(tmp_path):
    rows = [r | {"cosine": 0.3} for r in report_run.projections("guilt", "x")]
    with with_rows(tmp_path, projections=rows) as run:
        made = tokens.projections(ReportData(run), detail.Figures())
    shares = {float(share) for share in re.findall(r"--(?:up|down):([\d.]+)\" title", made)}
    assert shares == {0.0}


@pytest.mark.parametrize(
    "make",
    [
        overview.tiles,
        overview.headline,
        overview.what_was_run,
        overview.tasks,
        detail.samples,
        lambda data: detail.heat_maps(data, detail.Figures()),
        lambda data: detail.dose_responses(data, detail.Figures()),
        lambda data: detail.evaluations(data, detail.Figures()),
        lambda data: detail.similarities(data, detail.Figures()),
        lambda data: tokens.projections(data, detail.Figures()),
    ],
)
def test_a_section_without_rows_is_a_sentence(make, nothing):
    made = make(nothing)
    assert 'class="missing"' in made
    assert "<table" not in made


def test_every_figure_has_a_name_of_its_own_and_a_label():
    figures = detail.Figures()
    figure = {"data": [], "layout": {"title": {"text": "a \u202e b"}}, "height": 99.6}
    made = [figures.place(figure), figures.place({"data": [], "layout": {}, "height": 1})]
    assert list(figures.by_name) == ["figure0", "figure1"]
    assert 'aria-label="a [U+202E] b"' in made[0]
    assert "height:99px" in made[0]
    assert 'aria-label="figure"' in made[1]


FORECAST = [
    {"quantity": "tasks", "unit": "", "bound": "exact", "predicted": 14, "actual": 14},
    {"quantity": "bytes in <b>", "unit": "B", "bound": "about", "predicted": 5e5, "actual": 6e5},
    {"quantity": "computing time", "unit": "s", "bound": "about", "predicted": 8.4, "actual": None},
    {"quantity": "GPU dollars", "unit": "USD", "bound": "about", "predicted": 2, "actual": 2.5},
]


def test_predictions_stand_beside_what_it_was_and_idle_time_has_a_cause(tmp_path):
    with build(tmp_path) as run:
        (row,) = run.read("runs").to_pylist()
        task = f"run-{row['invocation']}"
        folder = tmp_path / "_meta" / "commits" / f"{task}.json"
        record = json.loads(folder.read_text())
        uses = {"busy": 3.0, "judge": 1.0}
        record["provenance"] |= {"forecast": FORECAST, "group_seconds": uses}
        folder.write_text(json.dumps(record))
    with Run.open(tmp_path) as run:
        made = forecast.predictions(ReportData(run))
    said = plain(made)
    assert "tasks exact 14 14" in said
    assert "500,000 B 600,000 B" in said
    assert "8.4 s" in said
    assert "2.00 USD 2.50 USD" in said
    assert "busy 3.0 s (75 %), judge 1.0 s (25 %)" in said
    assert "bytes in <b>" not in made


def test_a_run_without_predictions_says_so(data):
    assert "No command of this run made a prediction." in forecast.predictions(data)
