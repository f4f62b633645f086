"""The root cause is named before its collateral."""

from __future__ import annotations

import pytest

from actors.diagnosis import (
    Outcome,
    compare_digests,
    describe,
    find_hung_rank,
    find_missing_rank,
    find_refusal,
    find_root_cause,
    has_root_cause,
    in_places,
    join_stacks,
)
from actors.errors import RankDied, RankHung, RankRaised, RanksDiverged, RequestRefused
from actors.rank_report import RankAnswer, RankStatus

NODES = ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]
GLOO_RESET = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"


def raised(rank, cause, *, at_s=1.0, cause_type="RuntimeError", is_user_error=False):
    return Outcome(
        rank=rank,
        kind="raised",
        at_s=at_s,
        cause=cause,
        cause_type=cause_type,
        is_user_error=is_user_error,
    )


def died(rank, *, at_s=1.0):
    return Outcome(rank=rank, kind="died", at_s=at_s, cause="killed")


def answered(rank):
    return Outcome(rank=rank, kind="answered", at_s=1.0)


def status(rank, num_collectives, *, in_collective=True, stage="running", stack=None):
    return RankStatus(
        rank=rank,
        stage=stage,
        bundle_id="b",
        num_collectives=num_collectives,
        num_tokens=0,
        in_collective=in_collective,
        stack=stack or f"stack of {rank}",
        marker="",
    )


def root_cause(outcomes, statuses=()):
    return find_root_cause(
        outcomes,
        doing="run bundle b7",
        nodes=NODES,
        statuses={one.rank: one for one in statuses},
        waited_s=1.5,
    )


def test_a_death_seen_after_its_neighbours_complaints_is_the_root_cause():
    error = root_cause([raised(0, GLOO_RESET), raised(2, GLOO_RESET), died(1, at_s=1.2)])
    assert isinstance(error, RankDied)
    assert (error.rank, error.node) == (1, "10.0.0.1")


def test_an_allocator_error_beats_the_neighbours_complaints():
    error = root_cause(
        [
            raised(0, GLOO_RESET),
            raised(3, "cannot allocate 16 GiB", cause_type="OutOfMemoryError"),
        ]
    )
    assert isinstance(error, RankRaised)
    assert (error.rank, error.node, error.cause_type) == (3, "10.0.0.2", "OutOfMemoryError")


def test_of_two_deaths_the_first_is_named():
    assert root_cause([died(3, at_s=2.0), died(2, at_s=1.0)]).rank == 2


def test_an_error_raised_before_a_death_is_named():
    error = root_cause([died(0, at_s=2.0), raised(1, "index 7 is out of range", at_s=1.0)])
    assert isinstance(error, RankRaised)
    assert error.rank == 1


def test_the_same_error_everywhere_blames_every_rank():
    error = root_cause([raised(r, "no such file", cause_type="OSError") for r in range(4)])
    assert error.on_every_rank


def test_different_errors_blame_the_first():
    outcomes = [raised(r, f"row {r}", cause_type="ValueError", at_s=2 - r / 4) for r in range(4)]
    error = root_cause(outcomes)
    assert (error.rank, error.on_every_rank) == (3, False)


def test_the_engines_own_comparison_of_schedules_is_a_divergence():
    error = root_cause([raised(0, "schedules differ at step 3", cause_type="RanksDisagree")])
    assert isinstance(error, RanksDiverged)
    assert error.rank is None


def test_a_users_mistake_travels_with_its_message():
    assert root_cause([raised(0, "give a folder", is_user_error=True)]).user_message == (
        "give a folder"
    )


def test_complaints_alone_name_the_rank_that_made_fewer_collectives():
    error = root_cause(
        [raised(0, "Timed out waiting 600000ms for recv operation")],
        [status(1, 40), status(2, 42), status(3, 42)],
    )
    assert isinstance(error, RankHung)
    assert error.rank == 1
    assert "left out 2 collective(s)" in error.cause
    assert "Timed out waiting" in error.cause


