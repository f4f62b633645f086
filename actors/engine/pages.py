"""Every KV-cache page is free, or owned by at least one living sequence; none is lost.

Pages are allocated once, when the engine starts. Page 0 belongs to nobody: idle rows of a captured
CUDA graph write there, and rows that ran over their end and pages. A full page of prompt is shared
by sequences whose keys and values on it are the same by construction: same tokens before and in it,
and the same steering of those positions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence as SequenceOf

PrefixKey = bytes


def packed(tokens: SequenceOf[int]) -> bytes:
    """Token ids as int64 one after the other; numpy and array take several times as long."""
    return struct.pack(f"{len(tokens)}q", *tokens)


def prefix_keys(
    tokens: SequenceOf[int], page_size: int, steering: bytes = b"", steering_starts: int = 0
) -> list[PrefixKey]:
    """Keys of a prompt's full pages: each tells all tokens up to its page's end.

    From the page that ``steering_starts`` lies on, keys tell what steering does too.
    """
    text, width = packed(tokens), 8 * page_size
    first_steered = steering_starts // page_size if steering else len(tokens)
    found: list[PrefixKey] = []
    so_far = hashlib.blake2b(digest_size=16)
    for page in range(len(tokens) // page_size):
        if page == first_steered:
            # Begun anew from two digests of one length, so that no tokens read like steering.
            before = so_far.digest() + hashlib.blake2b(steering, digest_size=16).digest()
            so_far = hashlib.blake2b(before, digest_size=16, person=b"steered")
        so_far.update(text[page * width : (page + 1) * width])
        found.append(so_far.digest())
    return found


class PageTable:
    """Reference-counted pages ``1 .. num_pages - 1``, handed out lowest first."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._first_unused = 1
        """Pages from here on were never owned: a table of a million pages costs nothing to make."""
        self._free: list[int] = []
        """Pages that were given back; the newest is the next to be handed out."""
        self._references: dict[int, int] = {}
        self._page_of: dict[PrefixKey, int] = {}
        self._key_of: dict[int, PrefixKey] = {}

    @property
    def num_free(self) -> int:
        """Pages that nobody owns."""
        return len(self._free) + self.num_pages - self._first_unused

    @property
    def capacity(self) -> int:
        """Pages that sequences can own at most."""
        return self.num_pages - 1

    def pages_for(self, num_tokens: int) -> int:
        """Pages that hold ``num_tokens`` tokens."""
        return -(-num_tokens // self.page_size)

    def allocate(self, count: int) -> list[int]:
        """Free pages with one owner each; fewer than ``count`` when there are no more."""
        pages: list[int] = []
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            elif self._first_unused < self.num_pages:
                page = self._first_unused
                self._first_unused += 1
            else:
                break
            self._references[page] = 1
            pages.append(page)
        return pages

    def share(self, key: PrefixKey) -> int | None:
        """The page published under ``key`` with one more owner, or None."""
        page = self._page_of.get(key)
        if page is not None:
            self._references[page] += 1
        return page

    def publish(self, pages: SequenceOf[int], keys: SequenceOf[PrefixKey]) -> None:
        """Let others share owned pages; the first page under a key stays the shared one."""
        page_of, key_of = self._page_of, self._key_of
        for page, key in zip(pages, keys, strict=True):
            if key not in page_of:
                page_of[key] = page
                key_of[page] = key

    def release(self, pages: SequenceOf[int]) -> None:
        """Give up one ownership of each page; unowned pages become free.

        Raises:
            ValueError: A page is not owned: it would be freed twice.
        """
        references, key_of, free = self._references, self._key_of, self._free
        for page in pages:
            count = references.pop(page, 0)
            if count == 0:
                raise ValueError(f"page {page} is released but nobody owns it")
            if count > 1:
                references[page] = count - 1
                continue
            key = key_of.pop(page, None)
            if key is not None:
                del self._page_of[key]
            free.append(page)
