"""Of a table in a bucket, only what is asked for crosses the network, and it is checked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import ranges, schema, tables
from storage.errors import CorruptFileError, NewerSchemaError
from storage.folder import FolderStore
from storage.manifest import Run
from storage.ranges import StoredFile
from storage.upload import sync

NUM_LAYERS, NUM_SAMPLES, WIDTH = 61, 40, 1024
LAYER_BYTES = NUM_SAMPLES * WIDTH * 4


def pooled_rows() -> list[dict[str, object]]:
    """A task's means as the stage makes them: sample by sample, each with all layers."""
    draw = np.random.default_rng(0)
    return [
        {
            "trait": "anxiety",
            "polarity": "positive",
            "scenario": sample,
            "sample": 0,
            "layer": layer,
            "site": "resid_post",
            "tokens": "response[:5]",
            "num_tokens": 5,
            "vector": draw.standard_normal(WIDTH).astype(np.float32),
        }
        for sample in range(NUM_SAMPLES)
        for layer in range(NUM_LAYERS)
    ]


class CountingStore(FolderStore):
    """Keeps what was asked of it."""

    def __init__(self, root):
        super().__init__(root)
        self.asked: list[int] = []
        self.downloads = 0

    def get_range(self, key, offset, size_bytes):
        self.asked.append(size_bytes)
        return super().get_range(key, offset, size_bytes)

    def download(self, key, path):
        self.downloads += 1
        super().download(key, path)


@pytest.fixture(scope="module")
def rows():
    return pooled_rows()


@pytest.fixture(scope="module")
def held(tmp_path_factory, rows):
    """A bucket with the run, and the folder that it came from."""
    root = tmp_path_factory.mktemp("pooled")
    table = schema.from_rows("pooled", rows)
    with Run.open(root / "run") as run:
        run.commit("t1", {"pooled": table}, model="toy", provenance={})
        sync(run, FolderStore(root / "bucket"), "to_bucket")
    return root


@pytest.fixture
def store(held):
    return CountingStore(held / "bucket")


def test_one_layer_of_many_costs_its_own_bytes_in_the_bucket(held, store, rows, tmp_path):
    with Run.open(tmp_path / "fresh", store=store) as run:
        store.asked.clear()
        got = run.read("pooled", ["scenario", "vector"], filters=[("layer", "==", 30)])
        assert store.downloads == 0
        assert not list((tmp_path / "fresh/data").rglob("*.parquet"))
    wanted = [row for row in rows if row["layer"] == 30]
    assert got["scenario"].to_pylist() == [row["scenario"] for row in wanted]
    assert np.array_equal(
        np.stack(got["vector"].to_numpy(zero_copy_only=False)),
        np.stack([row["vector"] for row in wanted]),
    )
    (path,) = (held / "run/data/pooled").rglob("*.parquet")
    footer_bytes = pq.read_metadata(path).serialized_size + 8
    # The end of the file, the rest of its long footer, and the layer: three requests.
    assert store.asked[0] == ranges.TAIL_BYTES
    assert store.asked[1] == footer_bytes - ranges.TAIL_BYTES
    assert sum(store.asked[2:]) <= 1.1 * LAYER_BYTES


def test_the_same_layer_here_is_one_row_group(held):
    (path,) = (held / "run/data/pooled").rglob("*.parquet")
    footer = pq.read_metadata(path)
    assert footer.num_row_groups == NUM_LAYERS
    place = tables.POOLED.get_field_index("layer")
    for number in range(NUM_LAYERS):
        facts = footer.row_group(number).column(place).statistics
        assert (facts.min, facts.max) == (number, number)
        assert footer.row_group(number).num_rows == NUM_SAMPLES


def test_columns_alone_leave_the_vectors_where_they_are(store, tmp_path):
    with Run.open(tmp_path / "fresh", store=store) as run:
        store.asked.clear()
        assert run.read("pooled", ["layer", "num_tokens"]).num_rows == NUM_LAYERS * NUM_SAMPLES
    assert sum(store.asked) < LAYER_BYTES


def test_all_of_a_table_is_downloaded_once_and_stays(store, tmp_path):
    with Run.open(tmp_path / "fresh", store=store) as run:
        assert run.read("pooled").num_rows == NUM_LAYERS * NUM_SAMPLES
        assert run.read("pooled", filters=[("layer", "==", 3)]).num_rows == NUM_SAMPLES
    assert store.downloads == 1


def test_a_small_object_is_downloaded_whole(store, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "RANGES_ABOVE_BYTES", 1 << 40)
    with Run.open(tmp_path / "fresh", store=store) as run:
        assert run.read("pooled", filters=[("layer", "==", 3)]).num_rows == NUM_SAMPLES
    assert store.downloads == 1


def test_a_flipped_bit_in_the_bucket_is_an_error_and_not_a_number(held, store, tmp_path):
    key = next(info.key for info in store.list("data/pooled"))
    path = store.root / key
    body = path.read_bytes()
    place = pq.read_metadata(path).row_group(30)
    at = place.column(tables.POOLED.get_field_index("vector")).data_page_offset + 5_000
    path.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    try:
        with (
            Run.open(tmp_path / "fresh", store=store) as run,
            pytest.raises(CorruptFileError, match=key),
        ):
            run.read("pooled", filters=[("layer", "==", 30)])
    finally:
        path.write_bytes(body)


def test_a_newer_table_in_the_bucket_is_refused(store, tmp_path, monkeypatch):
    older = tables.POOLED.with_metadata({"schema": "pooled", "schema_version": "0"})
    monkeypatch.setitem(schema.TABLES, "pooled", older)
    with (
        Run.open(tmp_path / "fresh", store=store) as run,
        pytest.raises(NewerSchemaError, match="upgrade traitmill"),
    ):
        run.read("pooled", filters=[("layer", "==", 30)])


@pytest.mark.parametrize(
    ("seek", "size", "expected"),
    [((0, 0), 3, b"012"), ((-3, 2), -1, b"789"), ((4, 0), 100, b"456789"), ((12, 0), 5, b"")],
)
def test_an_object_reads_as_a_file(seek, size, expected, tmp_path, monkeypatch, held):
    monkeypatch.setattr(ranges, "TAIL_BYTES", 4)
    store = CountingStore(tmp_path / "b")
    store.put("data/x/m/t-0.parquet", b"0123456789")
    with Run.open(held / "run") as run:
        record = run.commits()["t1"].files[0]
    file = StoredFile(store, replaced(record, key="data/x/m/t-0.parquet", size_bytes=10))
    file.seek(*seek)
    assert file.read(size) == expected
    assert file.readable()
    assert file.seekable()


def replaced(record, **changes):
    import dataclasses

    return dataclasses.replace(record, **changes)


def test_rows_in_layer_order_keep_their_order_within_a_layer():
    mixed = [{**row, "vector": [1.0]} for row in pooled_rows()[: 3 * NUM_LAYERS]]
    got = schema.conform("pooled", schema.from_rows("pooled", mixed), task_id="t", model="m")
    keys = list(zip(got["layer"].to_pylist(), got["scenario"].to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_a_small_table_in_layer_order_is_not_cut_into_crumbs(tmp_path):
    few = [{**row, "vector": [1.0]} for row in pooled_rows()[: 3 * NUM_LAYERS]]
    with Run.open(tmp_path / "run") as run:
        run.commit("t", {"pooled": schema.from_rows("pooled", few)}, model="m", provenance={})
    (path,) = (tmp_path / "run/data").rglob("*.parquet")
    assert pq.read_metadata(path).num_row_groups == 1
    assert isinstance(pq.read_table(path), pa.Table)
