"""A bundle reaches every rank, a large one through the object store, or is refused by name."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from actors.diagnosis import first_line
from actors.errors import ObjectStoreFull
from actors.request import Bundle

BY_REFERENCE_TOKENS = 20_000
"""Bundles with more tokens go through the object store once instead of to each rank."""
STORE_WAIT_S = 5.0
"""For other objects to make room in the object store."""
PAUSE_S = 0.2
"""Between two tries."""


def pack(bundle: Bundle) -> Any:  # noqa: ANN401 - the bundle, or a ref of it
    """Make a bundle ready to send to all ranks.

    Raises:
        ObjectStoreFull: There was no room within ``STORE_WAIT_S``.
    """
    size = sum(len(request.token_ids) for request in bundle.requests)
    if size <= BY_REFERENCE_TOKENS and not bundle.vectors:
        return bundle
    deadline = time.monotonic() + STORE_WAIT_S
    while True:
        try:
            return ray.put(bundle)
        except (ObjectStoreFullError, OutOfDiskError) as full:
            if time.monotonic() >= deadline:
                doing, cause = f"take in bundle {bundle.id}", first_line(str(full))
                raise ObjectStoreFull(doing=doing, cause=cause) from full
        time.sleep(PAUSE_S)
