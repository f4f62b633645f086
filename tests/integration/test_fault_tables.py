"""Whatever happens to a job's ranks, start, judge or object store, no byte of its tables differs.

A lost node: ``test_group_two_nodes.py``; drivers, supervisors and whole Rays: ``test_chaos.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

import jobs.driver
from actors import parcel
from jobs.entry import ExitCode, main
from storage.manifest import Run
from tests.chaos.judge_server import Handler, Server
from tests.chaos.trial import digests
from tests.faulty import FOLDER_VARIABLE

pytestmark = [pytest.mark.ray, pytest.mark.long]

SMALL = (
    "trait=anxiety",
    "layer=[1,2]",
    "method=mean_difference",
    "extraction.num_pairs=8",
    "extraction.min_passed=1",
    "extraction.max_new_tokens=8",
    "extraction.vetting=false",
    "steering.num_questions=2",
    "steering.samples=1",
    "steering.coefficient_ratios=[0.5,1.0]",
    "steering.max_new_tokens=8",
    "schedule.bundle_requests=6",
    "cluster.tensor_parallel_size=2",
    "cluster.dashboard=false",
    "cluster.kv_cache_bytes=33554432",
    "judge=endpoint",
    "judge.model=number",
    "judge.timeout_s=1",
    "judge.max_attempts=2",
    # On a busy machine a rank may be late without a fault of ours; bundles stay whole all the same.
    "schedule.group_attempts=4",
    "schedule.judge_attempts=9",
)
STORE_BYTES = 80 << 20


class UnwellHandler(Handler):
    """A judge that is ill for its first calls, in every way that one can be."""

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        with self.server.lock:
            illness = self.server.illness.pop(0) if self.server.illness else ""
        if illness == "slow":
            time.sleep(1.5)  # the caller has given up by then
        if illness == "drop":
            self.close_connection = True
            self.connection.close()
        elif illness == "error":
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            with contextlib.suppress(OSError):
                super().do_POST()


@pytest.fixture(scope="module")
def judge():
    server = Server(("127.0.0.1", 0), UnwellHandler)
    server.illness, server.lock = [], threading.Lock()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One node. Its object store cannot fall back to the disk, as when the disk is full too."""
    faults = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(faults))  # the ranks inherit it
        head = {
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_system_config": {"local_fs_capacity_threshold": 0.0},
        }
        made = Cluster(initialize_head=True, head_node_args=head)
        patch.setenv("RAY_ADDRESS", made.address)
        yield SimpleNamespace(faults=faults)
    made.shutdown()


@pytest.fixture
def watched(monkeypatch, cluster):
    """Every group's ranks have the engine that can fail; notes what was started and sent."""
    found = SimpleNamespace(groups=[], sent=[], on_submit=lambda group, bundle: None)
    plain = jobs.driver.start_group

    def start(spec, group, number, **life):
        group = dataclasses.replace(group, engine="tests.faulty:load")
        made = plain(spec, group, number, **life)
        found.groups.append(number)
        submit = made.submit

        def noted(bundle, **options):
            found.sent.append(bundle.id)
            with found.on_submit(made, bundle) or contextlib.nullcontext():
                return submit(bundle, **options)

        made.submit = noted
        return made

    monkeypatch.setattr(jobs.driver, "start_group", start)
    monkeypatch.setattr(parcel, "STORE_WAIT_S", 0.3)
    yield found
    for left in cluster.faults.iterdir():
        left.unlink()


def steer(run_dir: Path, judge, *extra: str) -> int:
    return main("steer", [f"run_dir={run_dir}", f"judge.url={url(judge)}", *SMALL, *extra])


def url(judge) -> str:
    return f"http://127.0.0.1:{judge.server_address[1]}/v1"


def failures(run_dir: Path) -> list[tuple[str, str]]:
    """(error type, outcome) of everything that is to blame for itself."""
    with Run.open(run_dir) as run:
        rows = run.read("attempts").to_pylist()
    blamed = [row for row in rows if row["error_type"] is not None and row["attempt"] > 0]
    return [(row["error_type"], row["outcome"]) for row in blamed]


