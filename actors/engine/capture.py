"""Every requested row is captured exactly once, in position order, and is finite or named.

Requests that read the same places in the same way form a group, so one gather per place and step
serves them all. Positions below a sequence's watermark were captured before a preemption and are
skipped. What a selector keeps is decided by position alone, so batching cannot change it; selectors
that depend on the final length keep their rows until the sequence ends.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_

import torch
from torch import Tensor

from actors.engine.bank import Bank
from actors.engine.batch import Batch
from actors.engine.gather import keep_rows, sum_by_owner, to_step
from actors.engine.homes import Shelf
from actors.engine.landing import land
from actors.engine.moments import MomentStore
from actors.engine.reading import (
    Reading,
    count_non_finite,
    finish,
    has_come,
    is_known_good,
    make_reading,
    visited_sites,
)
from actors.engine.reading_group import Group, GroupKey, group_key, is_raw
from actors.engine.sequence import Sequence
from actors.engine.sums import add_sums, land_sums
from actors.request import Bundle, Capture, CaptureResult, ClassMoments, Request
from actors.shares import deal


class Capturer:
    """All captures of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        bank: Bank,
        device: torch.device,
        *,
        answers: bool = True,
        share: tuple[int, int] | None = None,
    ) -> None:
        self.answers = answers
        """False: positions are booked, but no value is read except this rank's share of rows."""
        self.share = share
        """(rank, ranks) among which layers of raw rows are dealt out; None: not shared."""
        captures = dict.fromkeys(c for r in bundle.requests for c in r.capture)
        self.shelf = Shelf(device, num_ranks=share[1] if share else 1)
        self.raw_layers = deal([la for c in captures if is_raw(c) for la in c.layers], 0, 1)
        """Every layer of which some request keeps raw rows."""
        self.held_layers: tuple[int, ...] = self.raw_layers if answers else ()
        """Layers whose raw rows this rank keeps, of ``raw_layers``."""
        if share is not None:
            self.held_layers = deal(self.raw_layers, *share)
        self._bank = bank
        self._device = device
        self._readings: dict[str, list[Reading]] = {}
        self._groups: dict[GroupKey, Group] = {}
        self._places: dict[tuple[int, ...], list[int] | None] = {}
        self._moments = MomentStore()
        self._no_rows: dict[str, Tensor] = {}
        """``[0, D]`` of each site seen: the answer of a selector that met no token."""
        self._by_place: dict[tuple[str, int], list[Group]] = {}
        self._sites: set[str] = set()
        for capture in captures:
            self._make(capture)

    def _make(self, capture: Capture) -> Reading:
        reading = make_reading(capture)
        if is_raw(capture) and self.share is not None:
            mine = self.held_layers
            reading.held = tuple(layer for layer in capture.layers if layer in mine)
        reading.group = self._group(reading)
        return reading

    def places(self, reading: Reading) -> list[int] | None:
        """Places of a raw reading's layers among the held ones; None: all, in order."""
        layers = reading.capture.layers if reading.held is None else reading.held
        if layers not in self._places:
            found = [self.held_layers.index(layer) for layer in layers]
            whole = found == list(range(len(self.held_layers)))
            self._places[layers] = None if whole else found
        return self._places[layers]

    def _held(self, key: GroupKey) -> tuple[int, ...]:
        """Layers of a group that this rank reads, in the group's order."""
        if not key[6]:
            return key[0] if self.answers else ()
        return tuple(layer for layer in key[0] if layer in self.held_layers)

    def _looked_at(self, key: GroupKey) -> tuple[int, ...]:
        """The layer at which each rank looks whether kept rows are finite.

        What is not finite at a layer stays so above it: the highest one tells of those below, and
        of those that other ranks keep.
        """
        is_looked_at = not key[5] and (self._device.type == "cuda" or self.share is not None)
        return (max(key[0]),) if is_looked_at and (key[6] or self.answers) else ()

    def _group(self, reading: Reading) -> Group:
        """The group of a reading, made for the first one."""
        key = group_key(reading)
        if key in self._groups:
            return self._groups[key]
        _, sites, reduction, bank, moments_key, streams, raw = key
        held = self._held(key)
        group = Group(
            reduction, bank, moments_key, streams, held, self._looked_at(key),
            is_read=bool(held) or (raw and self.share is not None),
        )  # fmt: skip
        self._groups[key] = group
        for site in sites:
            self._sites.add(site)
            for layer in dict.fromkeys((*held, *group.looked_at)):
                self._by_place.setdefault((site, layer), []).append(group)
        return group

    def readings(self, request: Request) -> Sequence_[Reading]:
        """The request's captures; made when first asked for, gone with its results."""
        if not request.capture:
            return ()
        found = self._readings.get(request.id)
        if found is None:
            found = self._readings[request.id] = [self._make(c) for c in request.capture]
            longest = len(request.token_ids) + request.sampling.max_new_tokens
            for reading in found:
                reading.positions_at_most = reading.selector.readable(
                    0, longest, request.prompt_length
                )
        return found

    def reads_any(self, request: Request, start: int, stop: int) -> bool:
        """True when some capture of the request may select a position in ``[start, stop)``."""
        readings = self.readings(request)
        return any(r.selector.readable(start, stop, request.prompt_length) for r in readings)

    def may_read(self, request: Request, position: int) -> bool:
        """True when some capture of the request may select the position."""
        readings = self.readings(request)
        return any(r.selector.may_read(position, request.prompt_length) for r in readings)

    def wants(self, site: str) -> bool:
        """True when any capture of the bundle reads the site."""
        return site in self._sites

    def begin(self, batch: Batch) -> None:
        """Find the rows that each group reads in this forward."""
        collected: dict[Group | None, tuple[list[tuple[Reading, int, int]], list[int]]] = {}
        first_row = 0
        for span in batch.spans:
            sequence = span.sequence
            fresh = max(span.start, sequence.num_captured)
            for reading in self.readings(sequence.request):
                length = sequence.request.prompt_length
                wanted = reading.selector.readable(fresh, span.stop, length)
                if not wanted:
                    continue
                readings, first_rows = collected.setdefault(reading.group, ([], []))
                first = readings[-1][2] if readings else 0
                readings.append((reading, first, first + len(wanted)))
                first_rows.append(first_row - span.start + wanted.start)
                reading.book(wanted)
            first_row += span.stop - span.start
        for group in self._groups.values():
            found = collected.get(group)
            group.step = to_step(*found, self._device) if found and group.is_read else None

    def visit(self, site: str, layer: int, value_ND: Tensor) -> None:
        """Read a place of the current forward; ``value_ND`` is not changed."""
        groups = self._by_place.get((site, layer), ())
        if groups and site not in self._no_rows:
            self._no_rows[site] = value_ND.new_empty((0, value_ND.shape[-1]))
        for group in groups:
            step, reduction = group.step, group.reduction
            if step is None:
                continue
            rows = value_ND if group.pools else value_ND[step.rows]
            if layer in group.looked_at:
                finite = rows.isfinite().all(dim=-1)
                step.good = finite if step.good is None else step.good & finite
            if layer not in group.held:
                continue
            if reduction == "projection":
                bank = self._bank.vectors_VD[[self._bank.slot_of[k] for k in group.bank]]
                rows = rows.float() @ bank.T
            elif reduction == "moments":
                finite = self._moments.add(group.moments_key, layer, site, rows)
                step.good = finite if step.good is None else step.good & finite
                continue
            elif group.pools:
                squares = reduction == "sum"
                rows = sum_by_owner(value_ND, step, squares=squares)
            step.taken.setdefault(site, {})[layer] = rows

    def end(self) -> None:
        """Hand the forward's rows to their readings."""
        for group in self._groups.values():
            step, group.step = group.step, None
            if step is None:
                continue
            if step.good is not None and (self.share is not None or group.reduction == "moments"):
                landing = land(step.good)
                for reading, first, last in step.readings:
                    reading.checks.append((landing, first, last))
            for site, by_layer in step.taken.items():
                # Layers pass in the model's order; a capture may name them in another.
                block = torch.stack([by_layer[layer] for layer in group.held])
                if group.streams:
                    add_sums([reading for reading, _, _ in step.readings], site, block)
                else:
                    keep_rows(block, site, step.readings, step.good, self.shelf)

    def settle(self, sequences: Sequence_[Sequence]) -> None:
        """Start to bring ended sequences' means and sums to the host, one copy per shape."""
        if self._device.type != "cuda":
            return  # they are on the host
        kinds: dict[tuple[bool, tuple[int, ...]], list[tuple[Reading, str]]] = {}
        for sequence in sequences:
            for reading in self.readings(sequence.request):
                is_mean = reading.capture.reduction == "mean"
                for site, (sums, _) in reading.sums.items():
                    kinds.setdefault((is_mean, sums.kind), []).append((reading, site))
        for (is_mean, _), found in kinds.items():
            land_sums(found, is_mean=is_mean)

    def keeps_rows(self, sequence: Sequence) -> bool:
        """True when the sequence's captures keep rows that have to be put together."""
        readings = self.readings(sequence.request)
        return any(site not in r.homes for r in readings for site in r.pieces)

    def has_come(self, sequence: Sequence) -> bool:
        """True when an ended sequence's captures are all on the host."""
        return all(has_come(reading) for reading in self.readings(sequence.request))

    def results(self, sequence: Sequence) -> tuple[tuple[CaptureResult, ...], int]:
        """A finished sequence's captures and how many of their values are not finite."""
        found, bad = [], 0
        readings = self.readings(sequence.request)
        self._readings.pop(sequence.request.id, None)
        for reading in readings:
            self._fill_absent(reading)
            known_good = is_known_good(reading)
            result = finish(reading, sequence)
            bad += reading.num_non_finite
            if len(result.positions) and not known_good:
                for array in result.values.values():
                    bad += count_non_finite(array, result.dtype)
            found.append(result)
        return tuple(found), bad

    def _fill_absent(self, reading: Reading) -> None:
        """Take sums that lie here, and give a selector that met no token its empty rows."""
        capture = reading.capture
        if capture.reduction == "moments" or reading.group is None or not reading.group.held:
            return
        layers = len(capture.layers if reading.held is None else reading.held)
        for site, (sums, place) in reading.sums.items():
            reading.total[site] = sums.block[:, place].cpu()
        for site in visited_sites(capture):
            if site in reading.pieces or site in reading.total:
                continue
            like = self._no_rows.get(site, self._bank.vectors_VD[:0]).cpu()
            if reading.streams:
                reading.total[site] = torch.zeros(layers, 2, like.shape[-1])
            elif capture.reduction == "projection":
                keep_rows(torch.zeros(layers, 0, len(capture.bank)), site, [(reading, 0, 0)])
            else:
                keep_rows(like[None].expand(layers, -1, -1), site, [(reading, 0, 0)])

    def moments(self) -> tuple[ClassMoments, ...]:
        """Running class moments of the bundle."""
        return self._moments.export()
