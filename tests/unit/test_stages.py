"""Each stage's rows say what was asked and what came back, and the next stage reads just that."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from actors.judges.query import JudgeScore, JudgeTotals
from actors.request import Sampling
from conf.schema import PromptItem
from conf.stages import ExtractionConfig, SteeringConfig
from jobs.failure import TaskFailed
from jobs.stages.calibrating import CalibrateWork
from jobs.stages.capturing import CaptureWork, CompletionWork
from jobs.stages.fitting import FitWork, vector_sha256
from jobs.stages.judging import JudgeWork, VettingWork
from jobs.stages.projecting import ProjectWork, Target
from jobs.stages.responses import ResponsesWork
from jobs.stages.steering import AnswersWork, SteeredWork, random_direction
from jobs.stages.summary import SummaryWork, scored
from tests.stage_context import anxiety, open_context, run_cpu_work, run_group_work, task
from tests.standin import AXIS, LAYERS, WIDTH

HELD_OUT = frozenset({0, 5, 9})
EXTRACTION = ExtractionConfig(min_passed=4)
STEERING = SteeringConfig(samples=2, temperature=0.0, max_new_tokens=12)


@pytest.fixture
def context(tmp_path):
    made = open_context(tmp_path)
    yield made
    made.run.close()


def responses(polarity: str, settings=EXTRACTION) -> ResponsesWork:
    return ResponsesWork(
        task=task(f"responses-{polarity}", "responses"),
        trait=anxiety(),
        polarity=polarity,
        settings=settings,
        seed=3,
        held_out=HELD_OUT,
        dataset_digest="e" * 64,
        site="resid_post",
    )


ANSWERED = ("responses-positive", "responses-negative")


def extract(context, *, layer: int = 1, method: str = "mean_difference", **changes) -> FitWork:
    for polarity in ("positive", "negative"):
        run_group_work(responses(polarity), context)
    run_cpu_work(
        VettingWork(
            task=task("vetting-1", "vetting"), after=ANSWERED, trait=anxiety(), settings=EXTRACTION
        ),
        context,
    )
    work = fit(layer=layer, method=method, **changes)
    run_cpu_work(work, context)
    return work


def fit(*, layer: int = 1, method: str = "mean_difference", settings=EXTRACTION) -> FitWork:
    return FitWork(
        task=task(f"fit-{layer}-{method}", "fit"),
        after=(*ANSWERED, "vetting-1"),
        trait=anxiety(),
        settings=settings,
        layer=layer,
        method=method,
        seed=3,
        held_out=HELD_OUT,
        responses=ANSWERED,
        vetting=("vetting-1",),
        dataset_digest="e" * 64,
    )


def steered(**changes) -> SteeredWork:
    given = {
        "task": task("steering-1", "steering"),
        "after": ("fit-1-mean_difference",),
        "trait": anxiety(),
        "settings": STEERING,
        "site": "resid_post",
        "seed": 3,
        "layer": 1,
        "method": "mean_difference",
        "coefficient": 1.0,
        "unit": "residual_norm",
        "vector_task": "fit-1-mean_difference",
        "operator": "add",
    }
    return SteeredWork(**{**given, **changes})


def test_responses_keep_ids_split_and_one_pooled_row_for_each_layer(context):
    run_group_work(responses("positive"), context)

    rows = context.rows("responses", ["responses-positive"]).to_pylist()
    assert len(rows) == 12
    assert {row["scenario"] for row in rows if row["split"] == "held_out"} == HELD_OUT
    assert all(row["prompt_ids"][0] == 1 for row in rows)  # beginning of sequence
    assert all(row["completion"].startswith("I am afraid") for row in rows)
    pooled = context.rows("pooled", ["responses-positive"])
    assert pooled.num_rows == 12 * LAYERS
    assert set(pooled["num_tokens"].to_pylist()) == {5}
    assert {len(vector) for vector in pooled["vector"].to_pylist()} == {WIDTH}


def test_samples_of_one_prefix_are_numbered(context):
    run_group_work(responses("negative", ExtractionConfig(samples=3)), context)
    rows = context.rows("responses", ["responses-negative"]).to_pylist()
    assert [(row["scenario"], row["sample"]) for row in rows[:4]] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
    ]


def test_request_ids_start_with_the_task_so_they_do_not_depend_on_the_bundle(context):
    asked = responses("positive").ask(context)
    assert asked.requests[0].id == "responses-positive:0:0"
    assert len({request.id for request in asked.requests}) == 12
    assert asked.requests[0].sampling.seed == 3


def test_vetting_passes_each_side_by_its_own_threshold(context):
    extract(context)
    rows = context.rows("vetting", ["vetting-1"]).to_pylist()
    assert len(rows) == 24
    assert all(row["passed"] for row in rows)
    positive = {row["score"] for row in rows if row["polarity"] == "positive"}
    assert min(positive) >= 60
    assert {row["score"] for row in rows if row["polarity"] == "negative"} == {0.0}


class Refusing:
    """A judge that has no score."""

    name, version = "refusing", "0"
    totals = JudgeTotals()

    def score(self, queries):
        return [
            JudgeScore(id=query.id, score=None, reason="the server said no") for query in queries
        ]


def test_a_response_without_a_score_is_not_used_and_says_why(context):
    context.judge = Refusing()
    with pytest.raises(TaskFailed, match="0 positive and 0 negative responses passed vetting"):
        extract(context)
    rows = context.rows("vetting", ["vetting-1"]).to_pylist()
    assert {(row["score"], row["reason"], row["passed"]) for row in rows} == {
        (None, "the server said no", False)
    }


def test_the_direction_is_the_axis_that_the_stand_in_hides(context):
    extract(context)

    (vector,) = context.rows("vectors", ["fit-1-mean_difference"]).to_pylist()
    direction_D = np.array(vector["direction"], np.float32)
    assert np.linalg.norm(direction_D) == pytest.approx(1.0, abs=1e-6)
    assert float(direction_D @ AXIS) > 0.9
    assert vector["sha256"] == vector_sha256(direction_D)
    assert (vector["n_positive"], vector["n_negative"]) == (9, 9)
    (score,) = context.rows("evaluation", ["fit-1-mean_difference"]).to_pylist()
    assert score["auroc"] == 1.0
    assert (score["n_positive"], score["n_negative"]) == (3, 3)


def test_held_out_scenarios_never_reach_the_fit(context):
    work = extract(context)
    rows = work._rows(context)
    train = rows.chosen("positive", HELD_OUT, is_held_out=False)
    held = rows.chosen("positive", HELD_OUT, is_held_out=True)
    assert {rows.keys[place][1] for place in held} == HELD_OUT
    assert not {rows.keys[place][1] for place in train} & HELD_OUT


def test_too_few_passed_responses_fail_the_trait_with_the_way_out(context):
    with pytest.raises(TaskFailed, match=r"lower extraction\.min_passed"):
        extract(context, settings=ExtractionConfig(min_passed=10))


def test_the_baseline_adds_nothing_and_names_no_vector(context):
    work = AnswersWork(
        task=task("baseline-1", "baseline"),
        trait=anxiety(),
        settings=STEERING,
        site="resid_post",
        seed=3,
    )
    run_group_work(work, context)

    rows = context.rows("steering", ["baseline-1"]).to_pylist()
    assert len(rows) == 3 * 2
    for row in rows:
        assert (row["layer"], row["method"], row["vector_sha256"]) == (None, None, None)
        assert (row["coefficient"], row["num_rows_steered"]) == (0.0, 0)
        assert row["vector_kind"] == "baseline"


def test_a_ratio_becomes_a_length_by_the_layers_norm_and_both_are_written(context):
    extract(context)
    run_group_work(steered(coefficient=0.5), context)

    (vector,) = context.rows("vectors", ["fit-1-mean_difference"]).to_pylist()
    rows = context.rows("steering", ["steering-1"]).to_pylist()
    applied = {row["vector_kind"]: row["applied_coefficient"] for row in rows}
    norm = vector["mean_residual_norm"]
    assert applied == pytest.approx({"trait": norm / 2, "negated": -norm / 2, "random": norm / 2})
    assert {row["coefficient"] for row in rows} == {0.5}
    assert {row["coefficient_unit"] for row in rows} == {"residual_norm"}


def test_a_trait_of_sign_minus_1_is_steered_against_its_direction(context):
    extract(context)
    calm = dataclasses.replace(anxiety(), sign=-1)
    for number, operator in enumerate(("add", "add_norm_matched", "ablate", "ceiling")):
        work = steered(coefficient=7.0, unit="length", trait=calm, operator=operator)
        work = dataclasses.replace(work, task=task(f"steering-{number}", "steering"))
        run_group_work(work, context)
        rows = context.rows("steering", [f"steering-{number}"]).to_pylist()
        applied = {row["vector_kind"]: row["applied_coefficient"] for row in rows}
        turned = -1 if operator in ("add", "add_norm_matched") else 1
        assert applied["trait"] == 7.0 * turned
        assert applied["negated"] == -7.0 * turned
        assert {row["coefficient"] for row in rows} == {7.0}


def test_a_length_is_applied_as_it_is(context):
    extract(context)
    run_group_work(steered(coefficient=7.0, unit="length"), context)
    rows = context.rows("steering", ["steering-1"]).to_pylist()
    assert {abs(row["applied_coefficient"]) for row in rows} == {7.0}


def test_negated_uses_the_traits_own_vector_and_random_another(context):
    extract(context)
    run_group_work(steered(), context)

    (vector,) = context.rows("vectors", ["fit-1-mean_difference"]).to_pylist()
    digests = {
        row["vector_kind"]: row["vector_sha256"]
        for row in context.rows("steering", ["steering-1"]).to_pylist()
    }
    assert digests["trait"] == digests["negated"] == vector["sha256"]
    random_D = random_direction(WIDTH, seed=3, trait="anxiety", layer=1)
    assert digests["random"] == hashlib.sha256(random_D.astype("<f4").tobytes()).hexdigest()


def test_the_trait_direction_makes_the_answers_anxious_and_its_negative_does_not(context):
    extract(context)
    run_group_work(steered(), context)
    said = {
        row["vector_kind"]: row["completion"]
        for row in context.rows("steering", ["steering-1"]).to_pylist()
    }
    assert said["trait"].startswith("I am afraid")
    assert said["negated"].startswith("I walk to the garden")


def test_controls_can_be_left_out(context):
    extract(context)
    work = steered(settings=SteeringConfig(samples=1, controls=[]))
    run_group_work(work, context)
    assert work.num_requests == 3
    assert set(work.ask(context).vectors) == {"fit-1-mean_difference:trait"}


@pytest.mark.parametrize("other", [{"seed": 4}, {"trait": "guilt"}, {"layer": 2}])
def test_random_directions_differ_by_seed_trait_and_layer(other):
    given = {"seed": 3, "trait": "anxiety", "layer": 1}
    one, same = (random_direction(64, **given) for _ in range(2))
    two = random_direction(64, **{**given, **other})
    assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-6)
    assert (one == same).all()
    assert abs(float(one @ two)) < 0.5


def judged(context) -> None:
    extract(context)
    baseline = AnswersWork(
        task=task("baseline-1", "baseline"),
        trait=anxiety(),
        settings=STEERING,
        site="resid_post",
        seed=3,
    )
    run_group_work(baseline, context)
    run_group_work(steered(), context)
    for name in ("baseline-1", "steering-1"):
        work = JudgeWork(task=task(f"judging-{name}", "judging"), after=(name,), trait=anxiety())
        run_cpu_work(work, context)


JUDGED, STEERED = ("judging-baseline-1", "judging-steering-1"), ("steering-1",)


def summary() -> SummaryWork:
    return SummaryWork(
        task=task("summary-1", "summary"),
        after=(*JUDGED, *STEERED),
        trait=anxiety(),
        site="resid_post",
        judged=JUDGED,
        answered=STEERED,
    )


def test_every_answer_gets_a_trait_and_a_coherence_score(context):
    judged(context)
    rows = context.rows("judgements", ["judging-steering-1"]).to_pylist()
    assert len(rows) == 3 * 3 * 2 * 2
    assert {row["kind"] for row in rows} == {"trait", "coherence"}
    assert {row["table"] for row in rows} == {"steering"}


def test_the_summary_compares_each_cell_with_the_same_baseline(context):
    judged(context)
    run_cpu_work(summary(), context)

    cells = {
        row["vector_kind"]: row
        for row in context.rows("steering_summary", ["summary-1"]).to_pylist()
    }
    assert set(cells) == {"trait", "negated", "random"}
    assert cells["trait"]["delta"] > 60
    assert cells["negated"]["delta"] == 0.0
    assert cells["trait"]["n"] == 6
    assert {cell["baseline_mean"] for cell in cells.values()} == {0.0}


def test_the_summary_says_what_a_coefficient_is_measured_in_and_came_to(context):
    judged(context)
    run_cpu_work(summary(), context)

    cells = context.rows("steering_summary", ["summary-1"]).to_pylist()
    answers = context.rows("steering", STEERED).to_pylist()

    assert {cell["coefficient_unit"] for cell in cells} == {"residual_norm"}
    for cell in cells:
        (length,) = {
            row["applied_coefficient"]
            for row in answers
            if row["vector_kind"] == cell["vector_kind"]
        }
        assert cell["applied_coefficient"] == length
        assert abs(length) != cell["coefficient"]


def test_a_missing_score_stays_missing_in_the_join():
    rows = [
        {"question": 0, "sample": 0, "kind": "trait", "score": None},
        {"question": 0, "sample": 0, "kind": "coherence", "score": 90.0},
    ]
    (one,) = scored(rows)
    assert (one.trait, one.coherence) == (None, 90.0)


def capture(**changes) -> CaptureWork:
    given = {
        "task": task("capture-1", "capture"),
        "set_name": "little",
        "prompts": (PromptItem(id="a", text="I walk"), PromptItem(id="b", text="I am afraid")),
        "chat": True,
        "sampling": Sampling(max_new_tokens=4),
        "layers": (1, 3),
        "sites": ("resid_post",),
        "tokens": "all",
    }
    return CaptureWork(**{**given, **changes})


def test_capture_keeps_one_row_for_each_token_and_layer(context):
    run_group_work(capture(), context)

    responses_ = context.rows("responses", ["capture-1"]).to_pylist()
    tokens = sum(len(r["prompt_ids"]) + len(r["completion_ids"]) for r in responses_)
    for layer in (1, 3):
        rows = context.activations(["capture-1"], layer=layer, site="resid_post")
        assert rows.rows_ND.shape == (tokens, WIDTH)
    assert [(r["prompts"], r["prompt_id"], r["trait"]) for r in responses_] == [
        ("little", "a", None),
        ("little", "b", None),
    ]


def test_captured_rows_lie_in_a_flat_file_with_an_index(context):
    run_group_work(capture(), context)
    files = {file.table: file for file in context.finished.commits["capture-1"].files}
    assert files["activations"].index
    assert not files["responses"].index
    assert context.run.verify().is_whole


def test_projection_is_the_dot_product_of_the_stored_row(context):
    extract(context)
    run_group_work(capture(), context)
    work = ProjectWork(
        task=task("projection-1", "projection"),
        after=("capture-1", "fit-1-mean_difference"),
        trait=anxiety(),
        prompts="little",
        site="resid_post",
        captures=("capture-1",),
        fits={Target(1, "mean_difference"): "fit-1-mean_difference"},
    )
    run_cpu_work(work, context)

    (vector,) = context.rows("vectors", ["fit-1-mean_difference"]).to_pylist()
    captured = context.activations(["capture-1"], layer=1, site="resid_post")
    rows = context.rows("projections", ["projection-1"]).to_pylist()
    assert len(rows) == len(captured.keys)
    first = float(captured.rows_ND[0].astype(np.float64) @ np.array(vector["direction"]))
    assert rows[0]["projection"] == pytest.approx(first)
    assert rows[0]["row_norm"] == pytest.approx(float(np.linalg.norm(captured.rows_ND[0])))
    # Anxious words lie along the direction, calm ones do not.
    by_prompt = {
        name: np.mean(
            [r["projection"] for r in rows if r["prompt_id"] == name and r["is_response"]]
        )
        for name in ("a", "b")
    }
    assert by_prompt["a"] == pytest.approx(by_prompt["a"])


def test_projection_onto_all_asked_directions_has_rows_for_each(context):
    extract(context)
    run_cpu_work(fit(layer=3), context)
    run_group_work(capture(), context)
    work = ProjectWork(
        task=task("projection-1", "projection"),
        trait=anxiety(),
        prompts="little",
        site="resid_post",
        captures=("capture-1",),
        fits={
            Target(1, "mean_difference"): "fit-1-mean_difference",
            Target(3, "mean_difference"): "fit-3-mean_difference",
        },
        is_chosen=False,
    )
    run_cpu_work(work, context)
    rows = context.rows("projections", ["projection-1"]).to_pylist()
    assert {row["layer"] for row in rows} == {1, 3}


def test_without_a_coherent_cell_there_is_no_best_direction(context):
    judged(context)
    run_cpu_work(summary(), context)
    run_group_work(capture(), context)
    work = ProjectWork(
        task=task("projection-1", "projection"),
        trait=anxiety(),
        prompts="little",
        site="resid_post",
        captures=("capture-1",),
        fits={Target(1, "mean_difference"): "fit-1-mean_difference"},
        summary="summary-1",
        coherence_gate=100.5,
    )
    with pytest.raises(TaskFailed, match="try smaller coefficients"):
        work.compute(context)


def test_calibration_measures_the_captured_rows(context):
    run_group_work(capture(), context)
    work = CalibrateWork(
        task=task("calibration-1", "calibration"),
        after=("capture-1",),
        prompts="little",
        layers=(1, 3),
        sites=("resid_post",),
    )
    run_cpu_work(work, context)

    rows = context.rows("calibration", ["calibration-1"]).to_pylist()
    captured = context.activations(["capture-1"], layer=3, site="resid_post")
    assert [row["layer"] for row in rows] == [1, 3]
    norms = np.linalg.norm(captured.rows_ND.astype(np.float64), axis=1)
    assert rows[1]["mean_norm"] == pytest.approx(float(norms.mean()))
    assert rows[1]["num_tokens"] == len(norms)


def test_completions_are_numbered_by_prompt_and_sample(context):
    work = CompletionWork(
        task=task("completions-1", "completions"),
        set_name="little",
        prompts=(PromptItem(id="a", text="I walk"), PromptItem(id="b", text="tea")),
        chat=False,
        sampling=Sampling(max_new_tokens=3, temperature=0.7, seed=9),
        samples=2,
    )
    run_group_work(work, context)
    rows = context.rows("responses", ["completions-1"]).to_pylist()
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]
    assert {row["seed"] for row in rows} == {9}


def test_a_second_process_reads_what_the_first_committed(context, tmp_path):
    run_group_work(capture(), context)
    context.run.close()
    later = open_context(tmp_path)
    later.commits = later.run.commits()

    assert later.rows("responses", ["capture-1"]).num_rows == 2
    assert later.activations(["capture-1"], layer=1, site="resid_post").rows_ND.shape[1] == WIDTH
    later.run.close()
