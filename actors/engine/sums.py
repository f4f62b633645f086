"""Streamed sums of many readings lie in one tensor, so that a step adds to all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from actors.engine.landing import land
from actors.engine.staging import stage

if TYPE_CHECKING:
    from actors.engine.reading import Reading


@dataclass(slots=True, eq=False)
class Sums:
    """Sums of several readings at one site."""

    block: Tensor
    """float32 ``[layers, readings, S, D]``; S is 1 (sum) or 2 (sum, sum of squares)."""
    kind: tuple[int, ...] = field(init=False)
    """``(layers, S, D)``: sums of one kind land together."""

    def __post_init__(self) -> None:
        layers, _, *rest = self.block.shape
        self.kind = (layers, *rest)


def add_sums(readings: Sequence[Reading], site: str, block: Tensor) -> None:
    """Add ``block[:, i]`` to what reading i has summed at the site so far.

    Args:
        readings: Each once, all of the same layers.
        site: Where the rows were read.
        block: float32 ``[layers, readings, S, D]``; taken over, and changed.
    """
    fresh = Sums(block)
    before: dict[int, tuple[Sums, list[int], list[int]]] = {}
    for number, reading in enumerate(readings):
        found = reading.sums.get(site)
        if found is not None:
            old, place = found
            _, here, there = before.setdefault(id(old), (old, [], []))
            here.append(number)
            there.append(place)
        reading.sums[site] = (fresh, number)
    for old, here, there in before.values():
        if here == there and old.block.shape == block.shape and len(here) == block.shape[1]:
            block += old.block
        else:
            block.index_add_(
                1, _index(here, block), old.block.index_select(1, _index(there, block))
            )


def gather_sums(places: Sequence[tuple[Sums, int]]) -> Tensor:
    """Sums of several readings, ``[readings, layers, S, D]``, in a tensor of their own."""
    first = places[0][0].block
    layers, _, kinds, width = first.shape
    out = first.new_empty(len(places), layers, kinds, width)
    by_block: dict[int, tuple[Sums, list[int], list[int]]] = {}
    for number, (sums, place) in enumerate(places):
        _, here, there = by_block.setdefault(id(sums), (sums, [], []))
        here.append(number)
        there.append(place)
    for sums, here, there in by_block.values():
        part = sums.block.index_select(1, _index(there, out)).transpose(0, 1)
        if len(here) == len(places):
            out.copy_(part)
        else:
            out.index_copy_(0, _index(here, out), part)
    return out


def land_sums(found: Sequence[tuple[Reading, str]], *, is_mean: bool) -> None:
    """Start to bring sums of one shape to the host in one copy; means are divided before."""
    whole = gather_sums([reading.sums[site] for reading, site in found])
    good = whole.isfinite().flatten(1).all(dim=1)
    if is_mean:
        counts = np.array([len(r.positions) or np.nan for r, _ in found], np.float32)
        whole /= stage(counts, whole.device)[:, None, None, None]
    landing = land(whole, good)
    for number, ((reading, site), total) in enumerate(zip(found, landing.host, strict=True)):
        reading.total[site] = total
        reading.landed[site] = (landing, number)
        del reading.sums[site]


def _index(numbers: list[int], like: Tensor) -> Tensor:
    return stage(np.asarray(numbers, dtype=np.int64), like.device)


def zero_slots(totals_LSD: Tensor, slots: Sequence[int]) -> None:
    """Set the sums of some slots to zero, at all layers at once."""
    if slots:
        totals_LSD.index_fill_(1, _index(list(slots), totals_LSD), 0.0)


def take_slots(
    totals_LSD: Tensor, slots: Sequence[int], readings: Sequence[Reading], site: str
) -> None:
    """Add the sums of slots to their readings', and leave the slots as they are.

    Args:
        totals_LSD: float32, of every layer of the model.
        slots: One of each reading.
        readings: Whose sums they are.
        site: Where they were summed.
    """
    by_layers: dict[tuple[int, ...], tuple[list[int], list[Reading]]] = {}
    for slot, reading in zip(slots, readings, strict=True):
        mine = by_layers.setdefault(reading.capture.layers, ([], []))
        mine[0].append(slot)
        mine[1].append(reading)
    for layers, (places, owners) in by_layers.items():
        block = totals_LSD.index_select(1, _index(places, totals_LSD))  # a copy
        if layers != tuple(range(totals_LSD.shape[0])):
            block = block.index_select(0, _index(list(layers), totals_LSD))
        add_sums(owners, site, block[:, :, None])