@pytest.fixture(scope="module")
def calm(cluster, judge, tmp_path_factory):
    """What an undisturbed run leaves."""
    run_dir = tmp_path_factory.mktemp("runs") / "calm"
    assert steer(run_dir, judge) == ExitCode.DONE
    assert failures(run_dir) == []
    return run_dir


def plant(cluster, *faults: str) -> None:
    for number, fault in enumerate(faults):
        (cluster.faults / f"{number}-{fault}").touch()


def left(cluster) -> list[str]:
    """Faults that did not strike."""
    return [one.name for one in cluster.faults.iterdir() if one.name[0].isdigit()]


def test_ranks_that_raise_or_skip_a_collective_and_a_judge_that_is_ill_change_no_byte(
    calm, cluster, judge, watched, tmp_path
):
    plant(cluster, "raise-1", "skip-0")
    judge.illness = ["error"] * 4 + ["drop", "slow", "error", "drop"]

    assert steer(tmp_path, judge) == ExitCode.DONE

    assert digests(tmp_path) == digests(calm)
    assert len(watched.groups) >= 3
    assert (left(cluster), judge.illness) == ([], [])
    found = failures(tmp_path)
    assert {outcome for _, outcome in found} == {"retry"}
    assert {"RankRaised", "RankHung"} <= {kind for kind, _ in found}


def test_ranks_that_hang_stop_or_fail_half_way_into_a_start_change_no_byte(
    calm, cluster, judge, watched, tmp_path
):
    plant(cluster, "hang-0", "dies-1", "refuses-1", "stop-1")

    assert steer(tmp_path, judge, "cluster.stall_timeout_s=5") == ExitCode.DONE

    assert digests(tmp_path) == digests(calm)
    assert left(cluster) == []
    kinds = [kind for kind, _ in failures(tmp_path)]
    assert kinds.count("RankHung") >= 2
    assert kinds.count("GroupStartFailed") >= 2


def test_a_full_object_store_changes_no_byte(calm, cluster, judge, watched, tmp_path):
    happened = []

    @contextlib.contextmanager
    def full_store():
        """Nothing more fits for as long as this lasts."""
        kept, size = [], STORE_BYTES
        while size > 1 << 10:
            try:
                kept.append(ray.put(np.zeros(size, np.uint8)))
            except (ObjectStoreFullError, OutOfDiskError):
                size //= 2
        happened.append(len(kept))
        yield

    watched.on_submit = lambda _, bundle: full_store() if bundle.vectors and not happened else None

    assert steer(tmp_path, judge) == ExitCode.DONE

    assert digests(tmp_path) == digests(calm)
    assert happened[0] > 3
    assert failures(tmp_path) == [("ObjectStoreFull", "retry")]
    assert watched.groups == [1]


def test_a_poison_task_is_skipped_after_two_groups_and_costs_no_other_task(
    calm, cluster, judge, watched, tmp_path, capsys
):
    with Run.open(calm) as run:
        poison = sorted(one for one in run.commits() if one.startswith("steering"))[-1]
    (cluster.faults / "poison").write_text(poison)

    assert steer(tmp_path, judge, "schedule.group_attempts=2") == ExitCode.SOME_FAILED

    died = [outcome for kind, outcome in failures(tmp_path) if kind == "RankDied"]
    assert died == ["retry", "skip"]
    said = capsys.readouterr()
    assert "3 of 15 tasks have no result; the same command tries them again." in said.out
    assert "rank 1 on node" in said.err
    got, wanted = digests(tmp_path), digests(calm)
    assert got == {name: digest for name, digest in wanted.items() if name in got}
    assert len(wanted) - len(got) == 3  # itself, its scores and the summary

    (cluster.faults / "poison").unlink()
    assert steer(tmp_path, judge) == ExitCode.DONE
    assert digests(tmp_path) == wanted
