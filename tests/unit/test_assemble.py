"""A point becomes exactly the tasks it needs, and a changed setting changes the ids downstream."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.assemble import Identity, assemble
from jobs.entry import compose
from jobs.report.console import Console
from jobs.task import digest

IDENTITY = Identity(
    model_digest="a" * 64,
    dtype="float32",
    tokenizer_digest="b" * 64,
    num_layers=6,
    judge="lexicon 1",
)


def request(job: str, *overrides: str):
    (point,) = compose(job, list(overrides), Console())
    return point


def kinds(job: str, *overrides: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for work in assemble(request(job, *overrides), IDENTITY):
        found[work.task.kind] = found.get(work.task.kind, 0) + 1
    return found


def ids(job: str, *overrides: str, identity: Identity = IDENTITY) -> dict[str, str]:
    return {w.task.label: w.task.id for w in assemble(request(job, *overrides), identity)}


def test_each_job_has_the_tasks_of_its_stages():
    assert kinds("extract", "trait=anxiety") == {"responses": 2, "vetting": 1, "fit": 12}
    assert kinds("extract", "trait=anxiety", "layer=3") == {"responses": 2, "vetting": 1, "fit": 2}
    assert kinds("extract", "extraction.vetting=false") == {"responses": 2, "fit": 12}
    assert kinds("capture") == {"capture": 2}
    assert kinds("calibrate") == {"capture": 2, "calibration": 1}
    assert kinds("generate") == {"completions": 1}


def test_steering_has_one_task_for_each_layer_method_and_coefficient():
    found = kinds("steer", "layer=[1,2]", "coefficient=[2,4]", "method=[mean_difference,probe]")

    assert found == {
        "responses": 2,
        "vetting": 1,
        "fit": 4,
        "baseline": 1,
        "steering": 8,
        "judging": 9,
        "summary": 1,
    }


def test_without_a_method_both_are_fitted_and_the_first_steers():
    labels = ids("steer", "layer=1", "coefficient=2")
    assert "fit anxiety layer 1 probe" in labels
    assert [label for label in labels if label.startswith("steering")] == [
        "steering anxiety layer 1 mean_difference 2 length"
    ]


def test_the_pipeline_fits_every_layer_and_steers_some():
    labels = ids("pipeline", "trait=anxiety")
    fitted = {label.split()[3] for label in labels if label.startswith("fit")}
    steered = {label.split()[3] for label in labels if label.startswith("steering")}
    assert fitted == {"0", "1", "2", "3", "4", "5"}
    assert steered < fitted
    assert "projection anxiety everyday" in labels


def test_works_come_after_what_they_wait_for():
    seen: set[str] = set()
    for work in assemble(request("pipeline"), IDENTITY):
        assert set(work.after) <= seen
        seen.add(work.task.id)


def test_the_same_question_has_the_same_id_in_another_job():
    steer = ids("steer", "layer=1", "coefficient=2")
    extract = ids("extract", "trait=anxiety", "layer=1")
    assert extract.items() <= steer.items()


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("seed=1", set()),
        ("extraction.max_new_tokens=8", {"baseline"}),
        ("extraction.positive_min=50", {"responses", "baseline"}),
        ("coefficient=3", {"responses", "vetting", "fit", "baseline"}),
        ("steering.max_new_tokens=8", {"responses", "vetting", "fit"}),
    ],
)
def test_a_change_renames_what_depends_on_it_and_nothing_else(change, kept):
    before = ids("steer", "layer=1", "coefficient=2")
    after = ids("steer", "layer=1", "coefficient=2", change)
    same = {task.split("-")[0] for task in set(before.values()) & set(after.values())}
    assert same - {"judging"} == kept


@pytest.mark.parametrize(
    "unrelated",
    ["run_dir=/elsewhere", "cluster.tensor_parallel_size=1", "schedule.bundle_requests=7"],
)
def test_paths_ranks_and_batch_sizes_change_no_id(unrelated):
    assert ids("steer", "layer=1") == ids("steer", "layer=1", unrelated)


def test_other_weights_change_every_id():
    other = Identity(
        model_digest="c" * 64,
        dtype="float32",
        tokenizer_digest="b" * 64,
        num_layers=6,
        judge="lexicon 1",
    )
    here, there = ids("pipeline"), ids("pipeline", identity=other)
    assert here.keys() == there.keys()
    assert not set(here.values()) & set(there.values())


def test_experts_in_fp8_give_other_answers_and_those_in_the_models_type_the_same():
    plain, in_fp8 = (replace(IDENTITY, experts=kind) for kind in ("float32", "fp8"))
    here = ids("pipeline")
    assert ids("pipeline", identity=plain) == here
    there = ids("pipeline", identity=in_fp8)
    assert not set(here.values()) & set(there.values())


def test_another_judge_asks_the_model_nothing_new():
    other = Identity(
        model_digest="a" * 64,
        dtype="float32",
        tokenizer_digest="b" * 64,
        num_layers=6,
        judge="endpoint 7",
    )
    here = ids("steer", "layer=1", "extraction.vetting=false")
    there = ids("steer", "layer=1", "extraction.vetting=false", identity=other)
    changed = {label.split()[0] for label in here if here[label] != there[label]}
    assert changed == {"judging", "summary"}


def test_steered_generation_takes_the_prompt_for_the_question():
    labels = ids("generate", "trait=guilt", "layer=2", "coefficient=3", "generate.prompt=Hello")
    assert "steering guilt layer 2 mean_difference 3 length" in labels
    assert not any(label.startswith(("judging", "baseline")) for label in labels)


OTHER = replace(IDENTITY, model_digest="c" * 64)


def test_directions_from_another_model_change_what_builds_on_them_and_nothing_else():
    job = ("steer", "trait=anxiety", "layer=2", "coefficient=2", "method=mean_difference")
    one = {w.task.label: w for w in assemble(request(*job), IDENTITY)}
    two = {w.task.label: w for w in assemble(request(*job), IDENTITY, OTHER)}

    assert one.keys() == two.keys()
    same = {label for label in one if one[label].task.id == two[label].task.id}
    assert same == {"baseline anxiety", "judging baseline anxiety"}
    of_other = {label.split()[0] for label, work in two.items() if work.role == "extract_model"}
    assert of_other == {"responses", "vetting", "fit"}
    assert {work.role for work in one.values()} == {"model"}


def test_extraction_from_another_model_is_the_extraction_that_this_model_would_do_alone():
    alone = {w.task.id for w in assemble(request("extract", "trait=anxiety"), OTHER)}
    steered = {
        w.task.id
        for w in assemble(request("steer", "trait=anxiety", "layer=all"), IDENTITY, OTHER)
        if w.role == "extract_model"
    }
    assert steered == alone


def test_every_task_names_the_seed_and_data_behind_it_and_ids_do_not_hang_on_it():
    asked = request("pipeline", "trait=[anxiety,guilt]", "seed=7", "layer=2")
    for work in assemble(asked, IDENTITY):
        assert work.task.sources["seeds"] == [7]
        names = set(work.task.sources["dataset_digests"])
        of_trait = {name for name in ("anxiety", "guilt") if name in work.task.label}
        own = {"everyday"} if work.task.kind in ("capture", "projection") else set()
        assert names == of_trait | own, work.task.label
        assert work.task.id.endswith(digest(work.task.question)[:24])


def test_a_typed_prompt_is_data_too():
    asked = request("generate", "trait=guilt", "layer=2", "coefficient=3", "generate.prompt=Hello")
    steered = next(w for w in assemble(asked, IDENTITY) if w.task.kind == "steering")
    assert set(steered.task.sources["dataset_digests"]) == {"guilt", "prompt"}
    (plain,) = assemble(request("generate", "generate.prompt=Hello"), IDENTITY)
    assert set(plain.task.sources["dataset_digests"]) == {"prompt"}
