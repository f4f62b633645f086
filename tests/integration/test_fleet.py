"""Two real groups share one plan, through a kill; two models take turns where one group fits.

The short form, with groups of a small engine: ``test_fleet_nodes.py``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import ray
from safetensors.torch import load_file, save_file

import jobs.driver
from jobs.entry import main
from storage.manifest import Run

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.usefixtures("joined")]

SMALL = (
    "trait=anxiety",
    "layer=[1,2]",
    "method=mean_difference",
    "extraction.num_pairs=8",
    "extraction.min_passed=1",
    "extraction.max_new_tokens=6",
    "extraction.vetting=false",
    "steering.num_questions=2",
    "steering.samples=2",
    "steering.coefficient_ratios=[0.5,1.0]",
    "steering.max_new_tokens=8",
    "schedule.bundle_requests=8",
    "cluster.dashboard=false",
    "cluster.tensor_parallel_size=1",
)


class Watched:
    """Real groups, with a note of who was asked what, and who was up at the same time."""

    def __init__(self, monkeypatch, *, together: int = 1, on_submit=None) -> None:
        self.sent: list[tuple[int, str]] = []
        self.names: list[str] = []
        self.up: set[int] = set()
        self.most_up = 0
        self.pids: dict[int, list[int]] = {}
        self._on_submit = on_submit or (lambda number, watched: None)
        self._gate = threading.Barrier(together)
        self._together = together
        self._plain = jobs.driver.start_group
        monkeypatch.setattr(jobs.driver, "start_group", self.start)

    def start(self, spec, group, number, **life):
        made = self._plain(spec, group, number, **life)
        self.names.append(group.name)
        self.up.add(number)
        self.most_up = max(self.most_up, len(self.up))
        self.pids[number] = [one.pid for one in made.processes]
        submit, close = made.submit, made.close

        def noted_submit(bundle, **options):
            self.sent.append((number, bundle.id))
            pending = submit(bundle, **options)
            self._on_submit(number, self)
            return pending

        def noted_close():
            close()
            self.up.discard(number)

        made.submit, made.close = noted_submit, noted_close
        if number <= self._together:
            self._gate.wait(120)  # the first groups begin together, however busy the machine is
        return made


def digest_of_results(run_dir: Path) -> dict[str, str]:
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in ("runs", "attempts")
    }


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> dict[str, str]:
    """What one undisturbed group leaves."""
    run_dir = tmp_path_factory.mktemp("runs") / "calm"
    assert main("steer", [f"run_dir={run_dir}", *SMALL]) == 0
    return digest_of_results(run_dir)


def test_two_groups_of_which_one_is_killed_leave_the_bytes_of_one(calm, tmp_path, monkeypatch):
    def kill_once(number, watched):
        if number == 2 and len([one for one, _ in watched.sent if one == 2]) == 1:
            os.kill(watched.pids[2][0], signal.SIGKILL)

    watched = Watched(monkeypatch, together=2, on_submit=kill_once)
    # The second one is started because bundles queue up.
    more = ("cluster.max_groups=2", "schedule.bundles_per_group=1")
    assert main("steer", [f"run_dir={tmp_path}", *more, *SMALL]) == 0

    assert digest_of_results(tmp_path) == calm
    assert watched.most_up == 2
    lost = next(bundle for number, bundle in watched.sent if number == 2)
    again = [number for number, bundle in watched.sent if bundle == lost and number != 2]
    assert len(again) == 1
    assert len([bundle for number, bundle in watched.sent if number == 1]) >= 2
    # Nothing but what was at the dead group was asked twice.
    twice = {one for _, one in watched.sent if [b for _, b in watched.sent].count(one) > 1}
    assert twice <= {bundle for number, bundle in watched.sent if number == 2}
    with Run.open(tmp_path) as run:
        rows = [row for row in run.read("attempts").to_pylist() if row["outcome"] == "retry"]
    assert {(row["error_type"], row["group"]) for row in rows if row["attempt"] == 1} == {
        ("RankDied", "group-2")
    }
    assert not ray.is_initialized()


@pytest.fixture
def perturbed(toy_mla_path, tmp_path) -> Path:
    """A second checkpoint of the same shape."""
    folder = tmp_path / "toy_mla_base"
    shutil.copytree(toy_mla_path, folder)
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    name = next(one for one in sorted(tensors) if one.endswith("o_proj.weight"))
    tensors[name] = tensors[name].roll(1, dims=0)
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def test_directions_of_one_checkpoint_steer_another_and_both_are_never_up_at_once(
    calm, perturbed, tmp_path, monkeypatch
):
    watched = Watched(monkeypatch)
    two = ("extract_model=toy_mla", f"extract_model.path={perturbed}")
    run_dir = tmp_path / "run"
    assert main("steer", [f"run_dir={run_dir}", *two, *SMALL]) == 0

    assert watched.names == ["toy_mla_base-extract", "toy_mla"]
    assert watched.most_up == 1
    asked = {
        number: {bundle.split("-")[0] for one, bundle in watched.sent if one == number}
        for number in (1, 2)
    }
    assert asked == {1: {"responses"}, 2: {"baseline", "steering"}}
    with Run.open(run_dir) as run:
        vectors, steered = run.read("vectors").to_pylist(), run.read("steering").to_pylist()
    assert {row["model"] for row in vectors} == {"toy_mla_base"}
    assert {row["model"] for row in steered} == {"toy_mla"}
    used = {row["vector_sha256"] for row in steered if row["vector_kind"] == "trait"}
    assert used == {row["sha256"] for row in vectors}
    # The unsteered answers are the run's model's own; the directions are not.
    mine = digest_of_results(run_dir)
    baseline = [name for name in calm if "/baseline-" in name]
    assert baseline
    assert all(mine[name] == calm[name] for name in baseline)
    fits = {digest for name, digest in calm.items() if "/fit-" in name}
    assert not fits & set(mine.values())
