"""What one capture of one request keeps while it runs, and the result that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from actors.engine.homes import Home
from actors.engine.landing import Landing, Piece
from actors.engine.positions import Selector, parse_tokens
from actors.engine.sequence import Sequence
from actors.engine.sums import Sums
from actors.request import Capture, CaptureResult

if TYPE_CHECKING:
    from actors.engine.reading_group import Group

ROUTER_SITES = ("router", "router_weights", "router_experts")


def visited_sites(capture: Capture) -> tuple[str, ...]:
    """Places that the forward offers for a capture's sites (a router is three arrays)."""
    return _visited(capture.sites)


@cache
def _visited(sites: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for site in sites:
        found.extend(ROUTER_SITES if site == "router" else (site,))
    return tuple(dict.fromkeys(found))


@dataclass(slots=True)
class Reading:
    """One capture of one request while it runs."""

    capture: Capture
    selector: Selector
    streams: bool
    """True: reduced as rows come. False: rows are kept until the sequence ends."""
    group: Group | None = None
    """The readings that it is read with."""
    positions: range = range(0)
    """Those that were read; a selector is an interval, and every row of it is read in turn."""
    held: tuple[int, ...] | None = None
    """Layers whose rows this rank keeps; None: all."""
    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    """Kept rows: site -> chunks ``[held layers, n, D]``."""
    homes: dict[str, Home] = field(default_factory=dict)
    """Where kept rows lie that went straight there: site -> home. Its pieces only say when."""
    positions_at_most: range = range(0)
    """Positions that may be read, all in all."""
    sums: dict[str, tuple[Sums, int]] = field(default_factory=dict)
    """Streamed sums on the device: site -> where they lie; (sum) for means, (sum, sum of squares)
    for sums."""
    total: dict[str, Tensor] = field(default_factory=dict)
    """The ended sequence's sums on the host, or on their way: ``[L, 1 or 2, D]``; means are divided
    already where they have landed."""
    landed: dict[str, tuple[Landing, int]] = field(default_factory=dict)
    """Where a streamed sum, or the mean made of it, lands, and its place there."""
    checks: list[tuple[Landing, int, int]] = field(default_factory=list)
    """Runs of flags: whether rows were finite at the last layer."""
    num_non_finite: int = 0

    def book(self, wanted: range) -> None:
        """Note that positions behind those so far are read."""
        first = self.positions.start if self.positions else wanted.start
        assert not self.positions or self.positions.stop == wanted.start
        self.positions = range(first, wanted.stop)


def has_come(reading: Reading) -> bool:
    """True when ``finish`` would wait for no copy."""
    copies = [p.landing for pieces in reading.pieces.values() for p in pieces]
    copies += [landing for landing, _ in reading.landed.values()]
    copies += [landing for landing, _, _ in reading.checks]
    return all(landing.has_come for landing in copies)


def is_known_good(reading: Reading) -> bool:
    """Wait for what the reading keeps; True when the device found all of it finite.

    Rows that were not finite where another rank keeps them are counted here.
    """
    for landing, first, last in reading.checks:
        landing.wait()
        reading.num_non_finite += int((~landing.host[first:last]).sum())
    for landing, _ in reading.landed.values():
        landing.wait()
    sums = [
        la.is_all_good or bool(la.good[i])
        for la, i in reading.landed.values()
        if la.good is not None
    ]
    pieces = [piece.is_good() for found in reading.pieces.values() for piece in found]
    looked = len(reading.landed) == len(reading.total)
    return bool(sums or pieces) and looked and all(sums) and all(pieces)


def make_reading(capture: Capture) -> Reading:
    """A reading that has seen nothing yet."""
    selector = parse_tokens(capture.tokens)
    streams = capture.reduction in ("mean", "sum") and not selector.is_open
    return Reading(capture, selector, streams or capture.reduction == "moments")


def finish(reading: Reading, sequence: Sequence) -> CaptureResult:
    """Reduce what was kept; a mean of no rows is NaN, for it has no value."""
    capture, values, dtype = reading.capture, {}, "float32"
    if reading.streams:
        booked = reading.positions
        positions = np.arange(booked.start, booked.stop, dtype=np.int32)
        for site, total in reading.total.items():
            if site in reading.landed and capture.reduction == "mean":
                values[site] = total.numpy()[:, 0]  # divided on the device
            else:
                values[site] = _reduced(total, len(positions), capture)
    else:
        chosen = reading.selector.resolve(sequence.request.prompt_length, len(sequence.tokens))
        keep = [i for i, p in enumerate(reading.positions) if p in chosen]
        positions = np.asarray([reading.positions[i] for i in keep], dtype=np.int32)
        for site, pieces in reading.pieces.items():
            home = reading.homes.get(site)
            block = _joined(pieces) if home is None else home.host[:, : len(reading.positions)]
            if len(keep) < block.shape[1]:
                block = block[:, keep]
            if capture.reduction in ("mean", "sum"):
                block = block.float()
                sums = torch.stack((block.sum(1), (block * block).sum(1)), dim=1)
                values[site] = _reduced(sums, len(keep), capture)
            elif block.dtype == torch.bfloat16:
                dtype = "bfloat16"
                values[site] = block.view(torch.int16).numpy().view(np.uint16)
            else:
                values[site] = _plain(block)
    return CaptureResult(
        layers=capture.layers,
        tokens=capture.tokens,
        reduction=capture.reduction,
        positions=positions,
        values=values,
        dtype=dtype,
        held=reading.held,
    )


def _joined(pieces: list[Piece]) -> Tensor:
    """All pieces in one tensor of its own.

    Numpy copies: on the calling thread alone and without the GIL. Torch would start its own threads
    under each of those that put results together.
    """
    parts = [piece.rows() for piece in pieces]
    kind = parts[0].dtype
    # numpy knows no bfloat16; bits are bits.
    plain = [p.view(torch.int16).numpy() if kind == torch.bfloat16 else p.numpy() for p in parts]
    like = plain[0]
    shape = (like.shape[0], sum(part.shape[1] for part in plain), like.shape[2])
    whole, first = np.empty(shape, dtype=like.dtype), 0
    for part in plain:
        whole[:, first : first + part.shape[1]] = part
        first += part.shape[1]
    return torch.from_numpy(whole).view(kind)


def _reduced(sums_L2D: Tensor, count: int, capture: Capture) -> np.ndarray:
    if capture.reduction == "sum":
        return sums_L2D.cpu().numpy()
    return (sums_L2D[:, 0] / (count or float("nan"))).cpu().numpy()


def _plain(block: Tensor) -> np.ndarray:
    """Expert ids as int32, anything else as it is."""
    return (block if block.is_floating_point() else block.int()).numpy()


def count_non_finite(array: np.ndarray, dtype: str) -> int:
    """Values of a result that are infinite or not a number."""
    if dtype == "bfloat16" and array.dtype == np.uint16:
        return int(np.count_nonzero((array & 0x7F80) == 0x7F80))
    if array.dtype.kind != "f":
        return 0
    return int(array.size - np.count_nonzero(np.isfinite(array)))
