"""A file is hashed and forced to the disk while it is still being written.

Both take as long as writing does. Each has a thread of its own behind the writer's back, so the
three go on at once, and what lies in memory already is hashed there instead of being read back.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from storage.durable import HASH_BLOCK_BYTES
from storage.errors import CorruptFileError

SYNC_BYTES = 32 * 1024**2
"""The disk is asked to take what has been written after each of these."""

MAX_BEHIND = 3
"""Bodies that wait in memory to be hashed; the writer waits above this."""


class _Grown(NamedTuple):
    """The file now ends at ``end``, and its last bytes are ``body``."""

    end: int
    body: memoryview


class FollowingHash:
    """sha256 of a growing file, by two threads that follow its one writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._to_hash: queue.Queue[_Grown | None] = queue.Queue(MAX_BEHIND)
        self._to_sync: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._digest = hashlib.sha256()
        self._at = 0
        self._error: OSError | CorruptFileError | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("hash", self._hash), ("sync", self._sync))
        ]
        for thread in self._threads:
            thread.start()

    def grown(self, body: memoryview | bytes = b"") -> int:
        """The writer has added bytes, which end with ``body``; returns the file's size.

        ``body`` is hashed from memory, and must not change until ``finish`` returns.
        """
        end = self._path.stat().st_size
        self._to_sync.put(end)
        self._to_hash.put(_Grown(end, memoryview(body).cast("B")))
        return end

    def finish(self) -> str:
        """The writer has closed the file: hash the rest, fsync, and return the digest.

        Raises:
            OSError: The disk could not take the file.
            CorruptFileError: The file is shorter than the writer said.
        """
        try:
            self.grown()
        finally:
            self.stop()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def stop(self) -> None:
        """No more is coming: wait for both threads."""
        self._to_sync.put(None)
        self._to_hash.put(None)
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[int], None]) -> None:
        try:
            handle = os.open(self._path, os.O_RDWR)
            try:
                work(handle)
            finally:
                os.close(handle)
        except (OSError, CorruptFileError) as error:
            self._error = error
            # The writer must not wait for a thread that has ended.
            while work == self._hash and self._to_hash.get() is not None:
                continue

    def _hash(self, handle: int) -> None:
        while (grown := self._to_hash.get()) is not None:
            self._read_up_to(handle, grown.end - len(grown.body))
            self._digest.update(grown.body)
            self._at += len(grown.body)

    def _read_up_to(self, handle: int, end: int) -> None:
        """Hash what only the file has."""
        while self._at < end:
            found = os.pread(handle, min(HASH_BLOCK_BYTES, end - self._at), self._at)
            if not found:
                raise CorruptFileError(self._path.name, f"it ends at byte {self._at}, not {end}")
            self._digest.update(found)
            self._at += len(found)

    def _sync(self, handle: int) -> None:
        synced = 0
        while (end := self._to_sync.get()) is not None:
            if end - synced >= SYNC_BYTES:
                os.fdatasync(handle)
                # Memory that the kernel has at hand costs far less than memory it must find, and
                # a capture larger than the memory would push everything else out of it.
                os.posix_fadvise(handle, synced, end - synced, os.POSIX_FADV_DONTNEED)
                synced = end
        os.fsync(handle)
