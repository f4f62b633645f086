"""A Delta table of a run is the committed files themselves, read by Delta's own package."""

from __future__ import annotations

import json

import duckdb
import polars
import pytest
from deltalake import DeltaTable

from conf.errors import UserError
from storage import delta
from storage.delta import export_delta
from storage.manifest import Run
from storage.schema import TABLES, schema_of
from tests.faults.worker import write_task


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run") as opened:
        write_task(opened, "t1", 0)
        write_task(opened, "t2", 7)
        yield opened


def test_deltalake_reads_the_committed_rows(run, tmp_path):
    assert export_delta(run, "vetting", tmp_path / "out") == 2
    table = DeltaTable(tmp_path / "out")
    assert (table.version(), table.count()) == (0, 40)
    frame = polars.read_delta(str(tmp_path / "out"))
    assert sorted(set(frame["score"])) == [1.0, 9.0]
    assert frame.height == run.read("vetting").num_rows == 40


def test_activations_keep_their_bits(run, tmp_path):
    write_task(run, "t4", 0)
    export_delta(run, "activations", tmp_path / "out")
    frame = polars.read_delta(str(tmp_path / "out")).sort("position")
    wanted = run.read("activations", ["activation"])["activation"].to_pylist()
    assert frame["activation"].to_list() == wanted


def test_nothing_is_copied_and_data_holds_nothing_new(run, tmp_path):
    before = sorted((run.root / "data").rglob("*"))
    export_delta(run, "vetting", tmp_path / "out")
    assert sorted((run.root / "data").rglob("*")) == before
    sources = {p.stat().st_ino for p in before if p.suffix == ".parquet"}
    assert {p.stat().st_ino for p in (tmp_path / "out").glob("*.parquet")} <= sources


def test_where_links_are_impossible_the_bytes_are_copied(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(delta.os, "link", refuse)
    export_delta(run, "vetting", tmp_path / "out")
    assert polars.read_delta(str(tmp_path / "out")).height == 40


def test_only_committed_files_are_listed(run, tmp_path):
    stray = next((run.root / "data/vetting").rglob("*.parquet"))
    (stray.parent / "t9-000000000000.parquet").write_bytes(stray.read_bytes())
    assert export_delta(run, "vetting", tmp_path / "out") == 2
    assert DeltaTable(tmp_path / "out").count() == 40


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_has_a_delta_schema_with_its_meanings(name):
    (_, metadata) = delta._head(name)
    fields = json.loads(metadata["metaData"]["schemaString"])["fields"]
    assert [each["name"] for each in fields] == schema_of(name).names
    assert all(each["metadata"]["comment"] for each in fields)
    assert len({each["name"] for each in fields}) == len(fields)


def test_the_same_run_gives_the_same_log(run, tmp_path):
    logs = []
    for name in ("a", "b"):
        export_delta(run, "vetting", tmp_path / name)
        logs.append((tmp_path / name / "_delta_log" / f"{0:020d}.json").read_bytes())
    assert logs[0] == logs[1]


def test_plain_readers_see_the_same_rows_in_the_exported_folder(run, tmp_path):
    export_delta(run, "vetting", tmp_path / "out")
    assert duckdb.sql(f"select count(*) from '{tmp_path}/out/*.parquet'").fetchall() == [(40,)]


def test_a_table_without_rows_or_a_taken_folder_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="no committed rows of table vectors"):
        export_delta(run, "vectors", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists"):
        export_delta(run, "vetting", tmp_path / "out")
