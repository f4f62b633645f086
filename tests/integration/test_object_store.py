"""A full object store is named in seconds; what does not fit is refused, and the rest goes on."""

from __future__ import annotations

import time

import numpy as np
import pytest
import ray

from actors import parcel
from actors.errors import ObjectStoreFull, RankRaised
from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.request import Bundle, Capture, EngineSpec, Request, Sampling

pytestmark = [pytest.mark.ray, pytest.mark.long]

SPEC = EngineSpec(model_path="/nowhere", tensor_parallel_size=1)
CLUSTER = GroupSpec(name="full", engine="tests.fakes:FakeEngine.load")


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    """An object store that cannot fall back to the disk, as when the disk is full as well."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        _system_config={"local_fs_capacity_threshold": 0.0},
    )
    yield
    ray.shutdown()


def bundle(name: str, num_tokens: int = 3, **vectors) -> Bundle:
    """Its answer has 6 layers of 32 bytes for each token."""
    request = Request(
        id=name,
        token_ids=(1,) * num_tokens,
        sampling=Sampling(max_new_tokens=2),
        capture=(Capture(layers=(0, 1, 2, 3, 4, 5), tokens="all"),),
    )
    return Bundle(id=name, requests=(request,), vectors=vectors)


def test_what_does_not_fit_is_refused_or_names_its_rank_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(parcel, "STORE_WAIT_S", 0.5)
    with ModelGroup.start(SPEC, CLUSTER) as group:
        began = time.monotonic()
        with pytest.raises(ObjectStoreFull, match="take in bundle large: Local disk is full"):
            group.run(bundle("large", v=np.zeros(30 << 20, np.float32)))
        assert time.monotonic() - began < 5
        assert group.run(bundle("small", v=np.ones(4, np.float32))).bundle_id == "small"

        # 115 MB of rows do not fit into 80 MB; a third of them do, as when a bundle was split.
        assert group.run(bundle("third", 200_000)).results[0].error is None
        began = time.monotonic()
        with pytest.raises(RankRaised, match=r"rank 0 .* raised OutOfDiskError") as caught:
            group.run(bundle("much", 600_000))
        assert time.monotonic() - began < 20
        assert caught.value.cause == "Local disk is full"