def test_complaints_alone_name_the_first_complainer_when_all_ranks_look_alike():
    error = root_cause(
        [raised(0, GLOO_RESET), raised(1, GLOO_RESET, at_s=2.0)], [status(2, 9), status(3, 9)]
    )
    assert isinstance(error, RankRaised)
    assert error.rank == 0


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (raised(0, GLOO_RESET), True),
        (raised(0, "x", cause_type="DistBackendError"), True),
        (raised(0, "NCCL error: unhandled system error"), True),
        (raised(0, "[enforce fail at pair.cc:467] op.preamble.length <= op.nbytes"), True),
        (raised(0, "index 7 is out of range"), False),
        (raised(0, "gloo is a band", cause_type="ValueError"), False),
        (died(0), False),
        (answered(0), False),
    ],
)
def test_complaints_about_other_ranks_are_told_from_a_ranks_own_errors(outcome, expected):
    assert outcome.is_collateral is expected


def test_answers_and_complaints_hold_no_root_cause():
    assert not has_root_cause([answered(0), raised(1, GLOO_RESET)])
    assert has_root_cause([answered(0), died(1)])


def test_a_rank_that_finished_one_collective_early_left_one_out():
    rank, cause = find_missing_rank(
        answered=[1],
        statuses={0: status(0, 42), 1: status(1, 41, in_collective=False, stage="returning")},
        world_size=2,
    )
    assert rank == 1
    assert cause == (
        "it left out 1 collective(s): rank 0 waits in collective 42, "
        "it is returning after 41 collectives"
    )


def test_a_rank_stuck_in_its_own_code_is_named_by_its_stack():
    rank, cause = find_missing_rank(
        answered=[],
        statuses={r: status(r, 42 if r != 2 else 41, in_collective=r != 2) for r in range(4)},
        world_size=4,
    )
    assert rank == 2
    assert cause.startswith("it does not reach the collective: rank 0 waits in collective 42")


def test_a_rank_that_does_not_answer_is_named():
    assert find_missing_rank(answered=[], statuses={0: status(0, 3)}, world_size=2) == (
        1,
        "its process does not answer",
    )


def test_a_rank_that_answered_its_bundle_is_not_silent():
    found = find_missing_rank(
        answered=[1], statuses={0: status(0, 3, in_collective=False)}, world_size=2
    )
    assert found is not None
    assert found[0] == 0


def test_ranks_that_all_wait_in_one_collective_cannot_be_told_apart():
    statuses = {r: status(r, 42) for r in range(4)}
    assert find_missing_rank(answered=[], statuses=statuses, world_size=4) is None


def test_without_counts_the_rank_outside_is_named():
    statuses = {r: status(r, 0, in_collective=r != 3) for r in range(4)}
    assert find_missing_rank(answered=[], statuses=statuses, world_size=4)[0] == 3


def test_without_counts_the_one_that_returned_is_named_against_three_that_wait():
    statuses = {r: status(r, 0, in_collective=r != 2) for r in range(4)}
    assert find_missing_rank(answered=[2], statuses=statuses, world_size=4)[0] == 2


def test_without_counts_the_one_that_waits_is_named_against_three_that_returned():
    statuses = {r: status(r, 0, in_collective=r == 1) for r in range(4)}
    rank, cause = find_missing_rank(answered=[0, 2, 3], statuses=statuses, world_size=4)
    assert rank == 1
    assert cause == "it waits for something that the others passed"


def test_ranks_that_wait_for_their_gpu_are_told_apart_by_their_counts():
    """NCCL returns at once; the wait shows later, outside torch.distributed."""
    statuses = {
        0: status(0, 42, in_collective=False),
        1: status(1, 41, in_collective=False, stage="returning"),
    }
    rank, cause = find_missing_rank(answered=[1], statuses=statuses, world_size=2)
    assert rank == 1
    assert cause.startswith("it left out 1 collective(s): rank 0 waits in collective 42")
    statuses = {0: status(0, 41, in_collective=False), 1: status(1, 42, in_collective=False)}
    assert find_missing_rank(answered=[], statuses=statuses, world_size=2)[0] == 0


def test_without_counts_the_rank_at_another_place_is_named():
    statuses = {
        r: status(r, 0, in_collective=False, stack="forward\n  token.item()\n") for r in range(4)
    }
    statuses[2] = status(2, 0, in_collective=False, stack="forward\n  time.sleep(600)\n")
    rank, cause = find_missing_rank(answered=[], statuses=statuses, world_size=4)
    assert rank == 2
    assert "at another place than the others" in cause


