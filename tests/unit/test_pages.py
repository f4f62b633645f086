"""No page is lost, none has two owners by mistake, and a shared one lives as long as one owner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.pages import PageTable, packed, prefix_keys


def test_pages_are_handed_out_lowest_first_and_page_0_never():
    table = PageTable(5, 4)
    assert [table.allocate(n) for n in (1, 0, 2, 5, 1)] == [[1], [], [2, 3], [4], []]
    assert (table.capacity, table.num_free) == (4, 0)
    table.release([3, 2])
    assert table.num_free == 2
    assert table.allocate(1) == [2]


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_tokens_need_whole_pages(tokens, pages):
    assert PageTable(9, 4).pages_for(tokens) == pages


def test_a_shared_page_is_free_when_its_last_owner_leaves():
    table, [key] = PageTable(4, 4), prefix_keys([1, 2, 3, 4], 4)
    [page] = table.allocate(1)
    assert table.share(key) is None
    table.publish([page], [key])
    assert table.share(key) == page
    table.release([page])
    assert table.num_free == 2
    assert table.share(key) == page
    table.release([page, page])
    assert table.num_free == 3
    assert table.share(key) is None  # its content is no longer promised


def test_the_first_page_under_a_key_stays_the_shared_one():
    table, [key] = PageTable(4, 2), prefix_keys([1, 2], 2)
    first, second = table.allocate(2)
    table.publish([first], [key])
    table.publish([second], [key])
    assert table.share(key) == first
    table.release([second])
    assert table.share(key) == first
    table.release([first, first, first])
    assert table.share(key) is None


def test_freeing_twice_is_an_error():
    table = PageTable(3, 2)
    [page] = table.allocate(1)
    table.release([page])
    with pytest.raises(ValueError, match=f"page {page} is released but nobody owns it"):
        table.release([page])
    with pytest.raises(ValueError, match="page 0"):
        table.release([0])


def test_keys_tell_tokens_history_and_steering_apart():
    """What differs on a page, or before it, or by steering up to its end, is another key."""
    found = [
        prefix_keys([1, 2, 3, 4], 2),
        prefix_keys([2, 1, 3, 4], 2),
        prefix_keys([1, 2, 1, 2], 2)[1:],  # its first page is that of the first
        prefix_keys([12], 1),
        prefix_keys([1, 2, 3, 4], 2, b"steered"),
        prefix_keys([1, 2, 3, 4], 2, b"otherwise"),
        prefix_keys([1, 2, 3, 4], 2, b"steered", 3)[1:],
        prefix_keys([1, 2, 3, 4, 5, 6], 2, b"steered", 4)[2:],
        prefix_keys([1, 2, 3, 4, 5, 6], 2, b"steered", 3)[2:],
        prefix_keys([1, 2, 3, 4, 5, 6], 2)[2:],
    ]
    keys = [key for some in found for key in some]
    assert len(set(keys)) == len(keys) == 14


def test_pages_before_and_without_steering_share_their_keys():
    plain = prefix_keys([1, 2, 3, 4, 5, 6, 7], 2)
    assert [len(plain), {len(key) for key in plain}] == [3, {16}]
    assert prefix_keys([1, 2, 3, 4, 9], 2) == plain[:2]
    for starts, alike in ((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (6, 3), (7, 3)):
        steered = prefix_keys([1, 2, 3, 4, 5, 6, 7], 2, b"steered", starts)
        assert (steered[:alike], len(steered)) == (plain[:alike], 3)
        assert not set(steered[alike:]) & set(plain)
        assert prefix_keys([1, 2, 3, 4, 5, 6, 7], 2, b"", starts) == plain
    assert prefix_keys([1], 2, b"steered") == prefix_keys([], 2) == []


def test_packed_tokens_are_int64():
    assert packed((1, 2**40)) == np.array([1, 2**40], "<i8").tobytes()
    assert packed(np.array([3, 4], np.int32)) == packed([3, 4])
    assert packed(()) == b""


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=200))
def test_references_balance_under_any_order_of_calls(calls):
    """A model of the table: page -> owners. Every call keeps table and model equal."""
    table = PageTable(9, 4)
    owners: dict[int, int] = {}
    published: dict[int, int] = {}
    for kind, number in calls:
        held = sorted(owners)
        if kind == 0:
            pages = table.allocate(number)
            assert len(pages) == min(number, 8 - len(owners))
            assert not owners.keys() & set(pages)
            owners.update(dict.fromkeys(pages, 1))
        elif kind == 1 and held:
            page = held[number % len(held)]
            table.release([page])
            owners[page] -= 1
            if not owners[page]:
                del owners[page]
                published = {k: p for k, p in published.items() if p != page}
        elif kind == 2 and held:
            page = held[number % len(held)]
            if page not in published.values():
                table.publish([page], [bytes([number])])
                published.setdefault(number, page)
        elif kind == 3:
            page = table.share(bytes([number]))
            assert page == published.get(number)
            if page is not None:
                owners[page] += 1
        assert table.num_free == 8 - len(owners)
