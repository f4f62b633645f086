"""Long runs of rows are summed in chunks, so that no program is long and no memory is wasted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHUNK = 64
"""Rows of one owner that one program adds."""


def plan_chunks(bounds: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Cut every owner's run of rows into chunks.

    Args:
        bounds: ``[owners + 1]``; owner i has rows ``bounds[i]`` to ``bounds[i + 1]``.

    Returns:
        First and last + 1 row of each chunk, ``[2, chunks]``; and ``[owners + 1]``, each owner's
        run of chunks. An owner without rows has one empty chunk.
    """
    counts = np.maximum(-(-np.diff(bounds) // CHUNK), 1)
    chunk_bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - chunk_bounds[owner]
    first = bounds[owner] + number * CHUNK
    last = np.minimum(first + CHUNK, bounds[owner + 1])
    return np.stack([first, last]).astype(np.int32), chunk_bounds
