"""One plan, one group, an exit code; a finished request starts nothing (stand-in for the group)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import jobs.driver
from actors.errors import GroupStartFailed, RankDied
from jobs.entry import main
from jobs.runner import durable_folder
from storage.manifest import Run
from tests.standin import StandInGroup, make_model_folder

RESULTS = (
    "responses",
    "pooled",
    "vetting",
    "vectors",
    "evaluation",
    "steering",
    "judgements",
    "steering_summary",
    "activations",
    "projections",
)
SMALL = (
    "trait=anxiety",
    "layer=[1,2]",
    "steering.samples=1",
    "steering.temperature=0",
    "steering.num_questions=4",
    "steering.coefficient_ratios=[0.5,1.0]",
    "capture.num_prompts=3",
    "extraction.num_pairs=12",
    "extraction.min_passed=4",
)


class Cluster:
    """Stands for Ray and the group; counts what was started."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.sent: list[str] = []
        self.fail = None

    def start_group(self, spec, group, number, *, resident=None, cancelled=None):
        self.starts.append(number)
        return StandInGroup(self.sent, fail=self.fail)

    @contextlib.contextmanager
    def cluster(self, config):
        yield


@pytest.fixture
def cluster(monkeypatch):
    stand_in = Cluster()
    monkeypatch.setattr(jobs.driver, "cluster", stand_in.cluster)
    monkeypatch.setattr(jobs.driver, "start_group", stand_in.start_group)
    return stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("models") / "standin")


def call(job: str, model: Path, run_dir: Path, *extra: str) -> int:
    return main(job, [f"model.path={model}", f"run_dir={run_dir}", *SMALL, *extra])


def digest_of_results(run_dir: Path) -> dict[str, str]:
    """Relative path -> sha256 of every result file; runs and attempts hold times."""
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in ("runs", "attempts")
    }


def test_the_steering_job_finds_the_direction_and_says_so_in_numbers(
    cluster, model, tmp_path, capsys
):
    assert call("steer", model, tmp_path) == 0

    with Run.open(tmp_path) as run:
        cells = run.read("steering_summary").to_pylist()
    best = max((c for c in cells if c["vector_kind"] == "trait"), key=lambda c: c["delta"])
    negated = [c for c in cells if c["vector_kind"] == "negated"]
    assert best["baseline_mean"] == 0.0
    assert best["delta"] > 80
    assert all(cell["delta"] == 0.0 for cell in negated)
    out = capsys.readouterr().out
    assert "steer: 18 tasks for 1 point(s), 0 committed already, 18 to do" in out
    assert "anxiety" in out
    assert "lowered" in out


def test_a_second_run_computes_nothing_and_says_so(cluster, model, tmp_path, capsys):
    call("steer", model, tmp_path)
    before, sent = digest_of_results(tmp_path), list(cluster.sent)
    capsys.readouterr()

    assert call("steer", model, tmp_path) == 0

    assert "nothing to do: all 18 tasks" in capsys.readouterr().out
    assert cluster.sent == sent
    assert digest_of_results(tmp_path) == before
    with Run.open(tmp_path) as run:
        assert run.read("runs").num_rows == 1


def test_steering_reuses_what_extraction_left(cluster, model, tmp_path):
    call("extract", model, tmp_path)
    cluster.sent.clear()
    call("steer", model, tmp_path, "method=mean_difference")

    assert [name.split("-")[0] for name in cluster.sent] == ["baseline", "steering"]


