"""Every requested row is captured exactly once, in position order, and is finite or named.

Requests that read the same places in the same way form a group, so one gather per place and step
serves them all. Positions below a sequence's watermark were captured before a preemption and are
skipped. What a selector keeps is decided by position alone, so batching cannot change it; selectors
that depend on the final length keep their rows until the sequence ends.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.batch import Batch
from actors.engine.moments import MomentStore
from actors.engine.reading import (
    Reading,
    count_non_finite,
    finish,
    make_reading,
    visited_sites,
)
from actors.engine.scheduler import Sequence
from actors.engine.steer import Bank
from actors.request import Bundle, CaptureResult, ClassMoments, Request


@dataclass(slots=True)
class _Step:
    """One group's rows in the current forward."""

    readings: list[tuple[Reading, int, int]]
    """(reading, first, last) into ``rows``."""
    rows: Tensor
    owner: Tensor
    """int64: index into ``readings`` of each row."""
    bounds: Tensor
    """int32 ``[readings + 1]``: each reading's run of ``rows``."""
    longest: int
    """Rows of the longest run."""
    taken: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """Site -> layer -> what was read there."""


_GroupKey = tuple[tuple[int, ...], tuple[str, ...], str, tuple[str, ...], str, bool]


class Capturer:
    """All captures of one bundle."""

    def __init__(
        self, bundle: Bundle, bank: Bank, device: torch.device, *, answers: bool = True
    ) -> None:
        self.answers = answers
        """False: positions are booked and kept rows are read, but pooled values are not."""
        self._bank = bank
        self._device = device
        self._readings: dict[str, list[Reading]] = {}
        self._groups: dict[_GroupKey, _Step | None] = {}
        self._moments = MomentStore()
        self._no_rows: dict[str, Tensor] = {}
        """``[0, D]`` of each site seen: the answer of a selector that met no token."""
        for request in bundle.requests:
            if request.capture:
                self._readings[request.id] = [make_reading(c) for c in request.capture]
        self._by_place: dict[tuple[str, int], list[_GroupKey]] = {}
        self._sites: set[str] = set()
        for readings in self._readings.values():
            for reading in readings:
                self._add_group(reading)

    def _add_group(self, reading: Reading) -> None:
        key = _group_key(reading)
        if key in self._groups:
            return
        self._groups[key] = None
        for site in key[1]:
            self._sites.add(site)
            for layer in dict.fromkeys(key[0]):
                self._by_place.setdefault((site, layer), []).append(key)

    def readings(self, request: Request) -> Sequence_[Reading]:
        """The request's captures while it runs."""
        return self._readings.get(request.id, ())

    def reads_any(self, request: Request, start: int, stop: int) -> bool:
        """True when some capture of the request may select a position in ``[start, stop)``."""
        readings = self._readings.get(request.id, ())
        return any(r.selector.readable(start, stop, request.prompt_length) for r in readings)

    def may_read(self, request: Request, position: int) -> bool:
        """True when some capture of the request may select the position."""
        readings = self._readings.get(request.id, ())
        return any(r.selector.may_read(position, request.prompt_length) for r in readings)

    def wants(self, site: str) -> bool:
        """True when any capture of the bundle reads the site."""
        return site in self._sites

    def begin(self, batch: Batch) -> None:
        """Find the rows that each group reads in this forward."""
        collected: dict[_GroupKey, tuple[list[tuple[Reading, int, int]], list[NDArray[Any]]]] = {}
        first_row = 0
        for span in batch.spans:
            sequence = span.sequence
            fresh = max(span.start, sequence.num_captured)
            for reading in self._readings.get(sequence.request.id, ()):
                length = sequence.request.prompt_length
                wanted = reading.selector.readable(fresh, span.stop, length)
                if not wanted:
                    continue
                readings, rows = collected.setdefault(_group_key(reading), ([], []))
                first = readings[-1][2] if readings else 0
                readings.append((reading, first, first + len(wanted)))
                base = first_row - span.start
                rows.append(np.arange(base + wanted.start, base + wanted.stop))
                reading.positions.extend(wanted)
            first_row += span.stop - span.start
        for key in self._groups:
            found = collected.get(key)
            is_read = self.answers or not key[5]
            self._groups[key] = _to_step(*found, self._device) if found and is_read else None

    def visit(self, site: str, layer: int, value_ND: Tensor) -> None:
        """Read a place of the current forward; ``value_ND`` is not changed."""
        keys = self._by_place.get((site, layer), ())
        if keys and site not in self._no_rows:
            self._no_rows[site] = value_ND.new_empty((0, value_ND.shape[-1]))
        for key in keys:
            step = self._groups[key]
            if step is None:
                continue
            reduction, streams = key[2], key[5]
            pools = streams and reduction != "moments"
            rows = value_ND if pools else value_ND[step.rows]
            if reduction == "projection":
                bank = self._bank.vectors_VD[[self._bank.slot_of[k] for k in key[3]]]
                rows = rows.float() @ bank.T
            elif reduction == "moments":
                bad = self._moments.add(key[4], layer, site, rows)
                for owner in step.owner[bad].tolist():
                    step.readings[owner][0].num_non_finite += 1
                continue
            elif pools:
                squares = reduction == "sum"
                rows = _sum_by_owner(value_ND, step, squares=squares)
            step.taken.setdefault(site, {})[layer] = rows

    def end(self) -> None:
        """Hand the forward's rows to their readings."""
        for key, step in self._groups.items():
            if step is None:
                continue
            for site, by_layer in step.taken.items():
                # Layers pass in the model's order; a capture may name them in another.
                block = torch.stack([by_layer[layer] for layer in key[0]])
                block = block if key[5] else block.cpu()
                for number, (reading, first, last) in enumerate(step.readings):
                    if key[5]:
                        part = block[:, number]
                        old = reading.total.get(site)
                        reading.total[site] = part if old is None else old + part
                    else:
                        reading.pieces.setdefault(site, []).append(block[:, first:last])
            self._groups[key] = None

    def settle(self, sequences: Sequence_[Sequence]) -> None:
        """Bring ended sequences' pooled sums to the host in one copy per shape."""
        shapes: dict[tuple[int, ...], list[tuple[Reading, str]]] = {}
        for sequence in sequences:
            for reading in self.readings(sequence.request):
                for site, total in reading.total.items():
                    if total.is_cuda:
                        shapes.setdefault(tuple(total.shape), []).append((reading, site))
        for found in shapes.values():
            stacked = torch.stack([reading.total[site] for reading, site in found])
            finite = stacked.isfinite().flatten(1).all(dim=1).tolist()
            for (reading, site), total, good in zip(found, stacked.cpu(), finite, strict=True):
                reading.total[site] = total
                reading.is_finite = reading.is_finite and good
                reading.was_checked = True

    def results(self, sequence: Sequence) -> tuple[tuple[CaptureResult, ...], int]:
        """A finished sequence's captures and how many of their values are not finite."""
        found, bad = [], 0
        readings = self._readings.pop(sequence.request.id, ())
        for reading in readings:
            self._fill_absent(reading)
            result = finish(reading, sequence)
            bad += reading.num_non_finite
            if len(result.positions) and not (reading.was_checked and reading.is_finite):
                for array in result.values.values():
                    bad += count_non_finite(array, result.dtype)
            found.append(result)
        return tuple(found), bad

    def _fill_absent(self, reading: Reading) -> None:
        """Give a selector that met no token its empty rows."""
        capture = reading.capture
        if capture.reduction == "moments":
            return
        layers = len(capture.layers)
        for site in visited_sites(capture):
            if site in reading.pieces or site in reading.total:
                continue
            like = self._no_rows.get(site, self._bank.vectors_VD[:0]).cpu()
            if reading.streams:
                reading.total[site] = torch.zeros(layers, 2, like.shape[-1])
            elif capture.reduction == "projection":
                reading.pieces[site] = [torch.zeros(layers, 0, len(capture.bank))]
            else:
                reading.pieces[site] = [like[None].expand(layers, -1, -1)]

    def moments(self) -> tuple[ClassMoments, ...]:
        """Running class moments of the bundle."""
        return self._moments.export()


