"""A queue of any length takes no memory: what waits is made when it comes near the head."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Queue(Generic[Item]):
    """Items in order; those far behind the head do not exist yet.

    What waits costs what its giver keeps of it, and nothing here.
    """

    def __init__(self) -> None:
        self._head: deque[Item] = deque()
        self._later: Iterator[Item] = iter(())

    def extend(self, items: Iterable[Item]) -> None:
        """Queue items behind all others; an iterator is read as the queue moves on."""
        self._later = chain(self._later, items)

    def __bool__(self) -> bool:
        return bool(self._head) or self.has(1)

    def has(self, number: int) -> bool:
        """True when so many wait; it makes so many."""
        missing = number - len(self._head)
        if missing > 0:
            self._head.extend(islice(self._later, missing))
        return len(self._head) >= number

    def made(self) -> Iterator[Item]:
        """Those that were made already."""
        return iter(self._head)

    def __iter__(self) -> Iterator[Item]:
        """All of them, which makes all of them."""
        self._head.extend(self._later)
        return iter(self._head)

    def first(self) -> Item:
        """The head, which stays.

        Raises:
            IndexError: Nothing waits.
        """
        if not self:
            raise IndexError("nothing waits")
        return self._head[0]

    def pop(self) -> Item:
        """Take the head.

        Raises:
            IndexError: Nothing waits.
        """
        if not self:
            raise IndexError("nothing waits")
        return self._head.popleft()

    def push(self, item: Item) -> None:
        """Put an item before all others."""
        self._head.appendleft(item)
