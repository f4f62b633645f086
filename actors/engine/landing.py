"""Device values reach pinned host memory on a stream of their own; nobody waits until they read.

Copies overlap the forwards that follow. Whether values are finite is found on the device, where
it costs nothing beside them; the host counts only when something is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_STREAMS: dict[torch.device, Any] = {}


@dataclass(slots=True)
class Landing:
    """A device tensor on its way to the host."""

    host: Tensor
    """Where the values land; not to be read before ``wait``."""
    good: Tensor | None
    """bool, whether values are finite, by the leading dimensions asked for; None: not known."""
    _event: Any = None
    _all_good: bool | None = None

    @property
    def is_all_good(self) -> bool:
        """True when everything was found finite; to be asked after ``wait``."""
        if self._all_good is None:
            self._all_good = self.good is not None and bool(self.good.all())
        return self._all_good

    @property
    def has_come(self) -> bool:
        """True when ``wait`` would return at once."""
        event = self._event
        return event is None or bool(event.query())

    def wait(self) -> None:
        """Return once the values are there; any number of threads may wait."""
        event = self._event
        if event is not None:
            event.synchronize()
            self._event = None


def land(values: Tensor, good: Tensor | None = None) -> Landing:
    """Start to bring ``values``, and with them ``good``, to the host; CPU tensors are there."""
    if not values.is_cuda:
        return Landing(values, good)
    stream = copy_stream(values.device)
    stream.wait_stream(torch.cuda.current_stream(values.device))
    with torch.cuda.stream(stream):
        host, flags = pinned(values, stream), pinned(good, stream) if good is not None else None
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(stream)
    return Landing(host, flags, event)


def fetch(values: Tensor) -> Tensor:
    """Few values on the host, waited for: a step's tokens must not wait for rows on their way."""
    coming = start_fetch(values)
    coming.wait()
    return coming.host


def start_fetch(values: Tensor) -> Landing:
    """``fetch`` that is waited for later, when more work may have been launched."""
    if not values.is_cuda:
        return Landing(values, None)
    from actors.kernels.fetch import fetch_into  # Triton: GPU only

    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    fetch_into(host, values.contiguous())
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(values.device))
    return Landing(host, None, event)


def copy_stream(device: torch.device) -> Any:
    """The stream on which values leave a device."""
    stream = _STREAMS.get(device)
    if stream is None:
        stream = _STREAMS[device] = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
    return stream


def pinned(values: Tensor, stream: Any) -> Tensor:
    """A copy in pinned memory, on its way on the current stream, which is ``stream``."""
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    values.record_stream(stream)
    return host


@dataclass(slots=True)
class Piece:
    """Kept rows of one reading in a landing: ``[layers, n, D]``."""

    landing: Landing
    row: int | None
    """Burst landings are ``[rows, layers, steps, D]``; None: the landing is ``[layers, n, D]``."""
    layers: list[int] | None
    """Places of the reading's layers in the landing; None: all, as they lie."""
    first: int
    stop: int

    def rows(self) -> Tensor:
        """The rows, waited for."""
        self.landing.wait()
        block = self.landing.host if self.row is None else self.landing.host[self.row]
        block = block if self.layers is None else block[self.layers]
        return block[:, self.first : self.stop]

    def is_good(self) -> bool | None:
        """Whether all rows are finite; None when the device did not look."""
        good = self.landing.good
        if good is None:
            return None
        self.landing.wait()
        if self.landing.is_all_good:
            return True
        return bool((good if self.row is None else good[self.row])[self.first : self.stop].all())
