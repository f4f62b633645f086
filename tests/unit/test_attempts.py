"""Every attempt is a row of its own table, written from any thread."""

from __future__ import annotations

import threading
import time

from actors.errors import RankDied
from jobs import attempts
from jobs.attempts import AttemptLog
from storage.schema import TABLES


def test_a_success_has_no_error(monkeypatch) -> None:
    log = AttemptLog("run-1")
    log.add("steering-ab", 1, "done", None, time.time() - 2.0, group="group-1")

    (row,) = log.table().to_pylist()
    assert (row["invocation"], row["of_task_id"], row["attempt"]) == ("run-1", "steering-ab", 1)
    assert (row["outcome"], row["group"]) == ("done", "group-1")
    assert (row["error_type"], row["error"]) == (None, None)
    assert 2.0 <= row["duration_s"] < 60.0


def test_a_failure_keeps_its_type_and_its_sentence() -> None:
    log = AttemptLog("run-1")
    error = RankDied(doing="run bundle b7", cause="signal 9", rank=3, node="10.0.0.4")
    log.add("b7", 2, "split", error, time.time())

    (row,) = log.table().to_pylist()
    assert row["error_type"] == "RankDied"
    assert row["error"] == "rank 3 on node 10.0.0.4 died during run bundle b7: signal 9"
    assert (row["attempt"], row["outcome"], row["group"]) == (2, "split", None)


def test_the_start_is_a_time_with_its_zone() -> None:
    log = AttemptLog("run-1")
    log.add("x", 1, "done", None, 1_700_000_000.0)

    (row,) = log.table().to_pylist()
    assert row["started_at"].isoformat().startswith("2023-11-14T22:13:20")
    assert row["started_at"].utcoffset().total_seconds() == 0


def test_what_a_judge_cost_is_null_until_it_is_known() -> None:
    log = AttemptLog("run-1")
    log.add("x", 1, "done", None, time.time())

    assert log.table().to_pylist()[0]["judge_cost_usd"] is None


def test_rows_come_in_the_order_the_attempts_ended() -> None:
    log = AttemptLog("run-1")
    for number in range(5):
        log.add(f"task-{number}", 1, "done", None, time.time())

    assert log.table()["of_task_id"].to_pylist() == [f"task-{number}" for number in range(5)]


def test_no_attempt_of_any_thread_is_lost() -> None:
    log = AttemptLog("run-1")

    def work(name: int) -> None:
        for number in range(50):
            log.add(f"{name}-{number}", 1, "done", None, time.time())

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(log.table()["of_task_id"].to_pylist())) == 200


def test_the_table_is_the_declared_one_even_when_it_is_empty() -> None:
    table = AttemptLog("run-1").table()

    assert table.num_rows == 0
    assert set(table.column_names) <= set(TABLES["attempts"].names)
    assert {"of_task_id", "outcome", "error"} <= set(table.column_names)


def test_a_long_runs_attempts_are_put_away_in_pieces_and_none_is_lost(monkeypatch) -> None:
    monkeypatch.setattr(attempts, "ROWS_AT_HAND", 10)
    pieces: list[list[str]] = []
    log = AttemptLog("run-1", lambda table: pieces.append(table["of_task_id"].to_pylist()))
    for i in range(25):
        log.add(f"t{i}", 1, "done", None, time.time())

    assert [len(piece) for piece in pieces] == [10, 10]
    left = log.table()["of_task_id"].to_pylist()
    assert [*pieces[0], *pieces[1], *left] == [f"t{i}" for i in range(25)]
