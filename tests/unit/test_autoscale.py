"""How many groups are up follows from queue and room; one model at a time where one fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.autoscale import Change, Load, ScaleLimits, decide, wanted


def limits(least=1, most=1, per_group=4, idle_s=60.0) -> ScaleLimits:
    return ScaleLimits(least=least, most=most, bundles_per_group=per_group, idle_s=idle_s)


@pytest.mark.parametrize(
    ("load", "bounds", "count"),
    [
        # Nothing to do asks for nothing, however many groups are allowed.
        (Load(waiting=0, flying=0, up=0), limits(least=4, most=4), 0),
        # One bundle needs one group, though four may run.
        (Load(waiting=1, flying=0, up=0), limits(least=4, most=4), 1),
        (Load(waiting=9, flying=0, up=0), limits(least=4, most=4), 4),
        # Four per group: the fifth asks for another one.
        (Load(waiting=4, flying=2, up=1), limits(most=8), 1),
        (Load(waiting=5, flying=2, up=1), limits(most=8), 2),
        (Load(waiting=100, flying=0, up=1), limits(most=8), 8),
        (Load(waiting=100, flying=0, up=1), limits(most=3), 3),
        # Groups that are up keep working while there is a bundle for each.
        (Load(waiting=0, flying=3, up=3), limits(most=8), 3),
        (Load(waiting=0, flying=1, up=3), limits(most=8), 1),
    ],
)
def test_the_groups_that_one_model_has_work_for(load, bounds, count):
    assert wanted(load, bounds) == count


def test_a_plan_starts_as_many_groups_as_were_asked_for():
    assert decide([Load(waiting=10, flying=0, up=0)], limits(least=2, most=2)) == [Change(2, 0)]


def test_a_dead_group_is_replaced_while_the_others_work_on():
    assert decide([Load(waiting=3, flying=4, up=2)], limits(least=3, most=3)) == [Change(1, 0)]


def test_a_long_queue_starts_groups_up_to_the_limit():
    assert decide([Load(waiting=9, flying=2, up=1)], limits(most=8)) == [Change(2, 0)]
    assert decide([Load(waiting=90, flying=2, up=1)], limits(most=8)) == [Change(7, 0)]


def test_groups_on_their_way_out_still_hold_their_place():
    load = Load(waiting=8, flying=0, up=0, leaving=1)
    assert decide([load], limits(least=2, most=2)) == [Change(1, 0)]


def test_a_group_beyond_the_least_ends_when_it_was_idle_for_long():
    load = Load(waiting=0, flying=1, up=3, idle_s=(80.0, 30.0))
    assert decide([load], limits(least=1, most=4)) == [Change(0, 1)]
    assert decide([load], limits(least=3, most=4)) == [Change(0, 0)]


def test_the_least_are_kept_over_a_pause():
    load = Load(waiting=0, flying=0, up=2, idle_s=(900.0, 900.0))
    assert decide([load], limits(least=2, most=2)) == [Change(0, 0)]


def test_where_one_fits_the_first_model_is_finished_before_the_second_is_loaded():
    """Four ticks of a run that extracts from one model and steers another."""
    one = limits(least=1, most=1)
    extract, steer = Load(waiting=4, flying=0, up=0), Load(waiting=3, flying=0, up=0)
    assert decide([extract, steer], one) == [Change(1, 0), Change(0, 0)]

    extract = Load(waiting=0, flying=1, up=1)
    assert decide([extract, steer], one) == [Change(0, 0), Change(0, 0)]

    extract = Load(waiting=0, flying=0, up=1, idle_s=(0.0,))
    assert decide([extract, steer], one) == [Change(0, 1), Change(0, 0)]

    extract = Load(waiting=0, flying=0, up=0, leaving=1)
    assert decide([extract, steer], one) == [Change(0, 0), Change(0, 0)]

    extract = Load(waiting=0, flying=0, up=0)
    assert decide([extract, steer], one) == [Change(0, 0), Change(1, 0)]


def test_where_two_fit_what_the_first_model_leaves_goes_to_the_second():
    two = limits(least=2, most=2)
    loads = [Load(waiting=1, flying=0, up=0), Load(waiting=5, flying=0, up=0)]
    assert decide(loads, two) == [Change(1, 0), Change(1, 0)]
    loads = [Load(waiting=5, flying=0, up=0), Load(waiting=5, flying=0, up=0)]
    assert decide(loads, two) == [Change(2, 0), Change(0, 0)]


def test_a_group_that_leaves_makes_room_for_one_and_no_second_is_sent_away():
    loads = [
        Load(waiting=0, flying=0, up=1, idle_s=(1.0,), leaving=1),
        Load(waiting=1, flying=0, up=0),
    ]
    assert decide(loads, limits(least=2, most=2)) == [Change(0, 0), Change(0, 0)]


def test_work_for_a_model_that_was_thought_finished_brings_it_back():
    loads = [Load(waiting=1, flying=0, up=0), Load(waiting=0, flying=0, up=1, idle_s=(0.1,))]
    assert decide(loads, limits()) == [Change(0, 0), Change(0, 1)]


load_of_one = st.builds(
    lambda waiting, busy, idle, leaving: Load(
        waiting=waiting, flying=busy, up=busy + len(idle), idle_s=tuple(idle), leaving=leaving
    ),
    st.integers(0, 40),
    st.integers(0, 6),
    st.lists(st.floats(0, 200), max_size=4),
    st.integers(0, 2),
)


@given(
    loads=st.lists(load_of_one, min_size=1, max_size=3),
    least=st.integers(1, 6),
    extra=st.integers(0, 6),
)
def test_no_decision_breaks_the_limits(loads, least, extra):
    bounds = limits(least=least, most=least + extra)
    changes = decide(loads, bounds)
    held = sum(load.up + load.leaving for load in loads)
    started = sum(change.start for change in changes)
    assert started == 0 or held + started <= bounds.most
    for load, change in zip(loads, changes, strict=True):
        assert 0 <= change.stop <= len(load.idle_s)
        assert change.start >= 0
        assert not (change.start and change.stop)


@given(loads=st.lists(load_of_one, min_size=1, max_size=3), most=st.integers(1, 4))
def test_work_is_never_left_without_a_group_for_ever(loads, most):
    """Follow the decisions, with no work ever finishing but idle groups leaving: somebody works."""
    bounds = limits(most=most)
    for _ in range(12):
        changes = decide(loads, bounds)
        loads = [
            load._replace(
                up=load.up + change.start - change.stop,
                idle_s=load.idle_s[: len(load.idle_s) - change.stop],
                leaving=change.stop,
            )
            for load, change in zip(loads, changes, strict=True)
        ]
    if any(load.waiting for load in loads):
        assert any(load.up and (load.waiting or load.flying) for load in loads)
