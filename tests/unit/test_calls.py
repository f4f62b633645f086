"""Supervision, over a gang whose ranks are scripted: no processes, no Ray."""

from __future__ import annotations

import time

import pytest

from actors import calls
from actors.calls import call_all, explain, observe, start_failures, step
from actors.diagnosis import Outcome
from actors.errors import (
    GroupStartFailed,
    RankDied,
    RankHung,
    RankRaised,
    RanksDiverged,
    ResourcesMissing,
)
from actors.rank_report import RankStatus
from actors.request import Token
from actors.watch import Limits, Watch
from conf.errors import UserError

GLOO = "Connection closed by peer [127.0.0.1]:4711"


def outcome(rank, kind="answered", *, value=None, cause="", cause_type="", is_user_error=False):
    return Outcome(
        rank=rank,
        kind=kind,
        at_s=time.monotonic(),
        value=value,
        cause=cause,
        cause_type=cause_type,
        is_user_error=is_user_error,
    )


def status(rank, *, num_collectives=5, in_collective=True, stage="running", marker="same"):
    return RankStatus(
        rank=rank,
        stage=stage,
        bundle_id="b",
        num_collectives=num_collectives,
        num_tokens=0,
        in_collective=in_collective,
        stack="a stack",
        marker=marker,
    )


class ScriptedGang:
    """Shows one list of outcomes per look, then nothing."""

    def __init__(self, *looks, size=2, statuses=()):
        self.size = size
        self.ranks = list(range(size))
        self.nodes = [f"10.0.0.{i}" for i in range(size)]
        self.looks = list(looks)
        self.watched = []
        self.answers = {one.rank: one for one in statuses}
        self.num_asked = 0
        self.cancelled_after = None

    def refuse_cancelled(self):
        if self.cancelled_after is not None and len(self.watched) >= self.cancelled_after:
            raise GroupStartFailed(doing="start", cause="it was cancelled")

    def look(self, refs, *, timeout_s):
        self.watched.append(sorted(refs.values()))
        if self.looks:
            return self.looks.pop(0)
        time.sleep(min(timeout_s, 0.02))
        return []

    def statuses(self, *, with_stack=False, timeout_s=2.0):
        self.num_asked += 1
        return dict(self.answers)

    def each(self, call):
        return {call(rank, rank): rank for rank in self.ranks}


def watch(size=2, **limits):
    return Watch("run bundle b", world_size=size, limits=Limits(**limits), now_s=time.monotonic())


REFS = {"ref0": 0, "ref1": 1}


@pytest.fixture(autouse=True)
def short_graces(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.1)
    monkeypatch.setattr(calls, "LONG_GRACE_S", 0.3)


def test_all_answers_come_back_in_rank_order():
    gang = ScriptedGang([outcome(1, value="b")], [], [outcome(0, value="a")])
    assert call_all(gang, "load", lambda rank, _: f"ref{rank}", limit_s=5) == ["a", "b"]


def test_rank_0_can_be_called_alone():
    gang = ScriptedGang([outcome(0, value=4711)])
    called = []

    def call(rank, number):
        called.append(number)
        return "ref"

    assert call_all(gang, "bind", call, limit_s=5, first_only=True) == [4711]
    assert called == [0]


def test_a_bystander_that_dies_fails_a_call_to_rank_0():
    gang = ScriptedGang([outcome(1, "died", cause="killed")])
    with pytest.raises(RankDied) as caught:
        call_all(gang, "bind", lambda rank, _: "ref", limit_s=5, first_only=True)
    assert (caught.value.rank, caught.value.node) == (1, "10.0.0.1")


def test_ranks_that_were_heard_are_not_waited_for_again():
    gang = ScriptedGang([outcome(0)], [outcome(1)])
    call = watch()
    observe(gang, call, REFS, timeout_s=1)
    observe(gang, call, REFS, timeout_s=1)
    assert gang.watched == [[0, 1], [1]]
    assert call.is_complete


def test_tokens_are_passed_on_and_are_no_answers():
    token = Token(request_id="r", index=0, token_id=7)
    gang = ScriptedGang([outcome(0, value=token)])
    call, seen = watch(), []
    assert observe(gang, call, REFS, timeout_s=1, on_token=seen.append) == 1
    assert seen == [token]
    assert call.answered == []


def test_the_first_error_waits_for_the_one_that_explains_it():
    gang = ScriptedGang(
        [outcome(0, "raised", cause=GLOO, cause_type="RuntimeError")],
        [],
        [outcome(1, "died", cause="killed")],
    )
    with pytest.raises(RankDied) as caught:
        step(gang, watch(), REFS, timeout_s=1)
    assert caught.value.rank == 1
    assert gang.num_asked == 0


def test_complaints_alone_are_judged_by_what_the_ranks_say():
    gang = ScriptedGang(
        [outcome(0, "raised", cause=GLOO, cause_type="RuntimeError")],
        statuses=[status(0, num_collectives=9), status(1, num_collectives=8)],
    )
    with pytest.raises(RankRaised):
        step(gang, watch(), REFS, timeout_s=1)
    gang = ScriptedGang(
        [outcome(0, "raised", cause=GLOO, cause_type="RuntimeError")],
        statuses=[status(1, num_collectives=8, in_collective=False)],
    )
    with pytest.raises(RankHung) as caught:
        step(gang, watch(), REFS, timeout_s=1)
    assert caught.value.rank == 1
    assert gang.num_asked == 1


