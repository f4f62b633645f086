"""A committed object is read as a file, by ranges: only what a reader asks for crosses the network.

Parquet readers look at the end of a file first, and more than once; that part is asked for once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from storage import layout
from storage.parquet import Filters, read_table
from storage.records import FileRecord
from storage.schema import schema_of
from storage.store import ObjectStore

if TYPE_CHECKING:
    from storage.manifest import Run

RANGES_ABOVE_BYTES = 4 * 1024**2
"""Smaller objects are downloaded whole: one request, and they stay on this disk."""

TAIL_BYTES = 64 * 1024
"""The end of the object that one request brings; most footers fit into it."""


class StoredFile(io.RawIOBase):
    """One committed object of a bucket, as a file that can be read and sought in.

    Args:
        store: Where the object is.
        file: Its record; the size there is believed, and a shorter object is an error when read.
    """

    def __init__(self, store: ObjectStore, file: FileRecord) -> None:
        super().__init__()
        self._store, self._file, self._at = store, file, 0
        self._tail_at = max(0, file.size_bytes - TAIL_BYTES)
        self._tail: bytes | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Place within the object."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within the object."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size_bytes}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, or the rest of the object.

        Raises:
            ObjectMissingError: The bucket does not hold it.
            ObjectCorruptError: It is shorter than committed.
        """
        left = max(0, self._file.size_bytes - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        body = self._bytes(self._at, wanted) if wanted else b""
        self._at += len(body)
        return body

    def _bytes(self, offset: int, size_bytes: int) -> bytes:
        if offset + size_bytes < self._tail_at:
            return self._store.get_range(self._file.key, offset, size_bytes)
        if self._tail is None:
            length = self._file.size_bytes - self._tail_at
            self._tail = self._store.get_range(self._file.key, self._tail_at, length)
        if offset < self._tail_at:
            # A longer footer: what comes before the known end joins it.
            before = self._store.get_range(self._file.key, offset, self._tail_at - offset)
            self._tail_at, self._tail = offset, before + self._tail
        start = offset - self._tail_at
        return self._tail[start : start + size_bytes]


def as_arrow_file(store: ObjectStore, file: FileRecord) -> pa.NativeFile:
    """The object as pyarrow's readers take it."""
    return pa.PythonFile(StoredFile(store, file), mode="r")


def read_rows(run: Run, file: FileRecord, columns: Sequence[str], filters: Filters) -> pa.Table:
    """Rows of one committed file, by ranges where that spares most of a large object.

    Args:
        run: The run; a file that is not in its folder is read from its bucket.
        file: One of its files, of any table.
        columns: Columns wanted.
        filters: As for ``parquet.read_table``; they decide which row groups are read.

    Raises:
        MissingFileError: The file is neither here nor in the bucket.
        CorruptFileError: It is not what was committed.
    """
    is_here = layout.path_of(run.root, file.key).exists()
    is_part = filters is not None or len(columns) < len(schema_of(file.table).names)
    if run.store is None or is_here or not is_part or file.size_bytes < RANGES_ABOVE_BYTES:
        return read_table(run.fetch(file), file.table, columns=columns, filters=filters)
    source = as_arrow_file(run.store, file)
    return read_table(source, file.table, columns=columns, filters=filters, label=file.key)
