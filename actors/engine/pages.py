"""Every KV-cache page is free, or owned by at least one living sequence; none is lost.

Pages are allocated once, when the engine starts. Page 0 belongs to nobody: idle rows of a captured
CUDA graph write there, and rows that ran over their end and pages. A full page of prompt is shared
by sequences whose keys and values on it are the same by construction: same tokens before and in it,
and the same steering of those positions.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence as SequenceOf

PrefixKey = bytes


def prefix_key(previous: PrefixKey, tokens: SequenceOf[int], steering: bytes) -> PrefixKey:
    """Key of a full page: hash of the page before, its tokens and the steering that reaches it."""
    text = array("q", tokens).tobytes()
    return hashlib.blake2b(previous + b"/" + text + b"/" + steering, digest_size=16).digest()


class PageTable:
    """Reference-counted pages ``1 .. num_pages - 1``, handed out lowest first."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, 0, -1))
        self._references: dict[int, int] = {}
        self._page_of: dict[PrefixKey, int] = {}
        self._key_of: dict[int, PrefixKey] = {}

    @property
    def num_free(self) -> int:
        """Pages that nobody owns."""
        return len(self._free)

    @property
    def capacity(self) -> int:
        """Pages that sequences can own at most."""
        return self.num_pages - 1

    def pages_for(self, num_tokens: int) -> int:
        """Pages that hold ``num_tokens`` tokens."""
        return -(-num_tokens // self.page_size)

    def allocate(self) -> int | None:
        """A free page with one owner, or None when there is none."""
        if not self._free:
            return None
        page = self._free.pop()
        self._references[page] = 1
        return page

    def share(self, key: PrefixKey) -> int | None:
        """The page published under ``key`` with one more owner, or None."""
        page = self._page_of.get(key)
        if page is not None:
            self._references[page] += 1
        return page

    def publish(self, page: int, key: PrefixKey) -> None:
        """Let others share an owned page; the first page under a key stays the shared one."""
        if key not in self._page_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def release(self, pages: SequenceOf[int]) -> None:
        """Give up one ownership of each page; unowned pages become free.

        Raises:
            ValueError: A page is not owned: it would be freed twice.
        """
        for page in pages:
            count = self._references.get(page, 0)
            if count == 0:
                raise ValueError(f"page {page} is released but nobody owns it")
            if count > 1:
                self._references[page] = count - 1
                continue
            del self._references[page]
            key = self._key_of.pop(page, None)
            if key is not None:
                del self._page_of[key]
            self._free.append(page)
