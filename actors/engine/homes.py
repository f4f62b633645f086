"""Kept rows go straight to where their result will lie: no host copy, no thread, no page fault.

A reading knows how many rows it can have at most, so its place in pinned memory is laid out when
the first ones come, and every later run of rows is one strided copy by the GPU's copy engine.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from actors.engine.landing import Landing, copy_stream, pinned

SLAB_BYTES = 256 << 20
"""Pinned memory is taken in pieces of this size: taking it is slow, and sizes are rounded up."""
SHARE_OF_MEMORY = 0.25
"""Of the machine's memory, for the kept rows of one bundle on all of its ranks."""
_DEVICE_TO_HOST = 2
_BUFFERS = 3
_in_flight: deque[tuple[Any, tuple[Tensor, ...]]] = deque()
"""(event, places that are being written): pinned memory must not be given away before."""


@dataclass(slots=True, eq=False)
class Home:
    """Where a reading's rows of one site lie, in order of position."""

    host: Tensor
    """``[held layers, rows at most, D]``; row i is that of position ``first + i``."""
    first: int


class Move(NamedTuple):
    """Rows on their way home."""

    home: Home
    position: int
    """Of the first row."""
    rows: Tensor
    """``[held layers, n, D]``; a layer's rows lie together."""


class Shelf:
    """Pinned memory for the homes of one bundle."""

    def __init__(self, device: torch.device, *, num_ranks: int, limit: int | None = None) -> None:
        self._is_pinned = device.type == "cuda"
        self._left = _limit(num_ranks) if limit is None else limit
        self._slab: Tensor | None = None
        self._used = 0
        _forget_landed()

    def home(self, shape: tuple[int, int, int], dtype: torch.dtype, first: int) -> Home | None:
        """A new home for ``[layers, rows, D]``; None when the bundle's share is used up."""
        size = math.prod(shape) * dtype.itemsize
        if size > self._left:
            return None
        self._left -= size
        if size > SLAB_BYTES // 2:
            return Home(self._take(size).view(dtype).view(shape), first)
        if self._slab is None or self._used + size > SLAB_BYTES:
            self._slab, self._used = self._take(SLAB_BYTES), 0
        host = self._slab[self._used : self._used + size].view(dtype).view(shape)
        self._used += -(-size // 512) * 512
        return Home(host, first)

    def _take(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._is_pinned)


def _limit(num_ranks: int) -> int:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(whole * SHARE_OF_MEMORY) // num_ranks


class Staging:
    """Buffers, taken in turn, from which rows leave a device while the next ones are made.

    A buffer is written again when the copies out of it have ended; the device waits for that, not
    the host. Memory taken anew each time would come from the driver, which stops everything.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        count = _BUFFERS if device.type == "cuda" else 0
        self._buffers = [torch.empty(size, dtype=dtype, device=device) for _ in range(count)]
        self._left: list[Any] = [None] * _BUFFERS
        self._turn = 0

    def copy(self, values: Tensor) -> Tensor:
        """A contiguous copy of the values, good until ``_BUFFERS`` further ones."""
        if not values.is_cuda:
            return values.clone(memory_format=torch.contiguous_format)
        self._turn = (self._turn + 1) % _BUFFERS
        event = self._left[self._turn]
        if event is not None:
            torch.cuda.current_stream().wait_event(event)
        out = self._buffers[self._turn][: values.numel()].view(values.shape)
        return out.copy_(values)

    def leaves(self) -> None:
        """Note that all copies out of the newest buffer were started."""
        if self._buffers:
            self._left[self._turn] = copy_stream(self._buffers[0].device).record_event()


def send(moves: Sequence[Move], source: Tensor, good: Tensor | None) -> Landing:
    """Start to bring rows home.

    Args:
        moves: What goes where.
        source: The tensor that the rows are views of, most of them.
        good: bool, whether rows are finite; goes to the host with them.

    Returns:
        A landing without rows of its own: wait for it before a home is read.
    """
    if not source.is_cuda:
        for home, position, rows in moves:
            at = position - home.first
            home.host[:, at : at + rows.shape[1]] = rows
        return Landing(torch.empty(0), good)
    stream = copy_stream(source.device)
    stream.wait_stream(torch.cuda.current_stream(source.device))
    with torch.cuda.stream(stream):
        for home, position, rows in moves:
            _copy(home.host, position - home.first, rows, stream.cuda_stream)
        flags = pinned(good, stream) if good is not None else None
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(stream)
    source.record_stream(stream)
    for move in moves:
        if move.rows.untyped_storage().data_ptr() != source.untyped_storage().data_ptr():
            move.rows.record_stream(stream)
    _forget_landed()
    _in_flight.append((event, tuple(move.home.host for move in moves)))
    return Landing(torch.empty(0), flags, event)


def _forget_landed() -> None:
    while _in_flight and _in_flight[0][0].query():
        _in_flight.popleft()


def _copy(host: Tensor, at: int, rows: Tensor, stream: int) -> None:
    """One strided copy: a run of ``n * D`` values per layer."""
    layers, count, width = rows.shape
    if not layers * count:
        return
    item = rows.element_size()
    if rows.stride(1) != width or rows.stride(2) != 1:
        raise ValueError("a layer's rows must lie together")
    status = _memcpy2d()(
        host.data_ptr() + at * width * item, host.stride(0) * item,
        rows.data_ptr(), max(rows.stride(0), count * width) * item,
        count * width * item, layers, _DEVICE_TO_HOST, stream,
    )  # fmt: skip
    if status:
        raise RuntimeError(f"cudaMemcpy2DAsync ended with CUDA error {status}")


@cache
def _memcpy2d() -> Callable[..., int]:
    """The runtime's own strided copy, from the library that torch has loaded."""
    major = (torch.version.cuda or "").split(".")[0]
    function = ctypes.CDLL(f"libcudart.so.{major}").cudaMemcpy2DAsync
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    function.argtypes = (pointer, size, pointer, size, size, size, ctypes.c_int, pointer)
    function.restype = ctypes.c_int
    found: Callable[..., int] = function
    return found