def _to_step(
    readings: list[tuple[Reading, int, int]], rows: list[NDArray[Any]], device: torch.device
) -> _Step:
    bounds = np.asarray([0, *(last for _, _, last in readings)], dtype=np.int32)
    owner = np.repeat(np.arange(len(readings)), np.diff(bounds))
    return _Step(
        readings,
        torch.from_numpy(np.concatenate(rows)).to(device),
        torch.from_numpy(owner).to(device),
        torch.from_numpy(bounds).to(device),
        longest=int(np.diff(bounds).max(initial=0)),
    )


def _group_key(reading: Reading) -> _GroupKey:
    c = reading.capture
    # An open selector keeps raw rows whatever the reduction; projections are cheap to keep.
    reduction = c.reduction if reading.streams or c.reduction == "projection" else "none"
    return (c.layers, visited_sites(c), reduction, c.bank, c.moments_key, reading.streams)


def _sum_by_owner(value_ND: Tensor, step: _Step, *, squares: bool) -> Tensor:
    """Sum and, if asked, sum of squares of each reading's rows, ``[readings, 1 or 2, D]``."""
    count = len(step.readings)
    if value_ND.is_cuda and value_ND.is_contiguous():
        from actors.kernels.pool import pooled_sums  # Triton: GPU only

        return pooled_sums(value_ND, step.rows, step.bounds, longest=step.longest, squares=squares)
    rows = value_ND[step.rows].float()
    out = rows.new_zeros(count, 2 if squares else 1, rows.shape[-1])
    out[:, 0].index_add_(0, step.owner, rows)
    if squares:
        out[:, 1].index_add_(0, step.owner, rows * rows)
    return out
