"""The commit protocol on a local disk: first wins, whole or not at all, same bytes every time."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import schema
from storage.errors import CorruptFileError, MissingFileError, SchemaError, UnsafeNameError
from storage.manifest import Run

PROVENANCE = {"model_digest": "d1", "seed": 0}


def vetting(score: float = 50.0, rows: int = 3) -> pa.Table:
    return schema.from_rows(
        "vetting",
        [
            {
                "trait": "anxiety",
                "polarity": "positive",
                "scenario": i,
                "sample": 0,
                "score": score,
                "passed": True,
                "judge": "lexicon",
                "judge_version": "1",
            }
            for i in range(rows)
        ],
    )


def commit(run: Run, task_id: str = "t1", score: float = 50.0):
    return run.commit(task_id, {"vetting": vetting(score)}, model="toy", provenance=PROVENANCE)


def files_of(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and "wip" not in p.parts
    }


def test_a_task_is_done_only_after_its_commit(tmp_path):
    with Run.open(tmp_path) as run:
        assert not run.is_done("t1")
        commit(run)
        assert run.is_done("t1")
        assert list(run.commits()) == ["t1"]


def test_the_file_name_carries_table_model_task_and_digest(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
    assert file.key == f"data/vetting/toy/t1-{file.sha256[:12]}.parquet"
    assert (tmp_path / file.key).stat().st_size == file.size_bytes
    assert file.num_rows == 3


def test_two_runs_of_the_same_plan_have_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with Run.open(tmp_path / name) as run:
            for task in ("t2", "t1") if name == "a" else ("t1", "t2"):
                commit(run, task)
            run.write_manifest()
            run.write_readme()
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_file_says_what_it_was_made_from(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
    stored = pq.read_schema(tmp_path / file.key).metadata
    assert json.loads(stored[b"provenance"]) == PROVENANCE
    assert stored[b"schema"] == b"vetting"


def test_the_first_attempt_wins_and_the_second_leaves_nothing(tmp_path, monkeypatch):
    with Run.open(tmp_path) as first, Run.open(tmp_path) as second:
        monkeypatch.setattr(second, "is_done", lambda task_id: False)  # a zombie that looked early
        winner = commit(first, score=50.0)
        seen = commit(second, score=60.0)
        assert seen == winner
        assert first.read("vetting")["score"].to_pylist() == [50.0] * 3
    assert len(list((tmp_path / "data").rglob("*.parquet"))) == 1


def test_a_committed_task_is_not_written_again(tmp_path):
    with Run.open(tmp_path) as run:
        first = commit(run, score=50.0)
        assert commit(run, score=60.0) == first


def test_a_bad_table_writes_nothing(tmp_path):
    with Run.open(tmp_path) as run:
        with pytest.raises(SchemaError):
            run.commit(
                "t1",
                {"responses": vetting(), "vetting": vetting()},
                model="toy",
                provenance=PROVENANCE,
            )
        assert not run.is_done("t1")
        assert not list((tmp_path / "data").rglob("*.parquet"))


def test_read_goes_through_commits_only(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
        (tmp_path / file.key).with_name("t9-000000000000.parquet").write_bytes(b"half a file")
        assert run.read("vetting").num_rows == 3
        assert run.verify().litter == ("data/vetting/toy/t9-000000000000.parquet",)


def test_read_takes_columns_and_filters(tmp_path):
    with Run.open(tmp_path) as run:
        commit(run, "t1", 10.0)
        commit(run, "t2", 90.0)
        got = run.read("vetting", columns=["task_id"], filters=[("score", ">", 50.0)])
        assert got.to_pydict() == {"task_id": ["t2"] * 3}
        expression = (pa.compute.field("scenario") == 1) & (pa.compute.field("score") < 50)
        assert run.read("vetting", columns=["scenario"], filters=expression).num_rows == 1


def test_a_table_without_commits_is_empty_and_typed(tmp_path):
    with Run.open(tmp_path) as run:
        got = run.read("steering")
    assert got.num_rows == 0
    assert got.schema.equals(schema.TABLES["steering"])


def test_a_missing_file_is_named(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
        (tmp_path / file.key).unlink()
        with pytest.raises(MissingFileError, match="t1-"):
            run.read("vetting")
        assert run.verify().problems == ((file.key, "missing"),)


def test_a_flipped_bit_is_an_error_in_read_and_verify(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
        path = tmp_path / file.key
        body = bytearray(path.read_bytes())
        body[40] ^= 1
        path.write_bytes(bytes(body))
        with pytest.raises(CorruptFileError):
            run.read("vetting")
        (problem,) = run.verify().problems
        assert problem.key == file.key
        assert "sha256" in problem.what


def test_a_cut_file_is_named(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
        os.truncate(tmp_path / file.key, file.size_bytes - 1)
        with pytest.raises(CorruptFileError, match=f"{file.size_bytes - 1} bytes"):
            run.read("vetting")
        assert not run.verify().is_whole


def test_a_damaged_record_is_a_problem_and_not_a_crash(tmp_path):
    with Run.open(tmp_path) as run:
        commit(run)
        (tmp_path / "_meta/commits/t2.json").write_text("{")
        (problem,) = run.verify().problems
    assert problem.key == "_meta/commits/t2.json"


def test_verify_of_a_whole_run_counts_what_it_hashed(tmp_path):
    with Run.open(tmp_path) as run:
        size_bytes = sum(commit(run, f"t{i}").files[0].size_bytes for i in range(3))
        report = run.verify()
    assert (report.num_commits, report.num_files, report.size_bytes) == (3, 3, size_bytes)
    assert report.is_whole
    assert "0 problems" in report.summary()


def test_manifests_are_numbered_and_never_overwritten(tmp_path):
    with Run.open(tmp_path) as run:
        commit(run, "t1")
        first = run.write_manifest()
        assert run.write_manifest() == first
        body = first.read_bytes()
        commit(run, "t2")
        second = run.write_manifest()
    assert [first.name, second.name] == ["000001.json", "000002.json"]
    assert first.read_bytes() == body
    assert sorted(json.loads(second.read_bytes())["commits"]) == ["t1", "t2"]


def test_gc_deletes_litter_and_keeps_commits(tmp_path):
    with Run.open(tmp_path) as run:
        (file,) = commit(run).files
        litter = (tmp_path / file.key).with_name("t9-000000000000.parquet")
        litter.write_bytes(b"x")
        assert run.gc() == [litter.relative_to(tmp_path).as_posix()]
        assert not litter.exists()
        assert run.verify().is_whole


def test_a_manifest_is_written_over_a_folder_without_litter(tmp_path):
    """What a dead writer had named but not committed goes with the next run that ends well."""
    with Run.open(tmp_path) as run:
        commit(run)
        (named,) = (tmp_path / "data").rglob("*.parquet")
        orphan = named.with_name(named.name.replace("-", "-0", 1))
        orphan.write_bytes(named.read_bytes())
        run.write_manifest()
    assert list((tmp_path / "data").rglob("*.parquet")) == [named]


def test_gc_keeps_young_files_of_other_live_writers(tmp_path):
    with Run.open(tmp_path) as run, Run.open(tmp_path):
        (file,) = commit(run).files
        on_its_way = (tmp_path / file.key).with_name("t9-000000000000.parquet")
        on_its_way.write_bytes(b"x")
        assert run.gc() == []
        assert run.gc(older_than_s=0.0) == [on_its_way.relative_to(tmp_path).as_posix()]


def _commit_all(root: str, barrier, score: float) -> None:
    with Run.open(root) as run:
        barrier.wait()
        for i in range(10):
            commit(run, f"t{i}", score)


def test_four_writers_of_the_same_tasks_leave_one_commit_each(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [
        context.Process(target=_commit_all, args=(str(tmp_path), barrier, float(i)))
        for i in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with Run.open(tmp_path) as run:
        run.gc()
        report = run.verify()
        assert (report.num_commits, report.num_files, report.litter) == (10, 10, ())
        assert report.is_whole
        by_task = run.read("vetting", ["task_id", "score"]).to_pandas()
        assert by_task.groupby("task_id")["score"].nunique().max() == 1


@pytest.mark.parametrize("bad", ["../up", "a/b", "", ".hidden", "a b", "a=b", "x" * 121, "\x00"])
def test_no_task_or_model_name_leads_out_of_the_run(tmp_path, bad):
    root = tmp_path / "run"
    with Run.open(root) as run:
        with pytest.raises(UnsafeNameError):
            commit(run, bad)
        with pytest.raises(UnsafeNameError):
            run.commit("t", {"vetting": vetting()}, model=bad, provenance={})
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_record_that_names_a_file_outside_is_refused(tmp_path):
    with Run.open(tmp_path) as run:
        commit(run)
        record = tmp_path / "_meta/commits/t1.json"
        body = json.loads(record.read_bytes())
        body["files"][0]["key"] = "data/../../etc/passwd"
        record.write_text(json.dumps(body))
    with Run.open(tmp_path) as run, pytest.raises(UnsafeNameError):
        run.read("vetting")


def test_the_readme_lists_every_table_and_column_with_its_meaning(tmp_path):
    with Run.open(tmp_path) as run:
        commit(run)
        text = run.write_readme().read_text()
    assert text.startswith("---\nconfigs:\n- config_name: vetting\n")
    for field in schema.TABLES["vetting"]:
        assert f"| {field.name} |" in text
