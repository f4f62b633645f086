"""Every declared table is written, zstd-compressed, and read the same by every reader."""

from __future__ import annotations

import datetime

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.manifest import Run
from storage.schema import TABLES, from_rows, schema_of

SMALL = sorted(set(TABLES) - {"activations"})
ISSUE = {
    "runs",
    "responses",
    "vetting",
    "judgements",
    "vectors",
    "evaluation",
    "steering",
    "activations",
    "pooled",
    "projections",
    "calibration",
    "model_differences",
}


def value_of(type_: pa.DataType, i: int) -> object:
    """A value that a reader could mistake: large, negative, not ASCII, nested, in another zone."""
    if pa.types.is_list(type_):
        return [value_of(type_.value_type, i), value_of(type_.value_type, i + 1)]
    if pa.types.is_timestamp(type_):
        return datetime.datetime(2026, 1, 1 + i, 12, tzinfo=datetime.UTC)
    if pa.types.is_boolean(type_):
        return i % 2 == 0
    if pa.types.is_integer(type_):
        return (-1) ** i * (2 ** (type_.bit_width - 2) + i)
    if pa.types.is_floating(type_):
        return 0.5 * i - 1e30
    return f"ünïcode — {i}\n"


def rows_of(name: str) -> list[dict[str, object]]:
    """One full row, and one with a null wherever one is allowed."""
    fields = [f for f in schema_of(name) if f.name not in ("task_id", "model")]
    full = {f.name: value_of(f.type, 1) for f in fields}
    return [full, {f.name: None if f.nullable else value_of(f.type, 2) for f in fields}]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with Run.open(tmp_path_factory.mktemp("tables") / "run") as opened:
        for name in SMALL:
            table = from_rows(name, rows_of(name))
            opened.commit(f"task-{name}", {name: table}, model="toy", provenance={})
        yield opened


def path_of(run, name: str) -> str:
    (path,) = (run.root / "data" / name).rglob("*.parquet")
    return str(path)


def test_the_tables_are_those_that_a_study_needs():
    assert set(TABLES) >= ISSUE


@pytest.mark.parametrize("name", SMALL)
def test_rows_come_back_as_they_went_nulls_included(run, name):
    found = run.read(name).drop_columns(["task_id", "model"]).to_pylist()
    assert (
        found
        == pa.Table.from_pylist(rows_of(name), run.read(name).schema)
        .drop_columns(["task_id", "model"])
        .to_pylist()
    )
    assert set(run.read(name)["task_id"].to_pylist()) == {f"task-{name}"}


@pytest.mark.parametrize("name", SMALL)
def test_every_column_is_zstd_and_its_page_has_a_checksum(run, name):
    group = pq.read_metadata(path_of(run, name)).row_group(0)
    codecs = {group.column(i).compression for i in range(group.num_columns)}
    assert codecs == {"ZSTD"}


@pytest.mark.parametrize("name", SMALL)
def test_every_reader_sees_the_same_columns_rows_and_nulls(run, name):
    path, names = path_of(run, name), schema_of(name).names
    nulls = sum(f.nullable for f in schema_of(name))
    frame = pd.read_parquet(path)
    assert (list(frame.columns), len(frame)) == (names, 2)
    lazy = polars.scan_parquet(path).collect()
    assert (lazy.columns, lazy.height) == (names, 2)
    assert sum(lazy.null_count().row(0)) == nulls
    reader = duckdb.sql(f"select * from '{path}'")
    assert reader.columns == names
    counts = ", ".join(f'count(*) - count("{column}")' for column in names)
    assert sum(duckdb.sql(f"select {counts} from '{path}'").fetchall()[0]) == nulls


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_column_that_may_be_null_says_when_and_no_other_does(name):
    for field in schema_of(name):
        assert bool(field.metadata[b"null_when"]) == field.nullable
