"""``ray job submit`` runs the same job with the same results, and a sweep loads the model once."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import submit
from jobs.entry import main
from storage.manifest import Run

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
RANK_0 = r"\(traitmill/toy_mla/rank0 pid=\d+.*\).*loaded deepseek_v3 in "


def results(run_dir: Path) -> dict[str, str]:
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in ("runs", "attempts")
    }


def test_a_submitted_sweep_equals_one_run_from_here_with_one_model_load(
    head, repo_root, tmp_path, monkeypatch
):
    remote, here = tmp_path / "remote", tmp_path / "here"
    alone = "cluster.tensor_parallel_size=1"
    sweep = ["--multirun", "trait=anxiety,guilt", "layer=1,2", alone, *SMALL]

    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "submit", "steer", *sweep, f"run_dir={remote}"],
        cwd=repo_root,
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "for 4 point(s)" in done.stdout
    assert "succeeded, exit code 0" in done.stdout
    with Run.open(remote) as run:
        groups = {row["group"] for row in run.read("attempts").to_pylist()} - {None}
        assert run.read("runs").to_pylist()[0]["exit_code"] == 0
    assert groups <= {"group-1"}
    assert re.search(RANK_0, done.stdout)

    monkeypatch.setenv("RAY_ADDRESS", head.address)
    assert main("steer", [*sweep, f"run_dir={here}"]) == 0
    assert results(remote) == results(here)


def logs_of_rank_1(head):
    return head.folder.glob("session_2*/logs/traitmill-toy_mla-rank1-*.log")


@pytest.mark.long
def test_a_stopped_job_says_so_and_the_same_command_continues_to_the_same_bytes(
    head, repo_root, tmp_path
):
    """``ray job stop``: the driver has time to end in good order, and nothing is left running."""
    client = submit.connect(head.dashboard)
    others = set(logs_of_rank_1(head))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    plan = ["trait=anxiety", "layer=[1,2]", *SMALL, "schedule.bundle_requests=4"]
    command = [*plan, f"run_dir={cut}"]
    job = submit.send(client, "steer", command, repo_root)
    commits = cut / "_meta" / "commits"
    wait_until(lambda: len(list(commits.glob("*.json"))) >= 2 if commits.is_dir() else False)
    client.stop_job(job)
    wait_until(lambda: client.get_job_status(job).is_terminal())

    assert client.get_job_status(job).value == "STOPPED"
    assert "stopped; what is committed is safe, the same command continues." in (
        client.get_job_logs(job)
    )
    # Rank 0 speaks in the job's log, under its name; the other has a file of its own.
    assert re.search(RANK_0, client.get_job_logs(job))
    assert "rank1" not in client.get_job_logs(job)
    (own,) = set(logs_of_rank_1(head)) - others
    assert "loaded deepseek_v3 in " in own.read_text()
    with Run.open(cut) as run:
        done = [name for name in run.commits() if not name.startswith("run-")]
        assert [row["exit_code"] for row in run.read("runs").to_pylist()] == [130]
    assert 2 <= len(done) < 12

    again = submit.send(client, "steer", command, repo_root)
    wait_until(lambda: client.get_job_status(again).is_terminal())
    assert client.get_job_info(again).driver_exit_code == 0
    assert f"{len(done)} committed already" in client.get_job_logs(again)
    assert main("steer", [*plan, f"run_dir={whole}", "cluster.dashboard=false"]) == 0
    assert results(cut) == results(whole)


def wait_until(is_due, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not is_due():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_refused_job_has_its_own_exit_code(head, repo_root):
    client = submit.connect(head.dashboard)
    job = submit.send(client, "steer", ["trait=anxeity"], repo_root)
    wait_until(lambda: client.get_job_status(job).is_terminal())
    assert client.get_job_info(job).driver_exit_code == 2
    assert "did you mean anxiety?" in client.get_job_logs(job)
