"""What a rank keeps of decode steps follows from the layers kept and how they are dealt out."""

from __future__ import annotations

import pytest
import torch

from actors.engine.fast_state import MAX_RAW_BURST, Features
from actors.engine.kept_rows import KeptRows, key_of

CPU = torch.device("cpu")


def _rows(rank, world_size=3):
    return KeptRows(rank, world_size, 4, 6, torch.float32, CPU)


@pytest.mark.parametrize(
    ("rank", "shared", "held"),
    [(0, False, (1, 3, 5, 8)), (1, False, ()), (0, True, (1, 8)), (1, True, (3,)), (2, True, (5,))],
)
def test_layers_are_rank_0s_or_dealt_out(rank, shared, held) -> None:
    features = Features(keeps=(1, 3, 5, 8), shared=shared)
    kept = _rows(rank)
    assert kept.held(features) == held
    rows = kept.rows(features)
    assert (rows is None) == (not held)
    if rows is not None:
        assert rows.shape == (MAX_RAW_BURST, len(held), 4, 6)


def test_a_layer_is_kept_at_its_own_place() -> None:
    features, step = Features(keeps=(2, 7), shared=False), torch.zeros(1, dtype=torch.int64)
    kept = _rows(0)
    found = kept.place(7, features, step)
    assert found is not None
    found[0].fill_(3.0)
    rows = kept.rows(features)
    assert rows is not None
    assert rows[:, 1].eq(3.0).all()
    assert found[1] is step
    assert kept.place(4, features, step) is None


def test_graphs_that_differ_in_other_ways_share_their_rows() -> None:
    kept = _rows(0)
    one, other = Features(steers=True, keeps=(1,)), Features(reach=0, keeps=(1,))
    assert key_of(one) == key_of(other)
    assert kept.rows(one) is kept.rows(other)
    assert kept.staging(one) is kept.staging(other)
    assert kept.rows(Features(keeps=(2,))) is not kept.rows(one)


def test_forgotten_rows_are_made_anew() -> None:
    kept, features = _rows(0), Features(keeps=(1,))
    before, staging = kept.rows(features), kept.staging(features)
    kept.forget(key_of(features))
    kept.forget(key_of(features))  # nothing is there: nothing happens
    assert kept.rows(features) is not before
    assert kept.staging(features) is not staging
