"""Points that can share a model share a plan; what cannot be met is refused before all else."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from conf.errors import UserError
from jobs.entry import compose
from jobs.report.console import Console
from jobs.runner import durable_folder, make_batches, prove_folder
from storage.errors import DiskFullError
from tests.standin import make_model_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "standin")


def points(model: Path, *overrides: str):
    return compose("steer", [f"model.path={model}", *overrides], Console())


def test_points_of_one_model_are_one_plan(model):
    (batch,) = make_batches(points(model, "--multirun", "trait=anxiety,guilt", "layer=1,2"))
    assert len(batch.points) == 4
    assert len(batch.plan.points) == 4
    kinds = [work.task.kind for work in batch.plan.works.values()]
    assert kinds.count("responses") == 4
    assert kinds.count("baseline") == 2
    assert kinds.count("summary") == 4


def test_bundles_mix_traits_layers_and_coefficients(model):
    overrides = ("--multirun", "trait=anxiety,guilt", "layer=1,2", "steering.samples=1")
    (batch,) = make_batches(points(model, *overrides, "steering.num_questions=2"))
    (bundle,) = [b for b in batch.plan.bundles if b.id.startswith("steering")]
    labels = {work.task.label.split()[1] for work in bundle.works}
    layers = {work.layer for work in bundle.works}
    assert (labels, layers) == ({"anxiety", "guilt"}, {1, 2})


@pytest.mark.parametrize(
    "difference",
    ["cluster.tensor_parallel_size=1,2", "run_dir=/a,/b", "judge.max_answer_chars=10,20"],
)
def test_points_that_cannot_share_are_plans_of_their_own(model, difference):
    assert len(make_batches(points(model, "--multirun", difference))) == 2


def test_one_point_that_cannot_be_met_refuses_the_sweep(model):
    with pytest.raises(UserError, match="layer=9 does not exist"):
        make_batches(points(model, "--multirun", "layer=1,9"))


def test_the_same_request_gives_the_same_plan(model):
    one, two = (make_batches(points(model))[0].plan for _ in range(2))
    assert list(one.works) == list(two.works)
    assert [b.task_ids for b in one.bundles] == [b.task_ids for b in two.bundles]


def test_bundles_keep_to_the_size_asked_for(model):
    (batch,) = make_batches(points(model, "schedule.bundle_requests=60"))
    sizes = [bundle.num_requests for bundle in batch.plan.bundles]
    largest = max(work.num_requests for b in batch.plan.bundles for work in b.works)
    assert all(size <= max(60, largest) for size in sizes)


def test_a_relative_folder_of_a_submitted_job_lies_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert durable_folder(Path("runs/x")) == Path("runs/x").absolute()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert durable_folder(Path("runs/x")) == tmp_path / "traitmill" / "runs" / "x"
    assert durable_folder(Path("/shared/x")) == Path("/shared/x")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("taken", "a file of that name is there"),
        ("taken/below", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_can_hold_no_results_is_refused(tmp_path, place, why):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError) as caught:
        prove_folder(tmp_path / place)
    assert str(caught.value) == (
        f"run_dir={tmp_path / place} cannot hold results ({why}); choose a folder that you can "
        "write to."
    )
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_nobody_may_write_to_is_refused():
    with pytest.raises(UserError, match=r"^run_dir=/proc/traitmill cannot hold results \("):
        prove_folder(Path("/proc/traitmill"))


def test_a_full_disk_is_told_as_one(monkeypatch, tmp_path):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("jobs.runner.tempfile.TemporaryFile", full)
    with pytest.raises(DiskFullError, match="no room under"):
        prove_folder(tmp_path)


def test_a_usable_folder_is_made_and_left_empty(tmp_path):
    prove_folder(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []
