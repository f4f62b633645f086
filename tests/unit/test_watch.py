"""One call's clocks: who answered, and what is overdue."""

from __future__ import annotations

from actors.diagnosis import Outcome
from actors.rank_report import RankStatus
from actors.watch import Limits, Watch


def watch(size=2, **limits):
    return Watch("run bundle b7", world_size=size, limits=Limits(**limits), now_s=100.0)


def outcome(rank, kind="answered", at_s=101.0, value=None):
    return Outcome(rank=rank, kind=kind, at_s=at_s, value=value)


def status(rank, marker, stage="running", *, in_collective=False):
    return RankStatus(
        rank=rank,
        stage=stage,
        bundle_id="b7",
        num_collectives=0,
        num_tokens=0,
        in_collective=in_collective,
        stack="",
        marker=marker,
    )


def test_a_call_is_complete_when_every_rank_answered():
    call = watch()
    call.record(outcome(1, value="one"))
    assert (call.is_complete, call.answered, call.pending) == (False, [1], [0])
    call.record(outcome(0, value="zero"))
    assert call.is_complete
    assert call.values() == ["zero", "one"]
    assert not call.is_failed


def test_a_failure_is_not_an_answer():
    call = watch(size=1)
    call.record(outcome(0, "raised"))
    assert (call.is_failed, call.is_complete, call.answered) == (True, False, [])


def test_a_death_replaces_what_the_rank_raised_and_nothing_replaces_a_death():
    call = watch()
    call.record(outcome(0, "raised"))
    call.record(outcome(0, "died"))
    call.record(outcome(0, "raised"))
    assert call.outcomes[0].kind == "died"


def test_without_limits_nothing_is_overdue():
    assert watch().overdue(1e9) is None


def test_the_whole_call_has_a_limit():
    call = watch(whole_s=10)
    assert call.overdue(110.0) is None
    assert call.overdue(110.1) == "it took longer than 10 s"


def test_the_straggler_clock_starts_with_the_first_answer():
    call = watch(straggler_s=3)
    assert call.overdue(1000.0) is None
    call.record(outcome(0, at_s=200.0))
    assert call.overdue(203.0) is None
    assert call.overdue(203.1) == "some ranks finished 3 s before the others"


def test_a_complete_call_has_no_stragglers():
    call = watch(straggler_s=3, stall_s=5)
    call.record(outcome(0, at_s=200.0))
    call.record(outcome(1, at_s=202.0))
    assert call.overdue(900.0) is None


def test_a_stall_is_no_change_of_any_marker():
    call = watch(stall_s=5)
    call.note({0: status(0, "a"), 1: status(1, "a")}, 101.0)
    assert call.overdue(104.9) is None
    assert call.overdue(105.1) == "no rank made progress for 5 s"


def test_one_moving_rank_keeps_the_call_alive():
    call = watch(stall_s=5)
    call.note({0: status(0, "a"), 1: status(1, "a")}, 101.0)
    call.note({0: status(0, "a"), 1: status(1, "b")}, 104.0)
    assert call.overdue(108.9) is None
    assert call.overdue(109.1) is not None


def test_an_outcome_is_progress():
    call = watch(size=3, stall_s=5)
    call.record(outcome(0, at_s=104.0))
    assert call.overdue(108.0) is None


def test_ranks_that_only_send_results_home_are_forgiven():
    call = watch(straggler_s=3)
    call.record(outcome(1, at_s=101.0))
    assert call.forgive_returning({0: status(0, "a", stage="returning")}, 105.0)
    assert call.overdue(107.9) is None
    assert call.overdue(108.1) is not None


def test_ranks_that_still_run_or_are_silent_are_not_forgiven():
    call = watch(straggler_s=3)
    call.record(outcome(1, at_s=101.0))
    assert not call.forgive_returning({0: status(0, "a")}, 105.0)
    assert not call.forgive_returning({}, 105.0)
    assert call.overdue(105.0) is not None


def test_a_bundle_that_waited_behind_another_starts_its_clocks_when_its_turn_comes():
    call = watch(whole_s=10, stall_s=5, straggler_s=3)
    call.record(outcome(0, at_s=101.0))
    call.begin(200.0)
    assert call.overdue(202.9) is None
    assert call.waited_s(202.0) == 2.0
    assert call.overdue(203.1) is not None


def test_clocks_are_read_four_times_before_they_run_out():
    assert watch(straggler_s=3, stall_s=20).check_every_s() == 0.75
    assert watch(stall_s=20).check_every_s() == 1.0
    assert watch().check_every_s() == 1.0
    assert watch(straggler_s=0.1).check_every_s() == 0.2


def test_ranks_are_asked_only_after_a_quiet_while():
    call = watch(stall_s=20)
    assert not call.is_look_due(100.9)
    assert call.is_look_due(101.0)
    call.note({}, 101.0)
    assert not call.is_look_due(101.9)
    assert call.is_look_due(102.0)
    call.record(outcome(0, at_s=102.0))
    assert not call.is_look_due(102.9)


def test_a_call_that_may_not_stall_asks_nobody():
    assert not watch(whole_s=10).is_look_due(1e9)


def look(call, at_s, *markers, in_collective=True):
    call.note({i: status(i, m, in_collective=in_collective) for i, m in enumerate(markers)}, at_s)


def test_ranks_that_all_wait_in_collectives_wait_for_each_other():
    call = watch(straggler_s=5, stall_s=20)
    look(call, 101.0, "a", "b")
    look(call, 102.0, "a", "b")  # the second look shows that they stand still
    assert call.overdue(106.9) is None
    assert call.overdue(107.1) == "every rank waits in a collective, and they do not match"


def test_one_step_of_any_rank_shows_that_their_collectives_match():
    call = watch(straggler_s=5, stall_s=60)
    look(call, 101.0, "a", "b")
    look(call, 102.0, "a", "b")
    look(call, 106.0, "a", "c")
    look(call, 107.0, "a", "c")
    assert call.overdue(111.9) is None
    assert call.overdue(112.1) is not None


def test_a_rank_that_computes_or_is_silent_may_yet_come_to_the_collective():
    call = watch(straggler_s=5, stall_s=60)
    for at_s in (101.0, 102.0, 109.0):
        look(call, at_s, "a", "b", in_collective=False)
    assert call.overdue(115.0) is None
    for at_s in (115.0, 116.0, 117.0):
        look(call, at_s, "a")  # rank 1 said nothing
    assert call.overdue(125.0) is None
    alone = watch(size=1, straggler_s=5, stall_s=60)
    for at_s in (101.0, 102.0):
        look(alone, at_s, "a")
    assert alone.overdue(120.0) is None
