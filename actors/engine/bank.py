"""A bundle's vectors on the device, and what tells that ranks were given the same ones."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.staging import blank, there
from actors.request import Bundle


def vector_sha256(vector: np.ndarray) -> str:
    """sha256 of a vector's float32 little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()


@dataclass(slots=True)
class Bank:
    """A bundle's vectors on the device; slot 0 is zeros."""

    vectors_VD: Tensor
    units_VD: Tensor
    slot_of: dict[str, int]
    marks: dict[str, int]
    """By key: the sum of a vector's bits. What decides that ranks were given the same vectors must
    be there before the first forward, and a digest of all of them would keep the GPU waiting."""
    _digests: Future[dict[str, str]]
    _made: dict[str, str] | None = None

    def sha256(self, key: str) -> str:
        """Digest of a vector, made while forwards run."""
        if self._made is None:
            self._made = self._digests.result()
        return self._made[key]


def build_bank(bundle: Bundle, width: int, device: torch.device) -> Bank:
    """Stack a bundle's vectors of the residual width (others belong to no steerable site)."""
    keys = [k for k in sorted(bundle.vectors) if bundle.vectors[k].shape == (width,)]
    host = blank((len(keys) + 1, width), device)
    stacked = host.numpy()
    stacked[0] = 0
    for slot, key in enumerate(keys, start=1):
        stacked[slot] = bundle.vectors[key]
    vectors = there(host, device)
    norms = vectors.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    bits = host.view(torch.int32 if width % 2 else torch.int64).sum(dim=1)
    return Bank(
        vectors_VD=vectors,
        units_VD=vectors / norms,
        slot_of={k: i for i, k in enumerate(keys, start=1)},
        marks=dict(zip(keys, bits[1:].tolist(), strict=True)),
        _digests=_hasher().submit(_digests, {k: bundle.vectors[k] for k in keys}),
    )


@cache
def _hasher() -> ThreadPoolExecutor:
    """One thread: hashing needs no lock, so it goes on beside the thread that feeds the device."""
    return ThreadPoolExecutor(1, thread_name_prefix="digests")


def _digests(vectors: dict[str, NDArray[np.float32]]) -> dict[str, str]:
    return {key: vector_sha256(vector) for key, vector in vectors.items()}