def test_the_explanation_is_not_waited_for_when_every_rank_was_heard():
    gang = ScriptedGang()
    call = watch()
    for rank in range(2):
        call.record(outcome(rank, "raised", cause="no", cause_type="ValueError"))
    began = time.monotonic()
    error = explain(gang, call, REFS)
    assert time.monotonic() - began < 0.1
    assert error.on_every_rank


def test_an_idle_death_needs_no_explanation():
    gang = ScriptedGang([outcome(1, "died", cause="killed")])
    call = watch()
    observe(gang, call, {}, timeout_s=0)
    assert explain(gang, call, {}).rank == 1
    assert len(gang.watched) == 1


def test_a_straggler_is_named_when_its_clock_runs_out():
    gang = ScriptedGang(
        [outcome(1)],
        statuses=[
            status(0, num_collectives=42),
            status(1, num_collectives=41, in_collective=False, stage="returning"),
        ],
    )
    call = watch(straggler_s=0.1, stall_s=30)
    with pytest.raises(RankHung, match="left out 1 collective") as caught:  # noqa: PT012
        for _ in range(100):
            step(gang, call, REFS, timeout_s=0.05)
    assert caught.value.rank == 1
    assert "a stack" in caught.value.details


def test_a_straggler_that_only_sends_its_result_is_forgiven():
    gang = ScriptedGang([outcome(1)], statuses=[status(0, stage="returning")])
    call = watch(straggler_s=0.05, stall_s=30)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        step(gang, call, REFS, timeout_s=0.02)
    gang.looks.append([outcome(0)])
    step(gang, call, REFS, timeout_s=0.02)
    assert call.is_complete


def test_a_group_without_progress_is_ended_and_one_with_progress_is_not():
    gang = ScriptedGang(statuses=[status(0), status(1, num_collectives=4, in_collective=False)])
    call = watch(stall_s=0.2)
    with pytest.raises(RankHung) as caught:  # noqa: PT012
        for _ in range(200):
            step(gang, call, REFS, timeout_s=0.02)
    assert caught.value.rank == 1

    gang, call = ScriptedGang(), watch(stall_s=0.8)
    until, count = time.monotonic() + 1.2, 0
    while time.monotonic() < until:
        count += 1
        gang.answers = {rank: status(rank, marker=str(count)) for rank in range(2)}
        step(gang, call, REFS, timeout_s=0.02)


def test_the_limit_of_the_whole_call_holds_without_any_other():
    gang = ScriptedGang(statuses=[status(0), status(1)])
    with pytest.raises(RankHung, match=r"took longer than 0\.1 s"):
        call_all(gang, "load", lambda rank, _: f"ref{rank}", limit_s=0.1)


def test_a_silent_rank_is_named_when_the_limit_runs_out():
    gang = ScriptedGang(statuses=[status(0, in_collective=False, stage="loading")])
    with pytest.raises(RankHung, match="does not answer") as caught:
        call_all(gang, "load", lambda rank, _: f"ref{rank}", limit_s=0.1)
    assert caught.value.rank == 1


@pytest.mark.parametrize(
    "error",
    [
        RankDied(doing="load", cause="killed", rank=1, node="n"),
        RankHung(doing="load", cause="stuck", rank=1, node="n", waited_s=2.0),
        RanksDiverged(doing="load", cause="differs", rank=1, node="n"),
        RankRaised(doing="load", cause="no room", rank=1, node="n", cause_type="OSError"),
    ],
)
def test_any_failure_of_the_start_is_a_failed_start_that_keeps_rank_and_node(error):
    with pytest.raises(GroupStartFailed) as caught, start_failures():
        raise error
    assert (caught.value.rank, caught.value.node, caught.value.doing) == (1, "n", "load")
    assert error.cause in caught.value.cause
    assert caught.value.__cause__ is error


def test_a_users_mistake_stays_the_users_mistake():
    error = RankRaised(doing="load", cause="give a folder", user_message="give a folder")
    with pytest.raises(UserError, match=r"^give a folder$"), start_failures():
        raise error


def test_a_start_that_already_has_its_reason_keeps_it():
    reason = ResourcesMissing(doing="reserve", cause="8 GPUs are asked for")
    with pytest.raises(ResourcesMissing) as caught, start_failures():
        raise reason
    assert caught.value is reason


def test_other_errors_are_ours_and_pass():
    with pytest.raises(ZeroDivisionError), start_failures():
        _ = 1 / 0


def test_a_cancelled_start_ends_at_the_next_look():
    gang = ScriptedGang()
    gang.cancelled_after = 2
    with pytest.raises(GroupStartFailed, match="cancelled"):
        call_all(gang, "load", lambda rank, _: rank, limit_s=3600)
    assert len(gang.watched) <= 3
