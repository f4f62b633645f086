"""A table is written whole or not at all, and the same table always gives the same bytes.

Files hold no times, hosts or attempts: what they are made of stands in ``provenance``, JSON
in the key-value metadata. Pages carry checksums, and reading checks them, so a flipped bit in a
small table is an error and not a number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.durable import (
    discarded_on_error,
    fsync_file,
    full_disk_named,
    sha256_of,
    temporary_name,
)
from storage.errors import CorruptFileError
from storage.schema import LAYER_ORDER, check_version, migrate, schema_of, version_of

ROW_GROUP_BYTES = 32 * 1024**2
"""Row groups of small tables are cut at about this size in memory."""

MIN_GROUP_BYTES = 64 * 1024
"""A row group of a table in layer order ends with its layer once it is as large as this."""

Provenance = Mapping[str, object]
Expression: TypeAlias = Any
"""A pyarrow expression; pyarrow ships no types."""
Filters: TypeAlias = Expression | Sequence[tuple[str, str, object]] | None


class Written(NamedTuple):
    """A finished, fsynced file that has no name yet."""

    path: Path
    num_rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Staged:
    """A finished file of one table, waiting in ``wip`` for its commit."""

    table: str
    written: Written
    index: Mapping[str, object]
    """Flat files only: where each layer's and prompt's rows lie."""


def with_provenance(schema: pa.Schema, provenance: Provenance) -> pa.Schema:
    """The schema with what the rows were made from, as one canonical JSON object."""
    text = json.dumps(provenance, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return schema.with_metadata({**(schema.metadata or {}), b"provenance": text.encode()})


def provenance_of(schema: pa.Schema) -> dict[str, object]:
    """What a file says its rows were made from."""
    found: dict[str, object] = json.loads((schema.metadata or {}).get(b"provenance", b"{}"))
    return found


def write_table(table: pa.Table, wip: Path, *, provenance: Provenance) -> Written:
    """Write one small table, compressed, under a temporary name.

    Args:
        table: As ``schema.conform`` returns it.
        wip: This writer's folder for half-written files.
        provenance: What decides the rows; JSON values, no times.

    Raises:
        DiskFullError: There was no room; nothing is left behind.
    """
    temporary = temporary_name(wip)
    table = table.replace_schema_metadata(with_provenance(table.schema, provenance).metadata)
    row_bytes = max(1, table.nbytes // max(1, table.num_rows))
    with full_disk_named(wip), discarded_on_error(temporary):
        writer = pq.ParquetWriter(
            temporary,
            table.schema,
            compression="zstd",
            compression_level=3,
            write_page_checksum=True,
            use_dictionary=[field.name for field in table.schema if not _is_vector(field.type)],
        )
        for part in _groups(table, row_bytes):
            writer.write_table(part, row_group_size=max(1, ROW_GROUP_BYTES // row_bytes))
        writer.close()
        fsync_file(temporary)
        size_bytes = temporary.stat().st_size
        return Written(temporary, table.num_rows, size_bytes, sha256_of(temporary))


def _is_vector(type_: pa.DataType) -> bool:
    """True for lists of floats: hardly a value comes twice, so a dictionary only adds to them."""
    return bool(pa.types.is_list(type_) and pa.types.is_floating(type_.value_type))


def _groups(table: pa.Table, row_bytes: int) -> Iterator[pa.Table]:
    """The table whole, or cut where the layer changes when it is in layer order."""
    name = (table.schema.metadata or {}).get(b"schema", b"").decode()
    if name not in LAYER_ORDER or not table.num_rows:
        yield table
        return
    layers = np.asarray(table["layer"].combine_chunks())
    start = 0
    for cut in [*(np.flatnonzero(np.diff(layers)) + 1).tolist(), table.num_rows]:
        if cut == table.num_rows or (cut - start) * row_bytes >= MIN_GROUP_BYTES:
            yield table.slice(start, cut - start)
            start = cut


def read_table(
    source: Path | pa.NativeFile,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    filters: Filters = None,
    label: str = "",
) -> pa.Table:
    """Read one file of a table, of this version or an older one.

    Only the columns and row groups that can hold what is asked for are read.

    Args:
        source: The file, here or as ``storage.ranges`` opens it in a bucket.
        name: The table that it must hold.
        columns: Columns wanted; None is all. Filters may use others.
        filters: A pyarrow expression, or (column, operator, value) triples that must all hold.
        label: What errors call the file; by default its name.

    Raises:
        NewerSchemaError: The file is of a version that this package does not know.
        CorruptFileError: A page's checksum does not fit, or the file is cut.
    """
    label = label or (source.name if isinstance(source, Path) else name)
    try:
        stored = pq.read_schema(source)
        check_version(name, stored, path=label)
        is_old = version_of(stored) < version_of(schema_of(name))
        table = pq.read_table(
            source,
            columns=None if is_old or columns is None else list(columns),
            filters=None if is_old else filters,
            page_checksum_verification=True,
            partitioning=None,
        )
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptFileError(label, str(error)) from error
    if is_old:
        table = migrate(name, table)
        if filters is not None:
            table = table.filter(as_expression(filters))
        table = table.select(columns if columns is not None else table.column_names)
    return table


def as_expression(filters: Filters) -> Expression:
    """Filters in any accepted form as one expression."""
    return pq.filters_to_expression(filters)
