"""Small bundles travel as they are, large ones once; a full store is waited for, then named."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ray.exceptions import OutOfDiskError

from actors import parcel
from actors.errors import ObjectStoreFull, RequestRefused
from actors.parcel import pack
from actors.request import Bundle, Request


class Store:
    """Stands for ray.put; is full so many times."""

    def __init__(self, times_full: int = 0) -> None:
        self.times_full = times_full
        self.taken: list[Bundle] = []

    def put(self, bundle: Bundle) -> str:
        if self.times_full:
            self.times_full -= 1
            raise OutOfDiskError("Local disk is full\nmore lines")
        self.taken.append(bundle)
        return "ref"


@pytest.fixture
def store(monkeypatch):
    made = Store()
    monkeypatch.setattr(parcel, "ray", made)
    monkeypatch.setattr(parcel, "PAUSE_S", 0.0)
    return made


def bundle(num_tokens: int, **vectors) -> Bundle:
    return Bundle(
        id="b7", requests=(Request(id="q", token_ids=(1,) * num_tokens),), vectors=vectors
    )


def test_a_small_bundle_goes_to_each_rank_by_value(store):
    small = bundle(20_000)
    assert pack(small) is small
    assert store.taken == []


@pytest.mark.parametrize("large", [bundle(20_001), bundle(1, v=np.zeros(4, np.float32))])
def test_tokens_and_vectors_in_number_go_through_the_store_once(store, large):
    assert pack(large) == "ref"
    assert store.taken == [large]


def test_a_store_that_is_full_for_a_moment_is_waited_for(store):
    store.times_full = 3
    assert pack(bundle(30_000)) == "ref"


def test_a_store_that_stays_full_is_one_sentence_with_the_way_out(store, monkeypatch):
    monkeypatch.setattr(parcel, "STORE_WAIT_S", 0.0)
    store.times_full = 99
    with pytest.raises(ObjectStoreFull) as caught:
        pack(bundle(30_000))
    assert str(caught.value) == (
        "Ray's object store had no room to take in bundle b7: Local disk is full; lower "
        "schedule.bundle_requests, or give Ray more memory (ray start --object-store-memory)"
    )
    assert isinstance(caught.value, RequestRefused)  # the group is as good as before
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (ObjectStoreFull, str(caught.value))