def test_several_ranks_stuck_in_their_own_code_cannot_be_told_apart():
    statuses = {r: status(r, 5, in_collective=False) for r in range(2)}
    assert find_missing_rank(answered=[], statuses=statuses, world_size=2) is None


def test_a_hang_without_a_culprit_says_which_clock_ran_out():
    error = find_hung_rank(
        doing="run bundle b7",
        nodes=NODES,
        answered=[],
        statuses={r: status(r, 42) for r in range(4)},
        waited_s=20.5,
        why="no rank made progress for 20 s",
    )
    assert (error.rank, error.node) == (None, "")
    assert error.cause == "no rank made progress for 20 s"
    assert "stack of 3" in error.details


def test_stacks_come_in_rank_order_with_their_place():
    text = join_stacks({1: status(1, 2), 0: status(0, 3, in_collective=False, stage="loading")})
    assert text.splitlines() == [
        "rank 0 (it is loading after 3 collectives):",
        "stack of 0",
        "rank 1 (it is in a collective after 2 collectives):",
        "stack of 1",
    ]
    assert describe(status(1, 2)) == "it is in a collective after 2 collectives"


def answer(rank, digest):
    return RankAnswer(rank=rank, digest=digest, reply=None, engine_s=0.1, idle_s=0.0)


def test_equal_digests_pass():
    compare_digests("run bundle b7", [answer(0, "aa"), answer(1, "aa")], NODES)


def test_the_first_rank_that_differs_from_rank_0_is_named():
    with pytest.raises(RanksDiverged) as caught:
        compare_digests(
            "run bundle b7", [answer(0, "a" * 64), answer(1, "a" * 64), answer(2, "b" * 64)], NODES
        )
    assert (caught.value.rank, caught.value.node) == (2, "10.0.0.2")
    assert caught.value.cause == "its digest is bbbbbbbbbbbb, rank 0 has aaaaaaaaaaaa"
    assert caught.value.digests == ("a" * 64, "a" * 64, "b" * 64)


def test_a_mistake_that_every_rank_found_is_a_refusal():
    outcomes = [raised(r, "layer 99 is not below 6", is_user_error=True) for r in range(2)]
    refusal = find_refusal(outcomes, doing="run bundle b7", size=2)
    assert isinstance(refusal, RequestRefused)
    assert str(refusal) == ("the model group refused to run bundle b7: layer 99 is not below 6")


def test_a_mistake_that_only_some_ranks_found_is_no_refusal():
    mistake = raised(0, "layer 99", is_user_error=True)
    assert find_refusal([mistake], doing="x", size=2) is None
    assert find_refusal([mistake, raised(1, "layer 99")], doing="x", size=2) is None


def at(file, line, function):
    """A stack that ends inside torch, below a line of ours."""
    ours = f'  File "/x/actors/engine/{file}", line {line}, in {function}\n    dist.call()\n'
    return f'{ours}  File "/y/torch/distributed/c10d.py", line 9, in wrapper\n    work.wait()\n'


def test_ranks_whose_collectives_do_not_match_are_told_with_both_places():
    """A rank left one out in mid step: counts agree, and of two ranks nobody is the odd one."""
    statuses = {
        0: status(0, 38, stack=at("collectives.py", 38, "all_gather")),
        1: status(1, 38, stack=at("collectives.py", 29, "all_reduce")),
    }
    error = find_hung_rank(
        doing="run bundle b",
        nodes=NODES[:2],
        answered=[],
        statuses=statuses,
        waited_s=6.0,
        why="every rank waits in a collective, and they do not match",
    )
    assert error.rank is None
    assert error.cause.endswith(
        "do not match: rank 0 in all_gather (collectives.py:38); "
        "rank 1 in all_reduce (collectives.py:29)"
    )


def test_ranks_at_one_place_and_ranks_without_a_stack_have_no_places_to_tell():
    same = {i: status(i, 3, stack=at("collectives.py", 29, "all_reduce")) for i in range(3)}
    assert in_places(same) == ""
    assert in_places({0: status(0, 3, stack=""), 1: same[1]}) == ""
