"""Threads may ask the model group; the scheduler alone talks to it.

A judge that is the loaded model calls ``ask`` in its own thread and waits. The scheduler takes the
bundles, sends them ahead of planned work, and hands back the replies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from actors.request import Bundle, Reply


class Asked(NamedTuple):
    """One bundle and the thread's claim to its reply."""

    bundle: Bundle
    reply: Future[Reply]


class GroupAsks:
    """Bundles from threads, in the order they came.

    Attributes:
        on_ask: Called in the asking thread when there is a bundle to take; None: nobody listens.
    """

    def __init__(self) -> None:
        self.on_ask: Callable[[], None] | None = None
        self._waiting: deque[Asked] = deque()
        self._lock = threading.Lock()
        self._ended: BaseException | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, bundle: Bundle) -> Reply:
        """Wait for the group's reply; called from any thread but the scheduler's.

        Raises:
            GroupError: The group refused the bundle, or failed as often as bundles may.
        """
        asked = Asked(bundle, Future())
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._waiting.append(asked)
        if self.on_ask is not None:
            self.on_ask()
        return asked.reply.result()

    def take(self) -> Asked | None:
        """The next bundle that nobody has sent yet, or None."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def again(self, asked: Asked) -> None:
        """Put a bundle back whose group failed under it."""
        with self._lock:
            self._waiting.append(asked)

    def cancel(self, error: BaseException) -> None:
        """Let every thread that waits, or will ask, go on with an error."""
        with self._lock:
            self._ended = error
        while (asked := self.take()) is not None:
            asked.reply.set_exception(error)
