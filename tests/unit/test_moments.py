"""Running moments equal numpy's over all rows, however they came in pieces."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.moments import MomentStore


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 5))
def test_any_cut_into_pieces_gives_numpys_mean_and_variance(sizes, seed):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(sum(sizes), 3)) * 3 + 1000).astype("f4")  # far from zero
    store, first = MomentStore(), 0
    for size in sizes:
        finite = store.add("k", 1, "resid_post", torch.from_numpy(rows[first : first + size]))
        assert finite.tolist() == [True] * size
        first += size
    found = store.export()
    if not sum(sizes):
        assert found == ()
        return
    (moments,) = found
    exact = rows.astype(np.float64)
    assert moments.count == len(rows)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.m2, exact.var(0) * len(rows), rtol=1e-9, atol=1e-9)


def test_classes_layers_and_sites_are_apart_and_in_order():
    store = MomentStore()
    places = [("b", 0, "mlp_out"), ("a", 2, "mlp_out"), ("a", 1, "resid_post"), ("a", 1, "mlp_out")]
    for number, (key, layer, site) in enumerate(places):
        store.add(key, layer, site, torch.full((1, 2), float(number)))
    found = store.export()
    assert [(m.key, m.layer, m.site) for m in found] == sorted(places)
    assert [m.mean[0] for m in found] == [3.0, 2.0, 1.0, 0.0]
    assert all(m.count == 1 and not m.m2.any() for m in found)


def test_rows_that_are_not_finite_are_left_out_and_named():
    rows = torch.ones(5, 2)
    rows[1, 0], rows[3, 1] = float("nan"), float("-inf")
    store = MomentStore()
    assert store.add("k", 0, "resid_post", rows[1:2]).tolist() == [False]
    assert store.export() == ()  # a class without a row
    assert store.add("k", 0, "resid_post", rows).tolist() == [True, False, True, False, True]
    assert store.add("k", 0, "resid_post", rows[1:2]).tolist() == [False]
    (moments,) = store.export()
    assert moments.count == 3
    assert moments.mean.tolist() == [1.0, 1.0]


def test_bfloat16_rows_are_summed_in_float64():
    store = MomentStore()
    store.add("k", 0, "resid_post", torch.full((4097, 1), 1.0).bfloat16())
    store.add("k", 0, "resid_post", torch.full((1, 1), 3.0).bfloat16())
    (moments,) = store.export()
    assert moments.mean[0] == (4097 + 3) / 4098
    assert moments.mean.dtype == np.float64
