"""When it is worth a forward of the general kind to let waiting requests in."""

from __future__ import annotations

from dataclasses import dataclass

ADMISSION_STEPS = 8
"""Decode steps that a forward for an admission costs, about: its kernels are launched one by one.
As long as empty places have cost less, waiting for more of them is cheaper (the ski-rental rule:
at most twice the cost of knowing the future)."""


@dataclass(slots=True)
class Patience:
    """What places that stand empty have cost since the last general forward."""

    most: int = 0
    """Sequences that it left running."""
    is_cut: bool = False
    """It was full of prompts before the places and pages were: more would have come in."""
    idle_rows: int = 0
    """Rows of sequences that ended since, over all decode steps."""

    def begin(self, running: int, *, is_cut: bool) -> None:
        """A general forward is planned, with as many sequences running."""
        self.most, self.is_cut, self.idle_rows = running, is_cut, 0

    def note_steps(self, num_steps: int, running: int) -> None:
        """Book decode steps that ran without an admission."""
        self.idle_rows += num_steps * (self.most - running)

    @property
    def is_over(self) -> bool:
        """True when letting in is worth it, were it one request."""
        return self.is_cut or self.idle_rows >= ADMISSION_STEPS * self.most
