"""A burst's tokens on their way to the host, while the next burst may run already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Arrival:
    """Tokens of one burst, ``[steps, rows]``."""

    _host: Tensor
    _event: Any

    def wait(self) -> NDArray[np.int32]:
        """The tokens, once the device has come so far; to be asked before the next but one."""
        if self._event is not None:
            self._event.synchronize()
        found: NDArray[np.int32] = self._host.numpy().copy()
        return found


class Outbox:
    """Two places on the host for the tokens of bursts, used in turn.

    They outlive a bundle: a burst whose rows had all ended by the one before is never waited for,
    and memory that its kernel still writes to must not be given to anybody else.
    """

    def __init__(self, history_SB: Tensor) -> None:
        """Args: ``history_SB`` is the device's int32 ``[steps, rows]``, overwritten by bursts."""
        self._history_SB = history_SB
        pinned = history_SB.is_cuda
        size = history_SB.numel()
        self._places = [torch.zeros(size, dtype=torch.int32, pin_memory=pinned) for _ in range(2)]

    def send(self, steps: int, rows: int) -> Arrival:
        """Start to bring the newest burst's tokens; the next burst may be launched at once."""
        self._places.reverse()
        host = self._places[0][: steps * rows].view(steps, rows)
        values = self._history_SB[:steps, :rows]
        if not values.is_cuda:
            host.copy_(values)
            return Arrival(host, None)
        from actors.kernels.fetch import fetch_into  # Triton: GPU only

        fetch_into(host, values.contiguous())
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return Arrival(host, event)
