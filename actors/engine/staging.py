"""Host values reach the device without the host waiting for it.

A copy from ordinary memory waits for everything that the device was told before. A copy from pinned
memory takes its turn, so the host goes on to prepare the next forward while this one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGN = 2
"""int64 elements: parts begin at 16 bytes, or Triton would compile a kernel for every alignment."""


def stage(values: NDArray[Any], device: torch.device) -> Tensor:
    """The values on the device; on the CPU they are where they were."""
    host = torch.from_numpy(np.ascontiguousarray(values))
    if device.type != "cuda":
        return host
    return host.pin_memory().to(device, non_blocking=True)


def blank(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Float32 values on the host, from where ``there`` copies without a wait; all are to be set."""
    return torch.empty(shape, pin_memory=device.type == "cuda")


def there(host: Tensor, device: torch.device) -> Tensor:
    """A filled ``blank`` on the device; on the CPU it is where it was."""
    return host.to(device, non_blocking=True)


def stage_parts(parts: Sequence[NDArray[np.int64]], device: torch.device) -> list[Tensor]:
    """Flat int64 arrays of any lengths on the device, by one copy."""
    starts = np.cumsum([0, *(-(-part.size // _ALIGN) * _ALIGN for part in parts)])
    whole = np.zeros(int(starts[-1]), dtype=np.int64)
    for start, part in zip(starts, parts, strict=False):
        whole[start : start + part.size] = part
    moved = stage(whole, device)
    return [
        moved[start : start + part.size]
        for start, part in zip(starts.tolist(), parts, strict=False)
    ]


def rows_of(positions: Sequence[int]) -> NDArray[np.int64]:
    """Positions as an array; a range costs nothing per element."""
    if isinstance(positions, range):
        return np.arange(positions.start, positions.stop, positions.step, dtype=np.int64)
    return np.asarray(positions, dtype=np.int64)
