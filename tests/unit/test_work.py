"""Work reads other tasks' rows the same way whether this process made them or another did."""

from __future__ import annotations

import threading

import pytest

from actors.request import RequestError, Result
from jobs.failure import TaskFailed
from jobs.work import check_results
from storage.schema import from_rows
from tests.stage_context import open_context, task


@pytest.fixture
def context(tmp_path):
    made = open_context(tmp_path)
    yield made
    made.run.close()


def verdicts(trait: str, count: int):
    return {
        "vetting": from_rows(
            "vetting",
            [
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
            ],
        )
    }


def test_rows_come_in_the_order_of_the_tasks_asked_for(context):
    context.commit(task("vetting-b", "vetting"), verdicts("b", 2))
    context.commit(task("vetting-a", "vetting"), verdicts("a", 1))

    assert context.rows("vetting", ["vetting-b", "vetting-a"])["trait"].to_pylist() == [
        "b",
        "b",
        "a",
    ]
    assert context.rows("vetting", ["vetting-a"])["trait"].to_pylist() == ["a"]


def test_rows_read_back_equal_rows_at_hand(context, tmp_path):
    context.commit(task("vetting-a", "vetting"), verdicts("a", 3))
    fresh = context.rows("vetting", ["vetting-a"])
    context.finished.forget()
    assert context.rows("vetting", ["vetting-a"]).to_pylist() == fresh.to_pylist()


def test_a_table_that_a_task_did_not_write_is_empty(context):
    context.commit(task("vetting-a", "vetting"), verdicts("a", 1))
    assert context.rows("evaluation", ["vetting-a"]).num_rows == 0


def test_the_partition_columns_are_left_out(context):
    context.commit(task("vetting-a", "vetting"), verdicts("a", 1))
    assert not {"task_id", "model"} & set(context.rows("vetting", ["vetting-a"]).column_names)


def test_a_commit_carries_the_question_and_the_runs_provenance(context):
    context.commit(task("vetting-a", "vetting"), verdicts("a", 1))
    provenance = context.run.commits()["vetting-a"].provenance
    assert provenance == {"model": "standin", "question": {"name": "vetting-a"}}


def test_commits_from_many_threads_all_count(context):
    names = [f"vetting-{i}" for i in range(12)]
    threads = [
        threading.Thread(
            target=context.commit, args=(task(name, "vetting"), verdicts(f"t{i}", i + 1))
        )
        for i, name in enumerate(names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(context.run.commits()) == set(names)
    assert context.rows("vetting", names).num_rows == sum(range(1, 13))
    assert context.run.verify().is_whole


def test_the_first_commit_of_a_task_counts(context):
    context.commit(task("vetting-a", "vetting"), verdicts("a", 1))
    context.run.commit("vetting-a", verdicts("a", 5), model="standin", provenance={})
    context.finished.forget()
    assert context.rows("vetting", ["vetting-a"]).num_rows == 1


def result(name: str, error: RequestError | None = None) -> Result:
    return Result(
        id=name, prompt_ids=(1,), completion_ids=(2,), finish_reason="length", error=error
    )


def test_a_failed_request_fails_its_task_with_the_requests_own_words():
    error = RequestError(type="too_long", message="prompt of 600 tokens, the model holds 512")
    with pytest.raises(TaskFailed, match=r"fit-1: request b failed \(too_long\): prompt of 600"):
        check_results(task("fit-1", "fit"), [result("a"), result("b", error)])


def test_results_without_errors_pass():
    check_results(task("fit-1", "fit"), [result("a"), result("b")])
