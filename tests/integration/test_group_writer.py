"""Captured rows go from two ranks to one file without passing the driver."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from actors.errors import RankDied
from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.request import Bundle, Capture, EngineSpec, Request, Sampling
from actors.writer import WriteJob, Writer
from storage.errors import SchemaError
from storage.manifest import Run
from tests.fakes import WIDTH

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

LAYERS = (0, 1, 2, 3, 5)


@pytest.fixture(scope="module")
def group():
    """One group for all tests here; the last one breaks it."""
    spec = EngineSpec(model_path="/nowhere", tensor_parallel_size=2)
    cluster = GroupSpec(name="captured", engine="tests.fakes:FakeEngine.load")
    with ModelGroup.start(spec, cluster) as group:
        yield group


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path / "run", name="test")
    yield writer
    writer.close()


def bundle(name, num_requests=3):
    return Bundle(
        id=name,
        requests=tuple(
            Request(
                id=f"q{i}",
                token_ids=(1, 2, 3)[: i + 1],
                sampling=Sampling(max_new_tokens=2),
                capture=(Capture(layers=LAYERS, tokens="all"),),
            )
            for i in range(num_requests)
        ),
    )


def job(task_id, **changes):
    fields = {
        "task_id": task_id,
        "model": "fake",
        "groups": tuple((layer, "resid_post") for layer in LAYERS),
        "width": WIDTH,
        "dtype": "float32",
        "prompts": "set",
        "prompt_of": {f"q{i}": f"p{i}" for i in range(3)},
        "provenance": {"seed": 0},
    }
    return WriteJob(**(fields | changes))


def answered(group, name):
    pending = group.submit(bundle(name), hold_rows=True)
    group.wait([pending])
    return pending


def test_every_row_of_both_ranks_is_committed_in_layer_order(group, writer, tmp_path):
    pending = answered(group, "b")
    assert all(one.captures[0].values == {} for one in pending.reply().results)
    receipt = writer.write(group, pending, job("a" * 16), {})
    assert receipt.num_rows == len(LAYERS) * (3 + 4 + 5)
    assert receipt.num_files == 1
    with Run.open(tmp_path / "run") as run:
        assert run.is_done("a" * 16)
        rows = run.read("activations")
    assert rows["layer"].to_pylist() == [layer for layer in LAYERS for _ in range(12)]
    values = np.frombuffer(b"".join(rows["activation"].to_pylist()), np.float32)
    wanted = [100 * r["layer"] + r["position"] for r in rows.to_pylist()]
    assert values.reshape(-1, WIDTH)[:, 0].tolist() == wanted
    first = [r for r in rows.to_pylist() if r["layer"] == 5 and r["prompt_id"] == "p1"]
    assert [r["token_id"] for r in first] == [1, 2, 3, 4]
    assert [r["is_response"] for r in first] == [False, False, True, True]


def test_the_same_bundle_gives_the_same_bytes(group, writer, tmp_path):
    receipts = [
        writer.write(group, answered(group, f"b{i}"), job(str(i) * 16), {}) for i in range(2)
    ]
    assert receipts[0].num_rows == receipts[1].num_rows
    with Run.open(tmp_path / "run") as run:
        tables = [
            run.read("activations", filters=[("task_id", "==", str(i) * 16)]) for i in range(2)
        ]
    names = [one for one in tables[0].column_names if one != "task_id"]
    assert tables[0].select(names).equals(tables[1].select(names))


def test_rows_that_are_not_as_announced_are_refused_and_leave_no_file(group, writer, tmp_path):
    with pytest.raises(SchemaError):
        writer.write(group, answered(group, "b"), job("a" * 16, width=4), {})
    receipt = writer.write(group, answered(group, "b2"), job("a" * 16), {})
    assert receipt.num_rows == 60
    with Run.open(tmp_path / "run") as run:
        assert list(run.commits()) == ["a" * 16]
        assert [one.name for one in run.wip.iterdir() if one.suffix == ".parquet"] == []


def test_a_rank_that_dies_with_rows_in_hand_costs_the_task_and_nothing_else(
    group, writer, tmp_path
):
    writer.write(group, answered(group, "kept"), job("a" * 16), {})
    pending = answered(group, "lost")
    pid = group.processes[1].pid
    os.kill(pid, 9)
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.01)
    with pytest.raises(RankDied, match="send captured rows") as caught:
        writer.write(group, pending, job("b" * 16), {})
    assert caught.value.rank == 1
    with Run.open(tmp_path / "run") as run:
        assert list(run.commits()) == ["a" * 16]
