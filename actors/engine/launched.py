"""A general forward that was launched, until its tokens are booked."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engine.batch import Batch
from actors.engine.landing import Landing
from actors.engine.sampler import Sampled


@dataclass(frozen=True, slots=True)
class Launched:
    """Its rows, and the tokens that are on their way."""

    batch: Batch
    sampled: Sampled | None
    """None: no row of it chooses a token."""
    coming: Landing | None
    """int64 ``[B]``, the chosen tokens."""
    logprobs: list[Landing]
    """Of those that ask; started with the tokens, or they would wait for the forward behind."""

    def tokens(self) -> list[int]:
        """The chosen tokens, waited for."""
        if self.coming is None:
            return []
        self.coming.wait()
        found: list[int] = self.coming.host.tolist()
        return found
