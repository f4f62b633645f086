"""``traitmill group up | status | down`` as a user types it, with jobs of their own processes."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys

import pytest

from jobs.entry import ExitCode
from jobs.report.console import Console
from jobs.resident import run_group_command
from storage.manifest import Run

pytestmark = pytest.mark.ray

JOB = (
    "generate",
    "prompts=everyday",
    "generate.max_new_tokens=8",
    "generate.samples=2",
    "cluster.resident=true",
    "cluster.tensor_parallel_size=1",
)
NONE = "no resident group on this cluster\n"


def group(command, *arguments):
    """The exit code and what was said."""
    out, err = io.StringIO(), io.StringIO()
    code = run_group_command(command, list(arguments), Console(out, err))
    return code, out.getvalue() + err.getvalue()


def start_job(head, folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=folder,
        env={**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def edited_copy(repo_root, folder):
    """The project with one line more in the engine."""
    for name in ("actors", "conf", "jobs", "storage"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repo_root / name, folder / name, ignore=ignored)
    engine = folder / "actors" / "engine" / "engine.py"
    engine.write_text(engine.read_text() + "\n# an edit\n")
    return folder


def test_a_group_is_brought_up_used_by_a_job_looked_at_and_taken_down(joined, repo_root, tmp_path):
    assert group("status") == (ExitCode.DONE, NONE)
    alone = "cluster.tensor_parallel_size=1"

    code, said = group("up", alone, "cluster.idle_timeout_s=600")
    assert code == ExitCode.DONE, said
    assert "toy_mla: 1 rank(s) on cpu" in said
    assert "loaded\ntoy_mla: ready, up" in said
    assert "model: deepseek_v3, 6 layers of 128, float32" in said
    fingerprint = said.split("fingerprint ")[1].split()[0]

    job = start_job(joined, repo_root, *JOB, f"run_dir={tmp_path / 'run'}")
    stranger = start_job(
        joined,
        edited_copy(repo_root, tmp_path / "edited"),
        *(*JOB, "run_dir=run"),
    )
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0, said
    with Run.open(tmp_path / "run") as run:
        assert run.read("responses").num_rows >= 2

    said, _ = stranger.communicate(timeout=60)
    assert stranger.returncode == ExitCode.NO_CLUSTER
    (sentence,) = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert f"the resident group runs engine {fingerprint}, not " in sentence
    assert "run `traitmill group down` and `traitmill group up`" in sentence
    assert "Traceback" not in said

    assert "was up already" in group("up", alone)[1]
    code, said = group("status")
    assert f"fingerprint {fingerprint}\n" in said  # one load for all
    assert "idle for " in said
    assert "; ends by itself in 9 min " in said
    code, said = group("down")
    assert (code, said.split(" after ")[0]) == (ExitCode.DONE, "toy_mla: down")
    assert group("status")[1] == NONE
