"""A job with a bucket leaves everything there, and a fresh machine goes on from that alone.

The jobs, the command line and, where it is installed, the server are real; the group is a stand-in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import pytest

import jobs.driver
from actors.errors import RankDied
from jobs import cli
from jobs.entry import main
from storage.manifest import Run
from tests.faults.servers import CACHE, R2Local
from tests.s3_server import CREDENTIALS, moto_endpoint, store_at
from tests.standin import StandInGroup, make_model_folder

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
    "schedule.bundle_requests=24",
)


class Cluster:
    """Stands for Ray and the group; keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.fail = None

    def start_group(self, spec, group, number, *, resident=None, cancelled=None):
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


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """Cloudflare's own local R2 where ``make faults`` has installed it, else moto."""
    if not (CACHE / "wrangler/node_modules/miniflare").exists():
        with moto_endpoint() as address:
            yield address
        return
    server = R2Local(tmp_path_factory.mktemp("r2local"))
    yield f"http://127.0.0.1:{server.port}{server.path}"
    server.kill()


@pytest.fixture
def bucket(endpoint, monkeypatch, request):
    """Options that name an empty place in a bucket."""
    names = {**CREDENTIALS, "R2_ENDPOINT": endpoint, "R2_BUCKET_NAME": "bucket"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return ("storage=r2", f"storage.prefix={request.node.name}")


def call(job: str, model: Path, run_dir: Path, *extra: str) -> int:
    return main(job, [f"model.path={model}", f"run_dir={run_dir}", *SMALL, *extra])


def results(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of every result file; runs and attempts hold times."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / "data").rglob("*.parquet"))
        if path.relative_to(root).parts[1] not in ("runs", "attempts")
    }


def test_a_job_that_one_machine_began_is_finished_by_another(
    cluster, model, bucket, tmp_path, capsys
):
    assert call("steer", model, tmp_path / "whole") == 0
    whole_run = list(cluster.sent)

    def die_in_steering(bundle):
        if bundle.id.startswith("steering"):
            return RankDied(doing=f"run bundle {bundle.id}", cause="killed", rank=1)
        return None

    cluster.sent.clear()
    cluster.fail = die_in_steering
    assert call("steer", model, tmp_path / "first", *bucket) == 1
    before, cluster.fail = list(cluster.sent), None
    shutil.rmtree(tmp_path / "first")
    cluster.sent.clear()

    assert call("steer", model, tmp_path / "second", *bucket) == 0
    assert "18 tasks for 1 point(s), 9 committed already" in capsys.readouterr().out
    assert [name.split("-")[0] for name in cluster.sent] == ["steering"] * len(cluster.sent)
    assert 0 < len(cluster.sent) < len(whole_run)
    assert before[0].startswith("responses")

    store = store_at(os.environ["R2_ENDPOINT"], prefix=bucket[1].partition("=")[2])
    held = {info.key for info in store.list("")}
    assert {"README.md", "_meta/manifests/000001.json", "_meta/manifests/000002.json"} <= held
    assert any(key.startswith("_meta/points/") for key in held)

    cluster.sent.clear()
    assert call("steer", model, tmp_path / "third", *bucket) == 0
    assert "nothing to do: all 18 tasks" in capsys.readouterr().out
    assert cluster.sent == []

    assert cli.main(["sync", str(tmp_path / "fourth"), "--from-bucket", *bucket]) == 0
    assert results(tmp_path / "fourth") == results(tmp_path / "whole")


def test_sync_and_verify_walk_both_ways_by_the_command_line(
    cluster, model, bucket, tmp_path, capsys
):
    assert call("extract", model, tmp_path / "here") == 0
    with Run.open(tmp_path / "here") as run:
        num_tasks = len(run.commits())
    capsys.readouterr()

    assert cli.main(["sync", str(tmp_path / "here"), *bucket]) == 0
    assert f"{num_tasks} tasks, " in capsys.readouterr().out
    assert cli.main(["sync", str(tmp_path / "here"), *bucket]) == 0
    assert "0 tasks, 0 files, 0 bytes moved" in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path / "here"), *bucket]) == 0
    assert f"{num_tasks} commits, " in capsys.readouterr().out

    assert cli.main(["sync", str(tmp_path / "there"), "--from-bucket", *bucket]) == 0
    assert cli.main(["verify", str(tmp_path / "there")]) == 0
    assert results(tmp_path / "there") == results(tmp_path / "here")

    store = store_at(os.environ["R2_ENDPOINT"], prefix=bucket[1].partition("=")[2])
    key = next(info.key for info in store.list("data/vectors"))
    store.put(key, b"spoilt")
    capsys.readouterr()
    assert cli.main(["verify", str(tmp_path / "here"), *bucket]) == 1
    assert key in capsys.readouterr().out
