"""Rows come back as they went in, wherever they waited, and reading touches no other bytes."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
import torch

from storage import schema
from storage.activations import ActivationWriter, RowBlock
from storage.errors import NewerSchemaError, ObjectMissingError, SchemaError
from storage.flat import flat_groups
from storage.folder import FolderStore
from storage.manifest import Run
from storage.rows import ActivationReader

WIDTH = 16
LAYERS = (0, 1, 2)


def value(prompt: int, layer: int, position: int) -> np.ndarray:
    return np.arange(WIDTH, dtype=np.uint16) + np.uint16(1000 * layer + 100 * prompt + position)


def block(prompt: int, layer: int, first: int = 0, length: int = 5, **changes) -> RowBlock:
    positions = np.arange(first, first + length, dtype=np.int32)
    facts = {
        "prompts": "set",
        "prompt_id": f"p{prompt:03d}",
        "layer": layer,
        "site": "resid_post",
        "values_ND": np.stack([value(prompt, layer, int(p)) for p in positions]),
        "positions": positions,
        "token_ids": positions + 7,
        "is_response": positions >= 3,
    }
    return RowBlock(**{**facts, **changes})


def writer_in(run: Run, task_id: str = "t1", **changes) -> ActivationWriter:
    facts = {
        "task_id": task_id,
        "model": "toy",
        "groups": [(layer, "resid_post") for layer in LAYERS],
        "width": WIDTH,
        "dtype": "bfloat16",
        "provenance": {"model_digest": "d"},
    }
    return ActivationWriter(run.wip, **{**facts, **changes})


def commit(run: Run, writer: ActivationWriter, task_id: str = "t1"):
    return run.commit(task_id, {}, model="toy", provenance={}, staged=[writer.finish()])


def written(root: Path, *, prompts: int = 4, task_id: str = "t1", **changes) -> Run:
    run = Run.open(root)
    writer = writer_in(run, task_id, **changes)
    for prompt in range(prompts):
        for layer in LAYERS:
            writer.add(block(prompt, layer))
    commit(run, writer, task_id)
    return run


def test_rows_come_back_bit_for_bit(tmp_path):
    run = written(tmp_path)
    got = ActivationReader(run).read(1)
    assert got.dtype == "bfloat16"
    assert got.values_ND.tolist() == [value(p, 1, t).tolist() for p in range(4) for t in range(5)]
    assert got.keys[6] == ("set", "p001", 1)


def test_the_order_of_arrival_does_not_change_a_byte(tmp_path):
    blocks = [block(p, layer, first, 2) for p in range(6) for layer in LAYERS for first in (0, 2)]
    digests = set()
    for seed in range(3):
        random.Random(seed).shuffle(blocks)
        with Run.open(tmp_path / str(seed)) as run:
            writer = writer_in(run, max_buffer_bytes=400 if seed else 1 << 20)
            for each in blocks:
                writer.add(each)
            digests.add(commit(run, writer).to_bytes())
    assert len(digests) == 1


def test_memory_is_bounded_by_the_spill(tmp_path):
    with Run.open(tmp_path) as run:
        writer = writer_in(run, max_buffer_bytes=1000)
        for prompt in range(50):
            for layer in LAYERS:
                writer.add(block(prompt, layer))
                assert writer.buffered_bytes <= 1000
        commit(run, writer)
        got = ActivationReader(run).read(2, prompt_ids=["p049"])
        assert got.values_ND.tolist() == [value(49, 2, t).tolist() for t in range(5)]
        assert sorted(p.name for p in run.wip.iterdir()) == [".lock"]


def test_a_complete_layer_leaves_memory_at_its_turn(tmp_path):
    with Run.open(tmp_path) as run:
        writer = writer_in(run)
        writer.add(block(0, 1))
        writer.complete(1, "resid_post")
        assert writer.buffered_bytes == 5 * 2 * WIDTH  # layer 0 comes first in the file
        writer.add(block(0, 0))
        writer.complete(0, "resid_post")
        assert writer.buffered_bytes == 0
        commit(run, writer)
        assert ActivationReader(run).sections == [(0, "resid_post"), (1, "resid_post")]


def test_each_row_group_is_one_layer_and_flat(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.activations.GROUP_BYTES", 7 * 2 * WIDTH)
    run = written(tmp_path)
    (file,) = run.commits()["t1"].files
    path = tmp_path / file.key
    assert [g.num_rows for g in flat_groups(path, "activation")] == [7, 7, 6] * 3
    parquet = pq.ParquetFile(path)
    for i in range(9):
        layers = parquet.read_row_group(i, columns=["layer"])["layer"].unique().to_pylist()
        assert layers == [i // 3]
    got = ActivationReader(run).read(2, prompt_ids=["p001", "p002"])
    assert got.values_ND.tolist() == [value(p, 2, t).tolist() for p in (1, 2) for t in range(5)]


@pytest.mark.parametrize(
    ("positions", "expected"), [(range(0, 2), [0, 1]), (range(3, 99), [3, 4]), (range(2, 3), [2])]
)
def test_a_token_range_is_cut_in_every_prompt(tmp_path, positions, expected):
    run = written(tmp_path)
    got = ActivationReader(run).read(0, positions=positions)
    assert [key.position for key in got.keys] == expected * 4
    assert got.values_ND[:, 0].tolist() == [100 * p + t for p in range(4) for t in expected]


def test_positions_with_holes_survive(tmp_path):
    chosen = np.array([1, 4, 9], np.int32)
    with Run.open(tmp_path) as run:
        writer = writer_in(run)
        writer.add(
            block(
                0,
                0,
                values_ND=np.zeros((3, WIDTH), np.uint16),
                positions=chosen,
                token_ids=chosen,
                is_response=chosen > 3,
            )
        )
        commit(run, writer)
        keys = ActivationReader(run).read(0, positions=range(4, 10)).keys
        assert [key.position for key in keys] == [4, 9]


def test_a_read_of_neighbours_is_a_view_of_the_file(tmp_path):
    run = written(tmp_path)
    got = ActivationReader(run).read(1, prompt_ids=["p002"])
    base = got.values_ND
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base.base, memoryview | mmap.mmap)  # no array holds a copy
    tensor = torch.from_numpy(got.values_ND).view(torch.bfloat16)
    assert tensor.shape == (5, WIDTH)
    assert tensor.view(torch.uint16).tolist() == [value(2, 1, t).tolist() for t in range(5)]


def test_float32_rows_are_float32(tmp_path):
    rows_ND = np.linspace(-1, 1, 5 * WIDTH, dtype=np.float32).reshape(5, WIDTH)
    with Run.open(tmp_path) as run:
        writer = writer_in(run, dtype="float32")
        writer.add(block(0, 0, values_ND=rows_ND))
        commit(run, writer)
        assert np.array_equal(ActivationReader(run).read(0).values_ND, rows_ND)


def test_rows_of_several_tasks_and_sets_are_found(tmp_path):
    run = written(tmp_path, prompts=2)
    writer = writer_in(run, "t2")
    writer.add(block(0, 1, prompts="other"))
    commit(run, writer, "t2")
    reader = ActivationReader(run)
    assert reader.prompts(1) == [("set", "p000"), ("set", "p001"), ("other", "p000")]
    assert reader.read(1, prompts="other").values_ND.shape == (5, WIDTH)
    assert reader.read(1, prompt_ids=["p000"]).values_ND.shape == (10, WIDTH)


def test_token_ids_come_without_the_values(tmp_path):
    run = written(tmp_path)
    got = ActivationReader(run).tokens(2)
    assert "activation" not in got.column_names
    assert got["token_id"].to_pylist()[:5] == [7, 8, 9, 10, 11]
    assert got["is_response"].to_pylist()[:5] == [False, False, False, True, True]
    assert set(got["layer"].to_pylist()) == {2}


def test_nothing_that_fits_is_an_error_with_the_place(tmp_path):
    run = written(tmp_path)
    with pytest.raises(ObjectMissingError, match="layer 9 resid_post"):
        ActivationReader(run).read(9)
    with pytest.raises(ObjectMissingError):
        ActivationReader(run).read(1, prompt_ids=["p999"])


class CountingStore(FolderStore):
    """Counts the ranges that are asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ranges: list[tuple[int, int]] = []

    def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        self.ranges.append((offset, size_bytes))
        return super().get_range(key, offset, size_bytes)


