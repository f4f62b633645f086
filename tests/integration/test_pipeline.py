"""The whole job on the shipped toy model: two gloo ranks, a real Ray, real results."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from jobs.entry import main
from storage.manifest import Run

pytestmark = pytest.mark.ray

SMALL = (
    "trait=anxiety",
    "layer=1",
    "extraction.num_pairs=12",
    "extraction.min_passed=3",
    "steering.num_questions=6",
    "steering.samples=2",
    "steering.coefficient_ratios=[1.0]",
    "steering.max_new_tokens=16",
    "capture.num_prompts=3",
    "capture.max_new_tokens=8",
    "cluster.dashboard=false",
)


def digest_of_results(run_dir: Path) -> dict[str, str]:
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in ("runs", "attempts")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished pipeline."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    assert main("pipeline", [f"run_dir={run_dir}", *SMALL]) == 0
    return run_dir


def test_the_pipeline_ends_in_tables_vectors_and_a_report(whole):
    tables = {path.name for path in (whole / "data").iterdir()}
    assert tables >= {
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
        "runs",
        "attempts",
    }
    assert (whole / "report.html").stat().st_size > 10_000
    with Run.open(whole) as run:
        assert run.verify().is_whole
        vectors = run.read("vectors").to_pylist()
    assert len({row["layer"] for row in vectors}) >= 6
    assert {row["method"] for row in vectors} == {"mean_difference", "probe"}


def test_steering_raises_the_trait_and_the_controls_do_not(whole):
    with Run.open(whole) as run:
        cells = {row["vector_kind"]: row for row in run.read("steering_summary").to_pylist()}
    assert cells["trait"]["delta"] > 15
    assert cells["trait"]["coherence_mean"] > 70
    assert cells["negated"]["delta"] <= cells["random"]["delta"] + 10
    assert cells["trait"]["delta"] > cells["random"]["delta"] + 15


def test_receipts_say_that_the_committed_vector_was_used(whole):
    with Run.open(whole) as run:
        rows = run.read("steering").to_pylist()
        vectors = run.read("vectors").to_pylist()
    used = {v["sha256"] for v in vectors if v["layer"] == 1 and v["method"] == "mean_difference"}
    for row in rows:
        if row["vector_kind"] in ("trait", "negated"):
            assert {row["vector_sha256"]} == used
            # Every prompt row, and every completion row but the last, which is never read.
            assert row["num_rows_steered"] >= len(row["prompt_ids"])
        if row["vector_kind"] == "baseline":
            assert (row["vector_sha256"], row["num_rows_steered"]) == (None, 0)


def test_plain_pyarrow_and_duckdb_read_every_file(whole):
    duckdb = pytest.importorskip("duckdb")
    files = sorted((whole / "data").rglob("*.parquet"))
    assert len(files) > 20
    for path in files:
        ((counted,),) = duckdb.sql(f"select count(*) from '{path}'").fetchall()
        assert counted == pq.read_metadata(path).num_rows


def test_a_second_run_starts_no_ray_and_changes_nothing(whole, capsys):
    before = digest_of_results(whole)

    assert main("pipeline", [f"run_dir={whole}", *SMALL]) == 0

    assert "nothing to do" in capsys.readouterr().out
    assert not ray.is_initialized()
    assert digest_of_results(whole) == before


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_driver_loses_no_committed_task_and_continues_to_the_same_bytes(
    number, whole, joined, tmp_path
):
    """A signal in the middle; then the same command. The short form is in ``test_chaos.py``."""
    command = [sys.executable, "-m", "jobs.pipeline", f"run_dir={tmp_path}", *SMALL]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    commits = tmp_path / "_meta" / "commits"
    deadline = time.monotonic() + 90
    while len(list(commits.glob("fit-*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(number)
    assert driver.wait(timeout=60) == (130 if number == signal.SIGTERM else -number)
    survived = {path.name for path in commits.iterdir()}
    assert len(survived) >= 3

    assert main("pipeline", [f"run_dir={tmp_path}", *SMALL]) == 0

    assert survived <= {path.name for path in commits.iterdir()}
    assert digest_of_results(tmp_path) == digest_of_results(whole)


REFUSED = {
    "coeficient=3": "did you mean coefficient?",
    "trait=anxeity": "did you mean anxiety?",
    "model=toy_mal": "did you mean toy_mla?",
    "layer=99": "layer=99 does not exist",
    "layer=2,3": "--multirun",
    "seed=abc": "whole number",
    "cluster.tensor_parallel_size=3": "cluster.tensor_parallel_size=3",
    "model.path=/nowhere/at/all": "/nowhere/at/all",
    "model=mistral_7b": "model.path=DIR",
    "method=prob": "did you mean probe?",
    "prompts=everydya": "did you mean everyday?",
    "extraction.tokens=answer[:5]": "extraction.tokens",
    "coefficient=[1,x]": "not a number",
    "steering.max_new_tokens=100000": "leaves no room",
}


@pytest.mark.parametrize(("argument", "way_out"), REFUSED.items())
def test_a_request_that_cannot_be_met_is_one_sentence_and_starts_nothing(
    argument, way_out, tmp_path, capsys
):
    code = main("steer", ["trait=anxiety", f"run_dir={tmp_path / 'run'}", argument])

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert way_out in captured.err
    assert not ray.is_initialized()
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_sigterm_ends_the_job_cleanly_and_says_what_is_safe(joined, tmp_path):
    alone = "cluster.tensor_parallel_size=1"
    command = [sys.executable, "-m", "jobs.extract", f"run_dir={tmp_path}", alone, *SMALL]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    commits = tmp_path / "_meta" / "commits"
    deadline = time.monotonic() + 90
    while not list(commits.glob("responses-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    out, _ = driver.communicate(timeout=60)

    # It may have finished just before the signal.
    assert driver.returncode in (130, 0), out
    assert driver.returncode == 0 or "the same command continues" in out
