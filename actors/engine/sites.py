"""What happens at the named places of one forward: rows are steered first, then read."""

from __future__ import annotations

import torch

from actors.engine.bank import Bank
from actors.engine.capture import Capturer
from actors.engine.steer import Round, apply_round, fuse_rounds


class StepSites:
    """Steers, then captures, at the places of one forward of ``num_rows`` rows."""

    def __init__(
        self,
        rounds: dict[tuple[str, int], list[Round]],
        bank: Bank,
        capturer: Capturer,
        num_rows: int,
    ) -> None:
        self._rounds = rounds
        self._bank = bank
        self._capturer = capturer
        self._num_rows = num_rows
        self._fused: dict[tuple[str, int], tuple[torch.Tensor, ...]] | None = None

    def wants(self, site: str) -> bool:
        """True when some capture reads the site."""
        return self._capturer.wants(site)

    def changes(self, site: str, layer: int) -> bool:
        """True when a row of this forward is steered at the place."""
        return (site, layer) in self._rounds

    def fused(self, site: str, layer: int) -> tuple[torch.Tensor, ...] | None:
        """The place's steering for the fused residual kernel; None when it takes several rounds."""
        if self._fused is None:
            self._fused = fuse_rounds(self._rounds, self._bank, self._num_rows)
        return self._fused.get((site, layer))

    def read(self, site: str, layer: int, value_ND: torch.Tensor) -> None:
        """Read the captured rows of a value that is steered already."""
        self._capturer.visit(site, layer, value_ND)

    def visit(self, site: str, layer: int, value_ND: torch.Tensor) -> None:
        """Change the steered rows in place, then read the captured ones."""
        for batch_round in self._rounds.get((site, layer), ()):
            apply_round(value_ND, batch_round, self._bank)
        self._capturer.visit(site, layer, value_ND)
