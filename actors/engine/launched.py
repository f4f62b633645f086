"""A general forward that was launched, until its tokens are booked."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engine.batch import Batch
from actors.engine.landing import Landing
from actors.engine.sampler import Sampled


@dataclass(frozen=True, slots=True)
class Launched:
    """Its rows, and the choices that are on their way."""

    batch: Batch
    sampled: Sampled | None
    """None: no row of it chooses a token."""
    coming: list[Landing]
    """``sampled.send()``, started with the forward: later it would wait for the one behind."""

    def on_host(self) -> Sampled | None:
        """The choices, waited for."""
        return Sampled.landed(self.coming) if self.coming else None
