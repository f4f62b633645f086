"""Chunks cover every owner's rows once, in order, and are never long."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.kernels.pool_plan import CHUNK, plan_chunks


def test_a_long_run_beside_short_ones_is_the_only_one_cut() -> None:
    spans, bounds = plan_chunks(np.array([0, 1, 131, 133], np.int32))
    assert spans.tolist() == [[0, 1, 65, 129, 131], [1, 65, 129, 131, 133]]
    assert bounds.tolist() == [0, 1, 4, 5]
    assert (spans.dtype, bounds.dtype) == (np.int32, np.int32)


def test_an_owner_without_rows_has_an_empty_chunk() -> None:
    spans, bounds = plan_chunks(np.array([0, 0, 2], np.int32))
    assert spans.tolist() == [[0, 0], [0, 2]]
    assert bounds.tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=40))
def test_chunks_cover_each_owners_rows_once(counts: list[int]) -> None:
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    (first, last), owned = plan_chunks(bounds)
    assert ((last - first) <= CHUNK).all()
    for owner, count in enumerate(counts):
        mine = range(owned[owner], owned[owner + 1])
        rows = [row for chunk in mine for row in range(first[chunk], last[chunk])]
        assert rows == list(range(bounds[owner], bounds[owner] + count))
    assert owned[-1] <= sum(count // CHUNK + 1 for count in counts)
