"""Every way in which a committed file can differ from its record is found and named."""

from __future__ import annotations

import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import audit, layout
from storage.audit import Report, litter_of, verify
from storage.durable import sha256_of
from storage.folder import FolderStore
from storage.manifest import Run
from tests.faults.worker import write_task


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run") as opened:
        write_task(opened, "t1", 0)
        write_task(opened, "t2", 0)
        yield opened


def committed(run, table="vetting", task="t1"):
    return next(f for f in run.commits()[task].files if f.table == table)


def replace_record(run, task, **changes):
    """Let a record say something else of its first file."""
    path = run.root / layout.commit_key(task)
    record = json.loads(path.read_text())
    record["files"][0] |= changes
    path.write_text(json.dumps(record))


def test_a_whole_run_has_no_problem_and_every_byte_was_hashed(run):
    report = verify(run)
    sizes = [p.stat().st_size for p in (run.root / "data").rglob("*.parquet")]
    assert report == Report(num_commits=2, num_files=2, size_bytes=sum(sizes))
    assert report.is_whole
    assert report.summary().startswith(f"2 commits, 2 files, {sum(sizes)} bytes hashed, 0 problems")


@pytest.mark.parametrize("place", [0, 40, -40, -1])
def test_one_flipped_bit_is_found_wherever_it_is(run, place):
    path = run.root / committed(run).key
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(bytes(body))
    (problem,) = verify(run).problems
    assert problem.key == committed(run).key
    assert "sha256 is" in problem.what


def test_a_cut_file_is_told_by_its_size_without_hashing(run, monkeypatch):
    path = run.root / committed(run).key
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    hashed = []
    monkeypatch.setattr(audit, "sha256_of", lambda p: (hashed.append(p), sha256_of(p))[1])
    (problem,) = verify(run).problems
    assert problem.what == f"{size - 1} bytes, not {size}"
    assert path not in hashed


def test_a_deleted_file_is_missing(run):
    (run.root / committed(run).key).unlink()
    assert [p.what for p in verify(run).problems] == ["missing"]


def test_a_file_that_only_the_bucket_has_is_hashed_there(run, tmp_path):
    store = FolderStore(tmp_path / "bucket")
    with Run.open(tmp_path / "other", store=store) as other:
        write_task(other, "t1", 0)
    key = committed(run).key
    with Run.open(tmp_path / "fresh", store=store) as fresh:
        assert verify(fresh).is_whole
        assert verify(fresh).num_files == 1
        (store.root / key).write_bytes(b"spoilt")
        assert verify(fresh).problems[0].what.startswith("bucket: sha256 is")


def test_a_record_that_lies_about_rows_is_found(run):
    replace_record(run, "t1", num_rows=21)
    assert [p.what for p in verify(run).problems] == ["20 rows, not 21"]


def test_a_file_of_another_table_is_found(run):
    replace_record(run, "t1", table="responses")
    (problem,) = verify(run).problems
    assert "vetting" in problem.what


def test_bytes_that_are_no_parquet_are_found_though_their_digest_is_right(run):
    path = run.root / committed(run).key
    path.write_bytes(b"not a table")
    replace_record(run, "t1", sha256=sha256_of(path), size_bytes=11)
    (problem,) = verify(run).problems
    assert "Parquet" in problem.what


def test_a_newer_file_is_a_problem_and_not_a_crash(run):
    path = run.root / committed(run).key
    table = pq.read_table(path)
    newer = {**table.schema.metadata, b"schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(newer), path)
    replace_record(run, "t1", sha256=sha256_of(path), size_bytes=path.stat().st_size)
    assert "upgrade" in verify(run).problems[0].what


def test_records_are_read_from_the_disk_and_a_spoilt_one_is_named(run):
    (run.root / layout.commit_key("t1")).write_text("{")
    report = verify(run)
    assert [p.key for p in report.problems] == ["_meta/commits/t1.json"]
    assert report.num_commits == 1
    # Its file is now named by nobody.
    assert len(report.litter) == 1


def test_a_record_under_another_tasks_name_is_named(run):
    record = (run.root / layout.commit_key("t1")).read_bytes()
    (run.root / layout.commit_key("t9")).write_bytes(record)
    assert "it is the record of task t1" in [p.what for p in verify(run).problems]


def test_files_that_no_record_names_are_litter_and_no_problem(run):
    stray = run.root / "data/vetting/toy/t7-000000000000.parquet"
    pq.write_table(pa.table({"a": [1]}), stray)
    report = verify(run)
    assert report.is_whole
    assert report.litter == ("data/vetting/toy/t7-000000000000.parquet",)
    assert litter_of(run.root, run.commits()) == list(report.litter)


def test_litter_is_collected_by_age_and_nothing_else_is_touched(run):
    kept = sorted(p for p in (run.root / "data").rglob("*.parquet"))
    folder = kept[0].parent
    for name, age_s in (("old", 1000), ("young", 10)):
        path = folder / f"{name}-000000000000.parquet"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    gone = audit.collect_litter(run, older_than_s=100)
    assert [key.rpartition("/")[2] for key in gone] == ["old-000000000000.parquet"]
    assert all(path.exists() for path in kept)
    assert (folder / "young-000000000000.parquet").exists()
