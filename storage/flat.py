"""In a flat Parquet file the values of a row group are one C array, at a known place.

Flat means: the value column is required and fixed-size, plain, uncompressed, without a dictionary,
and has one data page in each row group. Every Parquet reader reads such a file as usual; with the
place known, a run of rows is also one memory map, or one range request to a bucket. A file that is
not flat is recognised by its page headers and refused here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from storage.errors import CorruptFileError
from storage.thrift import I32, read_struct

_HEADER_BYTES = 512
_PAGE_BYTES = 3
"""Field of a page header: the page's size in the file."""


class FlatGroup(NamedTuple):
    """Where one row group's values lie."""

    num_rows: int
    offset: int
    """Of the first value's first byte, in the file."""


def flat_groups(path: Path, column: str) -> list[FlatGroup]:
    """Where each row group's values lie.

    Raises:
        CorruptFileError: The file does not have the flat form.
    """
    footer = pq.read_metadata(path)
    names = [footer.schema.column(i).path for i in range(footer.num_columns)]
    place = names.index(column)
    row_bytes = footer.schema.column(place).length
    if footer.schema.column(place).max_definition_level:
        raise CorruptFileError(path.name, f"column {column} may hold nulls, so it is not flat")
    found = []
    with path.open("rb") as handle:
        for i in range(footer.num_row_groups):
            chunk = footer.row_group(i).column(place)
            num_rows = footer.row_group(i).num_rows
            head = os.pread(handle.fileno(), _HEADER_BYTES, chunk.data_page_offset)
            fields, header_bytes = read_struct(head)
            page_bytes = num_rows * row_bytes
            is_flat = (
                chunk.compression == "UNCOMPRESSED"
                and not chunk.has_dictionary_page
                and fields.get(_PAGE_BYTES) == (I32, page_bytes)
                and header_bytes + page_bytes == chunk.total_compressed_size
            )
            if not is_flat:
                raise CorruptFileError(path.name, f"row group {i} of {column} is not flat")
            found.append(FlatGroup(num_rows, chunk.data_page_offset + header_bytes))
    return found
