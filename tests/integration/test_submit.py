"""``ray job submit`` runs the same job with the same results, and a sweep loads the model once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import submit
from jobs.entry import main
from storage.manifest import Run
from tests.head import Head

pytestmark = pytest.mark.ray

SMALL = (
    "extraction.num_pairs=8",
    "extraction.min_passed=1",
    "extraction.vetting=false",
    "steering.num_questions=3",
    "steering.samples=1",
    "steering.max_new_tokens=8",
    "method=mean_difference",
    "coefficient=4",
)


@pytest.fixture(scope="module")
def cluster():
    """A head node of our own, on the loopback address and with a token."""
    with Head() as head:
        yield head.environment


def results(run_dir: Path) -> dict[str, str]:
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in ("runs", "attempts")
    }


def test_a_submitted_sweep_equals_the_local_one_with_one_model_load(cluster, repo_root, tmp_path):
    remote, local = tmp_path / "remote", tmp_path / "local"
    sweep = ["--multirun", "trait=anxiety,guilt", "layer=1,2", *SMALL]

    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "submit", "steer", *sweep, f"run_dir={remote}"],
        cwd=repo_root,
        env=cluster,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "for 4 point(s)" in done.stdout
    assert "succeeded, exit code 0" in done.stdout
    assert main("steer", [*sweep, f"run_dir={local}", "cluster.dashboard=false"]) == 0
    assert results(remote) == results(local)
    with Run.open(remote) as run:
        groups = {row["group"] for row in run.read("attempts").to_pylist()} - {None}
        assert run.read("runs").to_pylist()[0]["exit_code"] == 0
    assert groups <= {"group-1"}


def test_a_refused_job_has_its_own_exit_code(cluster, repo_root):
    client = submit.connect(cluster["RAY_API_SERVER_ADDRESS"])
    job = submit.send(client, "steer", ["trait=anxeity"], repo_root)
    deadline = time.monotonic() + 60
    while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
        time.sleep(0.3)
    assert client.get_job_info(job).driver_exit_code == 2
    assert "did you mean anxiety?" in client.get_job_logs(job)
