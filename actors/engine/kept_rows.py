"""Rows that decode steps keep one by one, at fixed addresses until they leave the device."""

from __future__ import annotations

import torch
from torch import Tensor

from actors.engine.fast_state import MAX_RAW_BURST, Features
from actors.engine.homes import Staging
from actors.shares import deal

Key = tuple[tuple[int, ...], bool]
"""Layers that are kept by some rank, and whether they are dealt out among the ranks."""


def key_of(features: Features) -> Key:
    """What decides which rows a graph keeps, and where."""
    return features.keeps, features.shared


class KeptRows:
    """This rank's kept rows, by what is kept."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        max_rows: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._rank, self._world_size = rank, world_size
        self._row_shape = (max_rows, width)
        self._dtype, self._device = dtype, device
        self._rows: dict[Key, Tensor] = {}
        self._staging: dict[Key, Staging] = {}

    def held(self, features: Features) -> tuple[int, ...]:
        """Layers whose rows this rank keeps."""
        if features.shared:
            return deal(features.keeps, self._rank, self._world_size)
        return features.keeps if self._rank == 0 else ()

    def rows(self, features: Features) -> Tensor | None:
        """``[MAX_RAW_BURST, held layers, rows, D]``, written in turn; None when none is kept."""
        if not (held := len(self.held(features))):
            return None
        key = key_of(features)
        if key not in self._rows:
            shape = (MAX_RAW_BURST, held, *self._row_shape)
            self._rows[key] = torch.empty(shape, dtype=self._dtype, device=self._device)
        return self._rows[key]

    def place(self, layer: int, features: Features, step: Tensor) -> tuple[Tensor, Tensor] | None:
        """Where a layer's rows are kept, as ``residual_norm``'s ``keep``."""
        rows, held = self.rows(features), self.held(features)
        if rows is None or layer not in held:
            return None
        return rows[:, held.index(layer)], step

    def staging(self, features: Features) -> Staging:
        """Where kept rows leave from; only where some are kept."""
        key = key_of(features)
        if key not in self._staging:
            size = self._rows[key].numel()
            self._staging[key] = Staging(size, self._dtype, self._device)
        return self._staging[key]

    def forget(self, key: Key) -> None:
        """Give back the memory of one set of layers; nothing may be on its way."""
        self._rows.pop(key, None)
        self._staging.pop(key, None)
