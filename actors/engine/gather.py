"""The rows that captures read in one forward, and how they leave it: summed, or kept one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.homes import Home, Move, Shelf, send
from actors.engine.landing import Piece, land
from actors.engine.reading import Reading
from actors.engine.staging import stage, stage_parts
from actors.kernels.pool_plan import plan_chunks


@dataclass(slots=True)
class Step:
    """One group's rows in the current forward."""

    readings: list[tuple[Reading, int, int]]
    """(reading, first, last) into ``rows``."""
    rows: Tensor
    owner: Tensor
    """int64: index into ``readings`` of each row."""
    bounds: NDArray[np.int32]
    """``[readings + 1]``: each reading's run of ``rows``."""
    chunks: tuple[Tensor, Tensor] | None = None
    """The runs cut into chunks, on a GPU, once something is summed."""
    good: Tensor | None = None
    """bool: whether all that was kept of each row is finite; None: nobody looked."""
    taken: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """Site -> layer -> what was read there."""


def to_step(
    readings: list[tuple[Reading, int, int]], first_rows: list[int], device: torch.device
) -> Step:
    """The step of one group: its readings' runs, and the rows of the forward where each begins."""
    bounds = np.asarray([0, *(last for _, _, last in readings)], dtype=np.int32)
    lengths = np.diff(bounds)
    owner = np.repeat(np.arange(len(readings)), lengths)
    offsets = np.asarray(first_rows, np.int64) - bounds[:-1]
    rows = np.repeat(offsets, lengths) + np.arange(bounds[-1])
    rows_there, owner_there = stage_parts((rows, owner), device)
    return Step(readings, rows_there, owner_there, bounds)


def keep_rows(
    block_LND: Tensor,
    site: str,
    readings: Sequence[tuple[Reading, int, int]],
    good: Tensor | None = None,
    shelf: Shelf | None = None,
) -> None:
    """Bring rows to the host and give each reading its run of them.

    Args:
        block_LND: Rows of the held layers.
        site: Where they were read.
        readings: (reading, first, last) into the rows, which are its newest positions.
        good: bool ``[N]``, whether each row is finite; None: the host will count.
        shelf: Where readings find homes; None: their rows are put together when they end.
    """
    moves, settled, others = [], [], []
    for run in readings:
        reading, first, last = run
        home = find_home(reading, site, block_LND, shelf)
        if home is None:
            others.append(run)
            continue
        settled.append(run)
        if first < last:
            position = reading.positions[first - last]
            moves.append(Move(home, position, block_LND[:, first:last]))
    for runs in (settled, others):
        if runs:
            landing = send(moves, block_LND, good) if runs is settled else land(block_LND, good)
            for reading, first, last in runs:
                reading.pieces.setdefault(site, []).append(Piece(landing, None, None, first, last))


def find_home(reading: Reading, site: str, block_LND: Tensor, shelf: Shelf | None) -> Home | None:
    """The reading's home at a site, laid out at its first rows; None when it has none."""
    home = reading.homes.get(site)
    if home is not None or shelf is None or site in reading.pieces:
        return home
    places = reading.positions_at_most
    if reading.capture.reduction != "none" or not places:
        return None
    shape = (block_LND.shape[0], len(places), block_LND.shape[2])
    home = shelf.home(shape, block_LND.dtype, places.start)
    if home is not None:
        reading.homes[site] = home
    return home


def sum_by_owner(value_ND: Tensor, step: Step, *, squares: bool) -> Tensor:
    """Sum and, if asked, sum of squares of each reading's rows, ``[readings, 1 or 2, D]``."""
    count = len(step.readings)
    if value_ND.is_cuda and value_ND.is_contiguous():
        from actors.kernels.pool import Chunks, pooled_sums  # Triton: GPU only

        if step.chunks is None:
            spans, bounds = plan_chunks(step.bounds)
            device = value_ND.device
            step.chunks = stage(spans, device), stage(bounds, device)
        return pooled_sums(value_ND, step.rows, Chunks(*step.chunks), squares=squares)
    rows = value_ND[step.rows].float()
    out = rows.new_zeros(count, 2 if squares else 1, rows.shape[-1])
    out[:, 0].index_add_(0, step.owner, rows)
    if squares:
        out[:, 1].index_add_(0, step.owner, rows * rows)
    return out