def test_one_prompt_is_one_exact_range_of_the_bucket(tmp_path):
    store = CountingStore(tmp_path / "bucket")
    with Run.open(tmp_path / "first", store=store) as run:
        writer = writer_in(run)
        for prompt in range(100):
            for layer in LAYERS:
                writer.add(block(prompt, layer))
        commit(run, writer)
    with Run.open(tmp_path / "fresh", store=store) as run:
        reader = ActivationReader(run)
        store.ranges.clear()
        got = reader.read(1, prompt_ids=["p042"])
        assert [size for _, size in store.ranges] == [5 * 2 * WIDTH]
        assert got.values_ND.tolist() == [value(42, 1, t).tolist() for t in range(5)]
        store.ranges.clear()
        assert reader.read(2).values_ND.shape == (500, WIDTH)
        assert [size for _, size in store.ranges] == [500 * 2 * WIDTH]
        assert reader.tokens(2).num_rows == 500
        assert not list((tmp_path / "fresh/data").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layer": 9}, "layer 9 resid_post is not expected"),
        ({"values_ND": np.zeros((5, 8), np.uint16)}, r"uint16\[5, 8\], not uint16\[5, 16\]"),
        ({"values_ND": np.zeros((5, 16), np.float32)}, r"float32\[5, 16\], not uint16"),
        ({"positions": np.zeros(5, np.int32)}, "positions of p000 do not increase"),
    ],
)
def test_a_block_that_was_not_announced_is_refused(tmp_path, changes, problem):
    with Run.open(tmp_path) as run:
        writer = writer_in(run)
        with pytest.raises(SchemaError, match=problem):
            writer.add(block(0, **{"layer": 0, **changes}))
        writer.abort()
        assert sorted(p.name for p in run.wip.iterdir()) == [".lock"]


