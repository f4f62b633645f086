"""Values go from the caller's memory to the disk as they are; all around them is ordinary Parquet.

pyarrow encodes a column by copying it twice, which for rows of activations costs more than writing
them. Here it writes the key columns alone, into memory; their pages and one page of values taken
straight from the caller make a row group, and the footer is pyarrow's own with the values' column
added. The flat form (``storage.flat``) is thus kept by construction.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.thrift import (
    BINARY,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    Field,
    Items,
    Struct,
    read_struct,
    write_struct,
)

_MAGIC = b"PAR1"


# Numbers of the fields that are read or written here, as Parquet's own definition gives them.
_FILE_NUM_ROWS, _FILE_GROUPS = 3, 4
_GROUP_CHUNKS, _GROUP_BYTES, _GROUP_OFFSET, _GROUP_STORED, _GROUP_PLACE = 1, 2, 5, 6, 7
_CHUNK_OFFSET, _CHUNK_FACTS = 2, 3
_TYPE, _ENCODINGS, _PATH, _CODEC, _NUM_VALUES, _BYTES, _STORED, _PAGE, _DICTIONARY = (
    *range(1, 8),
    9,
    11,
)
_FIXED_SIZE_BINARY, _PLAIN, _LEVELS, _UNCOMPRESSED = 7, 0, 3, 0


class FlatWriter:
    """Writes one flat file; single-threaded.

    Args:
        path: A new file.
        schema: The whole file's; its last column is fixed-size binary and never null.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._keys_schema = schema.remove(len(schema) - 1).remove_metadata()
        self._column = schema.names[-1]
        self._footer = _footer(_written(schema.empty_table()))
        self._groups: list[Struct] = []
        self._num_rows = 0
        self._size_bytes = 0
        self._handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        self._write(_MAGIC)

    def add(self, keys: list[pa.Array], values: memoryview) -> None:
        """Write one row group.

        Args:
            keys: The columns before the last, in order.
            values: The last column's rows, one after the other; below 2 GiB.
        """
        num_rows = len(keys[0])
        body = _written(pa.table(keys, schema=self._keys_schema), store_schema=False)
        (group,) = _footer(body).structs(_FILE_GROUPS)
        stored = sum(chunk.inner(_CHUNK_FACTS).whole(_STORED) for chunk in group.structs(1))
        _move(group, self._size_bytes - len(_MAGIC))
        self._write(body[len(_MAGIC) : len(_MAGIC) + stored])
        head = _page_header(num_rows, values.nbytes)
        page_bytes = len(head) + values.nbytes
        group.structs(_GROUP_CHUNKS).append(
            _chunk(self._column, num_rows, page_bytes, self._size_bytes)
        )
        for number in (_GROUP_BYTES, _GROUP_STORED):
            group[number] = Field(I64, group.whole(number) + page_bytes)
        self._write(head)
        self._write(values.cast("B"))
        self._groups.append(group)
        self._num_rows += num_rows

    def close(self) -> None:
        """Write the footer and close the file; it is not yet forced to the disk."""
        for place, group in enumerate(self._groups):
            group[_GROUP_PLACE] = Field(I16, place)
        self._footer[_FILE_NUM_ROWS] = Field(I64, self._num_rows)
        self._footer[_FILE_GROUPS] = Field(LIST, Items(STRUCT, [*self._groups]))
        footer = write_struct(self._footer)
        self._write(footer + struct.pack("<I", len(footer)) + _MAGIC)
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; without a footer no reader takes it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _write(self, body: bytes | memoryview) -> None:
        left = memoryview(body)
        while left:
            # One write may take fewer bytes than it was given.
            left = left[os.write(self._handle, left) :]
        self._size_bytes += len(body)


def _written(keys: pa.Table, *, store_schema: bool = True) -> memoryview:
    """A small table as a Parquet file in memory, in one row group."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        keys,
        sink,
        compression="zstd",
        row_group_size=max(1, keys.num_rows),
        store_schema=store_schema,
    )
    return memoryview(sink.getvalue()).cast("B")


def _footer(body: memoryview) -> Struct:
    """The footer of a Parquet file in memory."""
    (num_bytes,) = struct.unpack("<I", body[-8:-4])
    return read_struct(body[-8 - num_bytes : -8]).fields


def _move(group: Struct, by: int) -> None:
    """Let a row group's places in the file be this many bytes later."""
    for chunk in group.structs(_GROUP_CHUNKS):
        facts = chunk.inner(_CHUNK_FACTS)
        for fields, number in ((chunk, _CHUNK_OFFSET), (facts, _PAGE), (facts, _DICTIONARY)):
            # pyarrow leaves a place that it does not use out, or zero.
            if number in fields and fields.whole(number):
                fields[number] = Field(I64, fields.whole(number) + by)
    if _GROUP_OFFSET in group:
        group[_GROUP_OFFSET] = Field(I64, group.whole(_GROUP_OFFSET) + by)


def _page_header(num_rows: int, num_bytes: int) -> bytes:
    """Header of one plain, uncompressed page without nulls."""
    page = Struct(
        {n: Field(I32, v) for n, v in enumerate((num_rows, _PLAIN, _LEVELS, _LEVELS), start=1)}
    )
    whole = {1: 0, 2: num_bytes, 3: num_bytes}
    return write_struct(
        Struct({n: Field(I32, v) for n, v in whole.items()} | {5: Field(STRUCT, page)})
    )


def _chunk(column: str, num_rows: int, num_bytes: int, offset: int) -> Struct:
    """What the footer says of a row group's values."""
    facts = Struct(
        {
            _TYPE: Field(I32, _FIXED_SIZE_BINARY),
            _ENCODINGS: Field(LIST, Items(I32, [_PLAIN, _LEVELS])),
            _PATH: Field(LIST, Items(BINARY, [column.encode()])),
            _CODEC: Field(I32, _UNCOMPRESSED),
            _NUM_VALUES: Field(I64, num_rows),
            _BYTES: Field(I64, num_bytes),
            _STORED: Field(I64, num_bytes),
            _PAGE: Field(I64, offset),
        }
    )
    return Struct({_CHUNK_OFFSET: Field(I64, 0), _CHUNK_FACTS: Field(STRUCT, facts)})
