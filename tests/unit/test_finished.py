"""Rows of finished tasks read the same from memory and from disk, and memory has a limit."""

from __future__ import annotations

import pytest

from jobs.finished import Finished
from storage.manifest import Run
from storage.schema import from_rows


def verdicts(trait: str, count: int):
    rows = [
        {
            "trait": trait,
            "polarity": "positive",
            "scenario": i,
            "sample": 0,
            "score": 70.0 + i,
            "passed": True,
            "judge": "lexicon",
            "judge_version": "1",
        }
        for i in range(count)
    ]
    return {"vetting": from_rows("vetting", rows)}


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path) as opened:
        yield opened


def add(finished: Finished, run: Run, name: str, count: int) -> None:
    tables = verdicts(name, count)
    finished.add(name, run.commit(name, tables, model="m", provenance={}), tables)


def test_tables_beyond_the_limit_are_read_from_their_files(run):
    size = verdicts("a", 50)["vetting"].nbytes
    finished = Finished(run, at_hand_bytes=int(2.5 * size))
    for name in "abcd":
        add(finished, run, name, 50)
        assert finished.num_bytes <= 2.5 * size
    assert finished.rows("vetting", ["a", "d"])["trait"].to_pylist() == ["a"] * 50 + ["d"] * 50
    assert finished.num_bytes <= 2.5 * size


def test_what_was_used_last_stays_at_hand(run, monkeypatch):
    size = verdicts("a", 50)["vetting"].nbytes
    finished = Finished(run, at_hand_bytes=int(2.5 * size))
    add(finished, run, "a", 50)
    add(finished, run, "b", 50)
    finished.rows("vetting", ["a"])
    add(finished, run, "c", 50)
    read = []
    monkeypatch.setattr(finished, "read", lambda table, tasks: read.append(tasks) or [])
    finished.rows("vetting", ["a"])
    finished.rows("vetting", ["b"])
    assert read == [["b"]]


def test_what_another_process_committed_is_found(run):
    run.commit("early", verdicts("early", 3), model="m", provenance={})
    finished = Finished(run)
    assert finished.num_bytes == 0
    assert finished.rows("vetting", ["early"])["score"].to_pylist() == [70.0, 71.0, 72.0]
    assert finished.num_bytes > 0


def test_a_table_larger_than_the_limit_is_not_kept_and_still_read(run):
    finished = Finished(run, at_hand_bytes=10)
    add(finished, run, "a", 5)
    assert finished.num_bytes == 0
    assert finished.rows("vetting", ["a"]).num_rows == 5


def test_filters_reach_the_file(run):
    finished = Finished(run)
    add(finished, run, "a", 5)
    (part,) = finished.read("vetting", ["a"], [("scenario", ">", 2)])
    assert part["scenario"].to_pylist() == [3, 4]


def test_nothing_is_kept_twice(run):
    finished = Finished(run)
    add(finished, run, "a", 5)
    before = finished.num_bytes
    finished.rows("vetting", ["a"])
    finished.add("a", finished.commits["a"], verdicts("a", 5))
    assert finished.num_bytes == before
    finished.forget()
    assert finished.num_bytes == 0
