"""Everything a decode step reads or writes besides weights and cache, at fixed addresses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from actors.engine.history import Outbox

MAX_EOS = 8
MAX_BURST = 32
OVERRUN = 2 * MAX_BURST
"""Steps that a row may run on after its end: those of its last burst and of the one behind."""
MAX_RAW_BURST = 8
"""Steps whose raw rows wait on the device before they leave for the host."""
BANK_SLOTS = 1024
REACHES = (256, 2048)
"""Context lengths up to which one split, and a few splits, serve best."""


class Features(NamedTuple):
    """What is built into a graph besides its batch size; the same on every rank."""

    steers: bool = False
    captures: bool = False
    reach: int = 2
    """Class of the longest context, from ``reach_of``."""
    keeps: tuple[int, ...] = ()
    """Layers whose rows are kept one by one, by some rank."""
    shared: bool = False
    """True: kept layers are dealt out among the ranks. False: rank 0 keeps them all."""


def reach_of(length: int) -> int:
    """Class of a context length: 0, 1 or 2; a captured graph serves one class."""
    return sum(length > limit for limit in REACHES)


def batch_sizes(largest: int) -> list[int]:
    """Rows that graphs are captured for: finely where a row costs, coarsely above."""
    sizes = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256]
    while sizes[-1] < largest:
        sizes.append(sizes[-1] + 64)
    return [s for s in sizes if s <= largest] or [largest]


class DecodeState:
    """Static buffers of one rank's decode graphs, by row; B rows at most.

    ``live``: 2 while a sequence runs, 1 when only its last token's own row is still to be run, 0
    for idle rows and those that are over. ``totals`` are pooled sums by slot; a sequence keeps its
    slot when its row moves.
    """

    def __init__(
        self, *, num_layers: int, max_rows: int, max_pages: int, width: int, device: torch.device
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.max_rows = max_rows
        self.max_pages = max_pages
        self.tokens = zeros(max_rows, dtype=torch.int64)
        self.positions = zeros(max_rows)
        self.pages = zeros(max_rows, max_pages)
        self.keys = zeros(max_rows, dtype=torch.int64)
        self.temperatures = zeros(max_rows, dtype=torch.float32)
        self.eos = zeros(max_rows, MAX_EOS)
        self.left = zeros(max_rows)
        self.live = zeros(max_rows)
        self.history = zeros(MAX_BURST, max_rows)
        self.outbox = Outbox(self.history)
        self.step = zeros(1, dtype=torch.int64)
        self.bank = zeros(BANK_SLOTS, width, dtype=torch.float32)
        self.units = zeros(BANK_SLOTS, width, dtype=torch.float32)
        self.steer_slots = zeros(num_layers, max_rows)
        self.steer_kinds = zeros(num_layers, max_rows)
        self.steer_coefficients = zeros(num_layers, max_rows, dtype=torch.float32)
        self.totals = zeros(num_layers, max_rows, width, dtype=torch.float32)
        self.row_slots = zeros(max_rows)
        self.read_first = zeros(max_rows)
        self.read_stop = zeros(max_rows)

    def clear(self) -> None:
        """Make every row idle; pooled sums stay."""
        for tensor in (
            self.tokens, self.positions, self.pages, self.keys, self.temperatures, self.eos,
            self.left, self.live, self.step, self.steer_slots, self.steer_coefficients,
            self.read_first, self.read_stop,
        ):  # fmt: skip
            tensor.zero_()

    def steering(self, layer: int, rows: int) -> tuple[Tensor, ...]:
        """Arguments of ``residual_norm``'s ``steer`` for one layer."""
        return (
            self.bank, self.units, self.steer_slots[layer, :rows], self.steer_kinds[layer, :rows],
            self.steer_coefficients[layer, :rows],
        )  # fmt: skip

    def capturing(self, layer: int, rows: int) -> tuple[Tensor, ...]:
        """Arguments of ``residual_norm``'s ``capture`` for one layer."""
        return (
            self.totals[layer], self.row_slots[:rows], self.positions[:rows],
            self.read_first[:rows], self.read_stop[:rows], self.live[:rows],
        )  # fmt: skip
