"""What follows a failure is a table: every row is written down here."""

from __future__ import annotations

import pickle

import pytest

from actors.errors import (
    EngineOutOfDate,
    GroupClosed,
    GroupError,
    GroupStartFailed,
    ObjectStoreFull,
    RankDied,
    RankHung,
    RankRaised,
    RanksDiverged,
    RequestRefused,
    ResourcesMissing,
)
from conf.errors import UserError
from jobs.failure import START_ATTEMPTS, Decision, TaskFailed, decide
from storage.errors import CorruptFileError, DiskFullError, StorageError, UploadError


def group_error(kind: type[GroupError]) -> GroupError:
    return kind(doing="run bundle b7", cause="signal 9", rank=3, node="10.0.0.4")


DEATHS = [RankDied, RankRaised, RankHung, RanksDiverged, GroupError]


@pytest.mark.parametrize("kind", DEATHS)
def test_a_lost_group_is_replaced_and_its_bundle_tried_again(kind: type[GroupError]) -> None:
    assert decide(group_error(kind), attempt=1, num_tasks=8) is Decision.RETRY


@pytest.mark.parametrize("kind", DEATHS)
def test_a_bundle_that_kills_two_groups_is_split(kind: type[GroupError]) -> None:
    assert decide(group_error(kind), attempt=2, num_tasks=8) is Decision.SPLIT
    assert decide(group_error(kind), attempt=2, num_tasks=2) is Decision.SPLIT


@pytest.mark.parametrize("kind", DEATHS)
def test_a_single_task_that_kills_two_groups_is_skipped(kind: type[GroupError]) -> None:
    assert decide(group_error(kind), attempt=2, num_tasks=1) is Decision.SKIP
    assert decide(group_error(kind), attempt=5, num_tasks=1) is Decision.SKIP


def test_patience_is_a_setting() -> None:
    error = group_error(RankDied)

    assert decide(error, attempt=3, num_tasks=4, max_attempts=4) is Decision.RETRY
    assert decide(error, attempt=4, num_tasks=4, max_attempts=4) is Decision.SPLIT
    assert decide(error, attempt=1, num_tasks=4, max_attempts=1) is Decision.SPLIT


@pytest.mark.parametrize("kind", [GroupStartFailed, GroupClosed])
def test_a_group_is_started_three_times_and_then_the_run_stops(kind: type[GroupError]) -> None:
    assert START_ATTEMPTS == 3
    assert decide(group_error(kind), attempt=1) is Decision.RETRY
    assert decide(group_error(kind), attempt=2) is Decision.RETRY
    assert decide(group_error(kind), attempt=3) is Decision.STOP
    assert decide(group_error(kind), attempt=3, num_tasks=9, max_attempts=9) is Decision.STOP


def test_a_cluster_that_is_too_small_stops_the_run_at_once() -> None:
    assert decide(group_error(ResourcesMissing), attempt=1) is Decision.STOP


def test_a_group_of_other_code_stops_the_run_at_once() -> None:
    assert decide(group_error(EngineOutOfDate), attempt=1, num_tasks=8) is Decision.STOP


def test_a_refused_bundle_is_split_until_the_faulty_task_stands_alone() -> None:
    error = group_error(RequestRefused)

    assert decide(error, attempt=1, num_tasks=3) is Decision.SPLIT
    assert decide(error, attempt=1, num_tasks=1) is Decision.SKIP


@pytest.mark.parametrize(
    "error",
    [
        StorageError("the disk is gone"),
        DiskFullError("runs/first", 12, "ENOSPC"),
        CorruptFileError("data/x.parquet", "sha256 differs"),
        UploadError(3, "no route"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_results_that_cannot_be_stored_stop_the_run(error: StorageError) -> None:
    """A storage error may be the user's to mend as well; it still stops everything."""
    assert decide(error, attempt=1, num_tasks=4) is Decision.STOP


@pytest.mark.parametrize("error", [UserError("trait=x: no"), TaskFailed("too few responses")])
def test_a_reason_in_the_data_is_never_tried_again(error: Exception) -> None:
    assert decide(error, attempt=1) is Decision.SKIP
    assert decide(error, attempt=1, max_attempts=9) is Decision.SKIP


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), OSError(5, "EIO")])
def test_connections_and_files_get_another_moment(error: OSError) -> None:
    assert decide(error, attempt=1) is Decision.RETRY
    assert decide(error, attempt=2) is Decision.SKIP
    assert decide(error, attempt=2, max_attempts=3) is Decision.RETRY


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), ZeroDivisionError()])
def test_a_defect_fails_its_task_and_spares_the_others(error: Exception) -> None:
    assert decide(error, attempt=1, num_tasks=1) is Decision.SKIP


def test_deciding_twice_gives_the_same_decision() -> None:
    error = group_error(RankHung)

    assert {decide(error, attempt=2, num_tasks=3) for _ in range(5)} == {Decision.SPLIT}


def test_the_decisions_are_four() -> None:
    assert [decision.value for decision in Decision] == ["retry", "split", "skip", "stop"]


def test_a_failed_task_keeps_its_sentence_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(TaskFailed("guilt: 3 of 6 responses passed")))

    assert type(copy) is TaskFailed
    assert copy.message == str(copy) == "guilt: 3 of 6 responses passed"


def test_a_full_object_store_is_tried_again_then_asked_for_less():
    full = ObjectStoreFull(doing="take in bundle b7", cause="full")
    assert decide(full, attempt=1, num_tasks=4) is Decision.RETRY
    assert decide(full, attempt=2, num_tasks=4) is Decision.SPLIT
    assert decide(full, attempt=2, num_tasks=1) is Decision.SKIP