def test_an_interrupted_run_continues_and_ends_in_the_same_bytes(cluster, model, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    call("steer", model, whole, "schedule.bundle_requests=24")

    def interrupt(bundle):
        if bundle.id.startswith("steering"):
            raise KeyboardInterrupt
        return None

    cluster.fail = interrupt
    assert call("steer", model, cut, "schedule.bundle_requests=24") == 130
    done = len(digest_of_results(cut))
    cluster.fail = None
    assert call("steer", model, cut, "schedule.bundle_requests=24") == 0

    assert 0 < done < len(digest_of_results(whole))
    assert digest_of_results(cut) == digest_of_results(whole)
    assert "the same command continues" in capsys.readouterr().out


def test_killed_ranks_change_no_byte_of_the_results(cluster, model, tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    call("steer", model, calm, "schedule.bundle_requests=24")
    killed: set[str] = set()

    def kill_each_bundle_once(bundle):
        if bundle.id in killed:
            return None
        killed.add(bundle.id)
        return RankDied(doing=f"run bundle {bundle.id}", cause="killed", rank=1)

    cluster.fail = kill_each_bundle_once
    assert call("steer", model, stormy, "schedule.bundle_requests=24") == 0

    assert digest_of_results(stormy) == digest_of_results(calm)
    assert len(killed) == 4
    with Run.open(stormy) as run:
        retries = [r for r in run.read("attempts").to_pylist() if r["outcome"] == "retry"]
    # A bundle that was sent after the one that died is handed back with that one's reason, or with
    # none; each of the four is named once by its own.
    named = {row["error"] for row in retries if row["error_type"] == "RankDied"}
    assert len(named) == len(killed)
    assert all(any(bundle in error for error in named) for bundle in killed)
    assert {row["error_type"] for row in retries} <= {"RankDied", "GroupClosed"}


def test_points_of_a_sweep_share_one_plan_and_one_group(cluster, model, tmp_path):
    code = call("steer", model, tmp_path, "--multirun", "layer=1,2", "steering.samples=1,2")

    assert code == 0
    assert cluster.starts == [1]
    folders = sorted(p.name for p in (tmp_path / "_meta" / "points").iterdir())
    assert folders == ["0", "1", "2", "3"]
    config = OmegaConf.load(tmp_path / "_meta" / "points" / "2" / "config.yaml")
    assert (config.config.layer, config.config.steering.samples) == (2, 1)
    # Responses and directions are asked once, though four points need them.
    with Run.open(tmp_path) as run:
        kinds = [task.split("-")[0] for task in run.commits()]
    assert kinds.count("responses") == 2
    assert kinds.count("fit") == 4
    assert kinds.count("summary") == 4


def test_a_point_that_fails_loses_no_other(cluster, model, tmp_path, capsys):
    code = call("steer", model, tmp_path, "--multirun", "layer=1", "extraction.min_passed=4,12")

    assert code == 1
    assert "responses passed vetting, but 12 of each are needed" in capsys.readouterr().err
    with Run.open(tmp_path) as run:
        assert run.read("steering_summary").num_rows == 6


def test_a_cluster_that_does_not_start_is_exit_code_3(
    cluster, model, tmp_path, monkeypatch, capsys
):
    def refuse(*_, **__):
        raise GroupStartFailed(doing="load", cause="out of memory", rank=0)

    monkeypatch.setattr(jobs.driver, "start_group", refuse)
    assert call("capture", model, tmp_path) == 3
    assert "out of memory" in capsys.readouterr().err


def test_capture_projection_and_calibration_agree_about_norms(cluster, model, tmp_path):
    call("project", model, tmp_path)
    call("calibrate", model, tmp_path)

    with Run.open(tmp_path) as run:
        projections = run.read("projections").to_pylist()
        calibration = {row["layer"]: row for row in run.read("calibration").to_pylist()}
    assert {row["layer"] for row in projections} == {1, 2}
    for layer in (1, 2):
        norms = [
            row["row_norm"]
            for row in projections
            if row["layer"] == layer and row["method"] == "probe"
        ]
        assert calibration[layer]["num_tokens"] == len(norms)
        assert calibration[layer]["mean_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-6)
    row = projections[0]
    assert row["cosine"] == pytest.approx(row["projection"] / row["row_norm"])


def test_every_commit_says_what_was_asked_and_holds_no_time(cluster, model, tmp_path):
    call("extract", model, tmp_path)

    for path in (tmp_path / "_meta" / "commits").glob("fit-*.json"):
        record = json.loads(path.read_text())
        assert record["provenance"]["question"]["method"] in ("mean_difference", "probe")
        assert len(record["provenance"]["model_digest"]) == 64
        assert "time" not in json.dumps(record)


def test_generate_prints_the_completions(cluster, model, tmp_path, capsys):
    code = main(
        "generate",
        [f"model.path={model}", f"run_dir={tmp_path}", "generate.prompt=I walk"],
    )

    assert code == 0
    assert "prompt: 'I walk to the garden" in capsys.readouterr().out


def test_steered_generation_answers_the_prompt_under_the_direction(cluster, model, tmp_path):
    code = call(
        "generate",
        model,
        tmp_path,
        "layer=1",
        "coefficient=50",
        "method=mean_difference",
        "generate.prompt=How are you?",
    )

    assert code == 0
    with Run.open(tmp_path) as run:
        rows = run.read("steering").to_pylist()
    assert [row["coefficient_unit"] for row in rows] == ["length"]
    assert rows[0]["completion"].startswith("I am afraid")
    assert rows[0]["applied_coefficient"] == 50.0


def test_a_relative_folder_of_a_submitted_job_lies_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert durable_folder(Path("runs/x")) == Path("runs/x").absolute()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert durable_folder(Path("runs/x")) == tmp_path / "traitmill" / "runs" / "x"
    assert durable_folder(Path("/shared/x")) == Path("/shared/x")


def test_the_pipeline_writes_every_table_and_a_report(cluster, model, tmp_path, capsys):
    assert call("pipeline", model, tmp_path) == 0

    with Run.open(tmp_path) as run:
        empty = [table for table in RESULTS if run.read(table).num_rows == 0]
    assert empty == []
    report = tmp_path / "report.html"
    assert report.stat().st_size > 1000
    assert f"report: {report}" in capsys.readouterr().out
    written = report.stat().st_mtime_ns
    call("pipeline", model, tmp_path)
    assert report.stat().st_mtime_ns == written
