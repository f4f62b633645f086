"""Readings that read the same places in the same way: one gather per place serves them all."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engine.gather import Step
from actors.engine.reading import Reading, visited_sites
from actors.request import Capture

GroupKey = tuple[tuple[int, ...], tuple[str, ...], str, tuple[str, ...], str, bool, bool]
"""layers, sites, reduction, bank, moments key, streams, raw."""


@dataclass(slots=True, eq=False)
class Group:
    """Readings that are read together."""

    reduction: str
    bank: tuple[str, ...]
    moments_key: str
    streams: bool
    held: tuple[int, ...]
    """Layers that this rank reads, in the captures' order."""
    looked_at: tuple[int, ...]
    """The layer at which it looks whether kept rows are finite."""
    is_read: bool
    step: Step | None = None
    """Rows in the current forward."""

    @property
    def pools(self) -> bool:
        """True when rows are summed without being taken out."""
        return self.streams and self.reduction != "moments"


def is_raw(capture: Capture) -> bool:
    """True when a capture keeps every row."""
    return capture.reduction == "none"


def group_key(reading: Reading) -> GroupKey:
    """What decides which readings are read together."""
    c = reading.capture
    # An open selector keeps raw rows whatever the reduction; projections are cheap to keep.
    reduction = c.reduction if reading.streams or c.reduction == "projection" else "none"
    streams = reading.streams
    return (c.layers, visited_sites(c), reduction, c.bank, c.moments_key, streams, is_raw(c))
