"""The queue keeps order, takes back what is put before its head, and makes nothing early."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.waiting import Queue


def test_nothing_is_made_before_it_is_looked_at():
    made = []

    def items():
        for number in itertools.count():
            made.append(number)
            yield number

    queue: Queue[int] = Queue()
    queue.extend(items())
    assert made == []
    assert queue.first() == queue.first() == 0
    assert bool(queue)
    assert made == [0]
    assert [queue.pop() for _ in range(3)] == [0, 1, 2]
    assert made == [0, 1, 2]


def test_what_is_pushed_comes_first_and_later_items_come_last():
    queue: Queue[str] = Queue()
    queue.extend("bc")
    queue.extend(iter("d"))
    queue.push("a")
    assert list(queue) == ["a", "b", "c", "d"]
    assert [queue.pop() for _ in range(4)] == ["a", "b", "c", "d"]
    assert not queue


def test_an_empty_queue_has_no_head():
    queue: Queue[int] = Queue()
    assert not queue
    for look in (queue.first, queue.pop):
        with pytest.raises(IndexError, match="nothing waits"):
            look()
    queue.extend([])
    assert not queue
    queue.extend([7])
    assert queue.first() == 7


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=60))
def test_it_is_a_list_to_whoever_uses_it(calls):
    queue, model = Queue(), []
    for kind, number in calls:
        if kind == 0:
            queue.extend(iter(range(number)))
            model.extend(range(number))
        elif kind == 1:
            queue.push(number)
            model.insert(0, number)
        elif kind == 2 and model:
            assert queue.pop() == model.pop(0)
        elif kind == 4:
            assert queue.has(number) == (len(model) >= number)
            made = list(queue.made())
            assert made == model[: len(made)]
            assert len(made) >= min(number, len(model))
        assert bool(queue) == bool(model)
        if kind == 3:
            assert list(queue) == model
    assert list(queue) == model
