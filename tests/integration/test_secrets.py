"""No byte that a run writes holds a secret of its environment: files, logs, errors, the bucket."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest

import jobs.driver
from jobs.entry import main
from tests.integration.test_judge import Server, good_answer
from tests.leaks import found_in, plant
from tests.s3_server import moto_endpoint
from tests.standin import StandInGroup, make_model_folder

pytestmark = pytest.mark.ray

JOB = (
    *("pipeline", "trait=anxiety", "layer=3", "coefficient=4", "method=mean_difference"),
    "extraction.num_pairs=8",
    "extraction.min_passed=1",
    "extraction.vetting=false",
    "steering.num_questions=2",
    "steering.samples=1",
    "steering.max_new_tokens=8",
    "capture.num_prompts=1",
    "cluster.tensor_parallel_size=1",
    "judge=endpoint",
    "storage=r2",
)


@pytest.fixture(scope="module")
def planted():
    return plant()


@pytest.fixture(scope="module")
def judge():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def run(folder, environment, planted, *typed):
    """One job in a process of its own, with the secrets in its environment and a Ray of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *JOB, f"run_dir={folder}", *typed],
        env={**os.environ, **planted, **environment},
        capture_output=True,
        timeout=150,
        check=False,
    )
    (folder.parent / "console").mkdir()
    (folder.parent / "console" / "out").write_bytes(done.stdout + done.stderr)
    return done


@pytest.fixture(scope="module")
def left(planted, judge, tmp_path_factory, repo_root):
    """Everything that one job left behind, in one folder."""
    folder = tmp_path_factory.mktemp("left")
    # Ray puts sockets there, and their paths may have 107 characters only.
    ray_folder = Path("/tmp") / f"tm{secrets.token_hex(3)}"
    ray_folder.mkdir()
    with moto_endpoint() as endpoint:
        environment = {
            "R2_ENDPOINT": endpoint,
            "R2_BUCKET_NAME": "bucket",
            "RAY_TMPDIR": str(ray_folder),
        }
        judge.script = [(500, "overloaded"), good_answer()]
        done = run(folder / "run", environment, planted, f"judge.url={judge.url}")
        assert done.returncode == 0, done.stdout + done.stderr
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testkey",
            aws_secret_access_key="testsecret",
        )
        for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
            for item in page.get("Contents", []):
                body = client.get_object(Bucket="bucket", Key=item["Key"])["Body"].read()
                path = folder / "bucket" / item["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
    logs = next(ray_folder.glob("ray/session_2*/logs"), None) or next(
        ray_folder.glob("session_2*/logs")
    )
    shutil.copytree(logs, folder / "ray_logs")
    shutil.rmtree(ray_folder, ignore_errors=True)
    return folder


def test_the_judge_was_really_asked_with_the_key(left, judge, planted):
    keys = {headers["Authorization"] for _, headers, _ in judge.calls}
    assert keys == {f"Bearer {planted['TRAITMILL_JUDGE_API_KEY']}"}


def test_the_run_left_files_logs_and_objects_and_the_search_reads_them(left):
    """The search finds what is there: a trait's name in the data, a rank's name in Ray's logs."""
    here = {line.split("/")[0] for line in found_in(left, {"trait": "anxiety"})}
    assert here == {"run", "console", "bucket"}
    inside = found_in(left / "run", {"trait": "anxiety"})
    assert any(".parquet" in line for line in inside)
    assert any("_meta/points" in line for line in inside)
    assert any("report.html" in line for line in inside)
    assert len([one for one in (left / "ray_logs").iterdir() if one.stat().st_size]) >= 5
    assert list((left / "bucket").rglob("*.parquet"))


def test_no_secret_is_in_any_of_it(left, planted):
    assert found_in(left, planted) == []


def test_a_server_that_repeats_the_key_in_its_refusal_does_not_get_it_into_ours(
    judge, planted, tmp_path, monkeypatch, capfd
):
    """As api.openai.com does: ``Incorrect API key provided: sk-...``. No Ray, no model."""
    key = planted["TRAITMILL_JUDGE_API_KEY"]
    judge.script = [(401, '{"error": {"message": "Incorrect API key provided: ' + key + '"}}')]
    monkeypatch.setenv("TRAITMILL_JUDGE_API_KEY", key)
    monkeypatch.setattr(jobs.driver, "cluster", lambda config: contextlib.nullcontext())
    monkeypatch.setattr(jobs.driver, "start_group", lambda *_, **__: StandInGroup([]))
    model = make_model_folder(tmp_path / "model")
    job, *typed = (*JOB, "storage=local", f"judge.url={judge.url}", f"model.path={model}")
    assert main(job, [*typed, f"run_dir={tmp_path / 'run'}"]) != 0
    said = "".join(capfd.readouterr())
    assert "401" in said
    assert key not in said
    assert found_in(tmp_path, planted) == []
