"""Errors cross processes with their type, their fields and their sentence."""

from __future__ import annotations

import inspect
import pickle

import pytest

import actors.errors
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

COMMON = {"doing": "run bundle b7", "cause": "out of memory", "rank": 3, "node": "10.0.0.5"}
EXAMPLES = [
    GroupError(**COMMON, details="stack"),
    GroupStartFailed(**COMMON),
    ResourcesMissing(doing="reserve resources", cause="8 ranks ask for 8 GPUs, 4 are there"),
    RankDied(**COMMON),
    RankRaised(**COMMON, cause_type="OutOfMemoryError", on_every_rank=True, user_message="no"),
    RankHung(**COMMON, waited_s=3.25),
    RanksDiverged(**COMMON, digests=("aa", "bb")),
    GroupClosed(doing="run bundle b7", cause="it is closed"),
    RequestRefused(doing="run bundle b7", cause="layer 99 is not below 6"),
    ObjectStoreFull(doing="take in bundle b7", cause="Local disk is full"),
    EngineOutOfDate(doing="attach", cause="run group down", expected="e1", found="e2"),
]


def every_error_class() -> list[type]:
    return [
        one
        for _, one in inspect.getmembers(actors.errors, inspect.isclass)
        if issubclass(one, Exception) and one.__module__ == "actors.errors"
    ]


def test_every_error_class_has_an_example_here():
    assert {type(one) for one in EXAMPLES} == set(every_error_class())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda one: type(one).__name__)
def test_an_error_survives_pickling_with_type_fields_and_sentence(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.fields() == error.fields()
    assert str(copy) == str(error)


@pytest.mark.parametrize("one", every_error_class(), ids=lambda one: one.__name__)
def test_every_error_class_gives_an_example_of_when_it_happens(one):
    assert one is GroupError or one is GroupClosed or "Example:" in one.__doc__


def test_a_sentence_names_rank_node_work_and_cause():
    assert str(RankDied(**COMMON)) == (
        "rank 3 on node 10.0.0.5 died during run bundle b7: out of memory"
    )


def test_a_sentence_without_a_node_has_no_gap():
    assert str(RankDied(doing="load", cause="killed", rank=0)) == "rank 0 died during load: killed"


def test_a_failure_of_every_rank_blames_no_single_one():
    error = RankRaised(
        doing="load", cause="no such file", rank=0, cause_type="OSError", on_every_rank=True
    )
    assert str(error) == "every rank raised OSError during load: no such file"


def test_details_stay_out_of_the_sentence():
    assert "secret" not in str(RankRaised(doing="load", cause="x", rank=0, details="secret"))


def test_missing_resources_are_a_failed_start():
    assert issubclass(ResourcesMissing, GroupStartFailed)
    assert str(EXAMPLES[2]) == (
        "the model group did not start: 8 ranks ask for 8 GPUs, 4 are there"
    )


def test_a_hang_says_how_long_it_was_waited_for():
    assert str(EXAMPLES[5]).endswith("the group was ended after 3.2 s")
