"""Files made around values that were never copied are ordinary Parquet to every reader."""

from __future__ import annotations

import os

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.flat import flat_groups
from storage.flat_writer import FlatWriter

WIDTH = 8
SIZES = (5, 1, 300)
SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), False, {"meaning": "who"}),
        pa.field("layer", pa.int16(), False),
        pa.field("is_response", pa.bool_(), False),
        pa.field("activation", pa.binary(2 * WIDTH), False, {"dtype": "bfloat16"}),
    ],
    {"schema": "activations", "schema_version": "1"},
)


def rows_of(group: int) -> np.ndarray:
    draw = np.random.default_rng(group)
    return draw.integers(0, 65_535, (SIZES[group], WIDTH), dtype=np.uint16)


def keys_of(group: int) -> list[pa.Array]:
    num_rows = SIZES[group]
    return [
        pa.array([f"p{i % 3}" for i in range(num_rows)]),
        pa.array([group] * num_rows, pa.int16()),
        pa.array([i % 2 == 0 for i in range(num_rows)]),
    ]


@pytest.fixture
def path(tmp_path):
    writer = FlatWriter(tmp_path / "f.parquet", SCHEMA)
    for group in range(len(SIZES)):
        writer.add(keys_of(group), rows_of(group).data)
    writer.close()
    return tmp_path / "f.parquet"


VALUES = b"".join(rows_of(group).tobytes() for group in range(len(SIZES)))


def test_pyarrow_reads_rows_keys_and_the_whole_schema(path):
    table = pq.read_table(path, page_checksum_verification=True)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert b"".join(table["activation"].to_pylist()) == VALUES
    wanted = pa.concat_tables(
        pa.table(keys_of(group), names=SCHEMA.names[:-1]) for group in range(len(SIZES))
    )
    assert table.select(SCHEMA.names[:-1]).to_pydict() == wanted.to_pydict()


def test_the_values_are_flat_where_the_footer_says(path):
    body = path.read_bytes()
    groups = flat_groups(path, "activation")
    assert tuple(group.num_rows for group in groups) == SIZES
    found = [body[g.offset : g.offset + 2 * WIDTH * g.num_rows] for g in groups]
    assert b"".join(found) == VALUES


@pytest.mark.parametrize("layer", range(len(SIZES)))
def test_every_reader_prunes_by_layer(path, layer):
    wanted = rows_of(layer).tobytes()
    filters = [("layer", "==", layer)]
    query = f"select activation from '{path}' where layer = {layer}"
    found = {
        "pyarrow": pq.read_table(path, filters=filters)["activation"].to_pylist(),
        "pandas": list(pd.read_parquet(path, filters=filters)["activation"]),
        "duckdb": [row[0] for row in duckdb.sql(query).fetchall()],
        "polars": list(
            polars.scan_parquet(path).filter(polars.col("layer") == layer).collect()["activation"]
        ),
    }
    for reader, rows in found.items():
        assert b"".join(rows) == wanted, reader


def test_datasets_reads_it(path, tmp_path):
    found = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert b"".join(found["activation"]) == VALUES


def test_the_footer_says_what_pyarrows_own_would_say(path, tmp_path):
    table = pq.read_table(path)
    own = pq.ParquetWriter(
        tmp_path / "own",
        SCHEMA,
        compression=dict.fromkeys(SCHEMA.names[:-1], "zstd") | {"activation": "none"},
        use_dictionary=SCHEMA.names[:-1],
        write_statistics=SCHEMA.names[:-1],
        data_page_size=1 << 30,
    )
    for first, num_rows in zip(np.cumsum([0, *SIZES]), SIZES, strict=False):
        own.write_table(table.slice(first, num_rows), row_group_size=num_rows)
    own.close()
    ours, theirs = pq.read_metadata(path), pq.read_metadata(tmp_path / "own")
    assert ours.schema.equals(theirs.schema)
    assert ours.metadata == theirs.metadata
    for i in range(len(SIZES)):
        for j in range(len(SCHEMA)):
            left, right = ours.row_group(i).column(j), theirs.row_group(i).column(j)
            assert left.statistics == right.statistics
            assert left.compression == right.compression
            assert left.path_in_schema == right.path_in_schema
            assert left.num_values == right.num_values
            # A page header of the values may be a few bytes shorter than theirs.
            slack = 8 * (j == len(SCHEMA) - 1)
            assert abs(left.total_compressed_size - right.total_compressed_size) <= slack


def test_the_same_rows_give_the_same_bytes(path, tmp_path):
    again = FlatWriter(tmp_path / "again", SCHEMA)
    for group in range(len(SIZES)):
        again.add(keys_of(group), rows_of(group).data)
    again.close()
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_file_without_rows_is_a_table_without_rows(tmp_path):
    FlatWriter(tmp_path / "empty", SCHEMA).close()
    found = pq.read_table(tmp_path / "empty")
    assert found.num_rows == 0
    assert found.schema.equals(SCHEMA, check_metadata=True)


def test_an_abandoned_file_is_no_table(tmp_path):
    writer = FlatWriter(tmp_path / "f", SCHEMA)
    writer.add(keys_of(0), rows_of(0).data)
    writer.abandon()
    writer.abandon()
    with pytest.raises(pa.ArrowInvalid):
        pq.read_metadata(tmp_path / "f")


def test_a_name_that_is_taken_is_not_overwritten(tmp_path):
    (tmp_path / "f").write_bytes(b"someone's")
    with pytest.raises(FileExistsError):
        FlatWriter(tmp_path / "f", SCHEMA)
    assert (tmp_path / "f").read_bytes() == b"someone's"


def test_keys_that_do_not_fit_the_schema_are_refused(tmp_path):
    writer = FlatWriter(tmp_path / "f", SCHEMA)
    short = [keys_of(0)[0], keys_of(0)[1], keys_of(1)[2]]
    with pytest.raises(pa.ArrowInvalid):
        writer.add(short, rows_of(0).data)
    writer.abandon()


def test_a_disk_that_takes_a_few_bytes_at_a_time_loses_none(path, tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, body: write(handle, body[:37]))
    writer = FlatWriter(tmp_path / "slow", SCHEMA)
    for group in range(len(SIZES)):
        writer.add(keys_of(group), rows_of(group).data)
    writer.close()
    monkeypatch.undo()
    assert (tmp_path / "slow").read_bytes() == path.read_bytes()
