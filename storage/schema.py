"""A table is written only as declared, and read only at a version this package knows.

``TABLES`` maps each table's name to its schema. A file of a newer version is refused with the way
out; a file of an older one is brought up to date by the migrations, one version at a time. The
activation rows are the one table whose schema depends on the model: width and dtype.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from storage import tables
from storage.errors import NewerSchemaError, SchemaError

TABLES: dict[str, pa.Schema] = {
    schema.metadata[b"schema"].decode(): schema
    for schema in vars(tables).values()
    if isinstance(schema, pa.Schema)
}
"""Every table of a run by name."""

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of one activation value, by the dtype named in the column's metadata."""

Migration = Callable[[pa.Table], pa.Table]


def _without_units(table: pa.Table) -> pa.Table:
    """Summaries did not say at first what their coefficients are measured in."""
    for name in ("coefficient_unit", "applied_coefficient"):
        field = TABLES["steering_summary"].field(name)
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


MIGRATIONS: dict[tuple[str, int], Migration] = {("steering_summary", 1): _without_units}
"""``(table, version)`` -> what turns that version into the next one."""

PARTITION_COLUMNS = ("task_id", "model")

LAYER_ORDER = frozenset({"pooled"})
"""Large tables that are read a layer at a time: rows are stored by layer and site, each of them in
the order that they came in, and a row group ends with its layer."""


def schema_of(name: str) -> pa.Schema:
    """The declared schema of a table."""
    if name not in TABLES:
        raise SchemaError(name, f"there is no such table; the tables are {sorted(TABLES)}")
    return TABLES[name]


def version_of(schema: pa.Schema) -> int:
    """Version written into a schema's metadata; 0 when the file does not say."""
    return int((schema.metadata or {}).get(b"schema_version", b"0"))


def activation_schema(width: int, dtype: str = "bfloat16") -> pa.Schema:
    """The activations table for rows of ``width`` values of ``dtype``.

    The value column is fixed-size and required, so that its bytes lie in the file as one C array.
    """
    if dtype not in DTYPE_BYTES:
        raise SchemaError("activations", f"dtype {dtype!r} is none of {sorted(DTYPE_BYTES)}")
    declared = TABLES["activations"]
    field = declared.field("activation")
    facts = {
        **field.metadata,
        b"dtype": dtype.encode(),
        b"shape": json.dumps([width]).encode(),
        b"byteorder": b"little",
    }
    values = pa.field("activation", pa.binary(width * DTYPE_BYTES[dtype]), False, facts)
    return declared.set(declared.get_field_index("activation"), values)


def from_rows(name: str, rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Build a table from dictionaries; absent nullable columns become null.

    ``task_id`` and ``model`` may be left out: the commit fills them in.

    Raises:
        SchemaError: A row names an unknown column, or a required column has no value.
    """
    schema = schema_of(name)
    known = set(schema.names)
    items = list(rows)
    unknown = {key for row in items for key in row} - known
    if unknown:
        raise SchemaError(name, f"unknown columns {sorted(unknown)}")
    given = {key for row in items for key in row}
    for column in PARTITION_COLUMNS:
        if column not in given:
            schema = schema.remove(schema.get_field_index(column))
    try:
        table = pa.Table.from_pylist(items, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaError(name, str(error)) from error
    _refuse_nulls(name, table)
    return table


def conform(name: str, table: pa.Table, *, task_id: str, model: str) -> pa.Table:
    """The table exactly as declared: column order, types, metadata, partition columns filled in.

    Raises:
        SchemaError: A column is missing, unknown, of another type, or null without leave; or the
            table's own ``task_id`` or ``model`` differs from the one it is committed under.
    """
    declared = schema_of(name)
    table = _fill_partition(name, table, {"task_id": task_id, "model": model})
    missing = [c for c in declared.names if c not in table.column_names]
    unknown = [c for c in table.column_names if c not in declared.names]
    if missing or unknown:
        raise SchemaError(name, f"missing columns {missing}, unknown columns {unknown}")
    table = table.select(declared.names)
    if name == "activations":
        target = declared.set(
            declared.get_field_index("activation"), table.schema.field("activation")
        )
    else:
        target = declared
    try:
        table = table.cast(target).replace_schema_metadata(declared.metadata)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise SchemaError(name, str(error)) from error
    _refuse_nulls(name, table)
    if name in LAYER_ORDER:
        # The sort is stable, so the rows of one layer keep their order.
        table = table.sort_by([("layer", "ascending"), ("site", "ascending")])
    return table


def check_version(name: str, schema: pa.Schema, *, path: str) -> None:
    """Refuse a file of another table or of a newer version, before any row of it is read."""
    declared = schema_of(name)
    stored = (schema.metadata or {}).get(b"schema", b"").decode()
    if stored != name:
        raise SchemaError(name, f"{path} holds table {stored or 'without a name'!r}")
    found, known = version_of(schema), version_of(declared)
    if found > known:
        raise NewerSchemaError(f"table {name}", path, found, known)


def migrate(name: str, table: pa.Table) -> pa.Table:
    """Bring rows of an older version up to date, one version at a time."""
    version = version_of(table.schema)
    while version < version_of(schema_of(name)):
        step = MIGRATIONS.get((name, version))
        if step is None:
            raise SchemaError(name, f"no migration from version {version}")
        table, version = step(table), version + 1
    return table


def _fill_partition(name: str, table: pa.Table, values: Mapping[str, str]) -> pa.Table:
    """Add ``task_id`` and ``model``, or check the ones that are there."""
    for column, value in values.items():
        if column not in table.column_names:
            filled = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
            table = table.append_column(schema_of(name).field(column), filled)
            continue
        found = table.column(column).unique().to_pylist()
        if table.num_rows and found != [value]:
            raise SchemaError(name, f"{column} is {found}, but the commit is for {value!r}")
    return table


def _refuse_nulls(name: str, table: pa.Table) -> None:
    for field in table.schema:
        count = table.column(field.name).null_count
        if count and not field.nullable:
            raise SchemaError(name, f"column {field.name} has {count} nulls and allows none")