def test_the_same_token_twice_is_refused(tmp_path):
    with Run.open(tmp_path) as run:
        writer = writer_in(run)
        writer.add(block(0, 0, 0, 3))
        writer.add(block(0, 0, 2, 3))
        with pytest.raises(SchemaError, match="p000 has position 2 twice at layer 0"):
            writer.finish()
        writer.abort()


def test_other_readers_see_the_same_bytes(tmp_path):
    run = written(tmp_path)
    (file,) = run.commits()["t1"].files
    path = str(tmp_path / file.key)
    want = value(3, 2, 4).tobytes()
    assert pd.read_parquet(path)["activation"].iloc[-1] == want
    assert polars.read_parquet(path)["activation"][-1] == want
    query = f"select activation from '{path}' where layer=2 and prompt_id='p003' and position=4"
    assert duckdb.sql(query).fetchall()[0][0] == want
    assert run.read("activations", ["activation"])["activation"][-1].as_py() == want


def test_verify_hashes_activations_too(tmp_path):
    run = written(tmp_path)
    assert run.verify().is_whole


def test_rows_of_a_newer_version_are_refused_before_they_are_read(tmp_path, monkeypatch):
    with written(tmp_path) as run:
        older = schema.TABLES["activations"].with_metadata(
            {"schema": "activations", "schema_version": "0"}
        )
        monkeypatch.setitem(schema.TABLES, "activations", older)
        with pytest.raises(NewerSchemaError, match="activations at version 1"):
            ActivationReader(run)
