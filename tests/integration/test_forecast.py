"""What the dry run says is what the run then does: counts exactly, bytes within a factor of two."""

from __future__ import annotations

import contextlib

import pytest

import jobs.driver
from jobs.dry_run import predict
from jobs.entry import main
from jobs.estimate import forecast
from jobs.report.data import ReportData
from jobs.report.forecast import predictions
from jobs.runner import make_batches
from storage.manifest import Run
from tests.benchmarks.bench_plan import actuals
from tests.standin import StandInGroup, make_model_folder

SMALL = (
    "trait=anxiety",
    "layer=[1,2]",
    "steering.samples=1",
    "steering.num_questions=4",
    "steering.coefficient_ratios=[0.5,1.0]",
    "capture.num_prompts=3",
    "extraction.num_pairs=12",
    "extraction.min_passed=4",
)


@pytest.fixture
def cluster(monkeypatch):
    @contextlib.contextmanager
    def nothing(config):
        yield

    monkeypatch.setattr(jobs.driver, "cluster", nothing)
    monkeypatch.setattr(jobs.driver, "start_group", lambda *_, **__: StandInGroup([]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models") / "standin")


@pytest.mark.parametrize("job", ["capture", "pipeline"])
def test_a_run_does_what_the_dry_run_said(job, cluster, model, tmp_path):
    arguments = [f"model.path={model}", f"run_dir={tmp_path}", *SMALL]
    points = []
    main(job, arguments, runner=lambda found, _: points.extend(found) or 0)
    (batch,) = make_batches(points)
    predicted = predict(batch)
    assert main(job, arguments) == 0

    rows = {row["quantity"]: row for row in forecast(predicted, actuals(tmp_path))}
    for name in ("tasks", "judged texts"):
        assert rows[name]["actual"] == rows[name]["predicted"], name
    tokens = rows["tokens read and generated"]
    assert predicted.prompt_tokens < tokens["actual"] <= tokens["predicted"]
    files = rows["bytes in result files"]
    assert 0.5 < files["actual"] / files["predicted"] < 2
    assert predict(batch).todo == {}

    with Run.open(tmp_path) as run:
        (record,) = [one for task, one in run.commits().items() if task.startswith("run-")]
        report = predictions(ReportData(run))
    kept = {row["quantity"]: row for row in record.provenance["forecast"]}
    for name in ("tasks", "judged texts", "tokens read and generated", "bytes in result files"):
        assert kept[name] == rows[name], name
    assert f">{rows['judged texts']['actual']:,.0f}<" in report
