"""Parquet's page headers and footers, read and written without knowing what their fields mean.

They are structs in Thrift's compact protocol: before each field a byte of (step from the last field
number, type), integers as zigzag varints. What is read here is written again as the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias, cast

from storage.errors import CorruptFileError

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


class Items(NamedTuple):
    """A list of values of one type."""

    kind: int
    values: list[Value]


class Field(NamedTuple):
    """One field of a struct."""

    kind: int
    value: Value


class Struct(dict[int, Field]):
    """Field number -> field."""

    def whole(self, number: int) -> int:
        """A field that is a whole number."""
        value = self[number].value
        if not isinstance(value, int):
            raise CorruptFileError("a Parquet header", f"field {number} is no number")
        return value

    def inner(self, number: int) -> Struct:
        """A field that is a struct."""
        value = self[number].value
        if not isinstance(value, Struct):
            raise CorruptFileError("a Parquet header", f"field {number} is no struct")
        return value

    def structs(self, number: int) -> list[Struct]:
        """A field that is a list of structs; a change to the list changes the field."""
        value = self[number].value
        if not isinstance(value, Items) or value.kind != STRUCT:
            raise CorruptFileError("a Parquet header", f"field {number} is no list of structs")
        return cast("list[Struct]", value.values)


Value: TypeAlias = "bool | int | float | bytes | Items | Struct"


class Read(NamedTuple):
    """A struct and how many bytes it took."""

    fields: Struct
    num_bytes: int


def read_struct(body: bytes | memoryview) -> Read:
    """The struct that ``body`` begins with.

    Raises:
        CorruptFileError: It is cut, or holds a type that Parquet does not use.
    """
    try:
        return Read(*_struct(bytes(body), 0))
    except (IndexError, struct.error) as error:
        raise CorruptFileError("a Parquet header", "it is cut") from error


def write_struct(fields: Mapping[int, Field]) -> bytes:
    """The bytes of a struct."""
    out = bytearray()
    _put_struct(out, fields)
    return bytes(out)


# Each of these takes the place of a value and returns the value with the place after it. A footer
# has thousands of fields: the shortest numbers, nearly all there are, are read in place.


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _zigzag(body: bytes, at: int) -> tuple[int, int]:
    value = body[at]
    if value < 0x80:
        at += 1
    else:
        value, at = _varint(body, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(body: bytes, at: int) -> tuple[Struct, int]:
    fields = Struct()
    number = 0
    while head := body[at]:
        at += 1
        step, kind = head >> 4, head & 0x0F
        if step:
            number += step
        else:
            number, at = _zigzag(body, at)
        value: Value
        if kind <= FALSE:
            # In a struct a truth value is its type.
            value = kind == TRUE
        else:
            value, at = _value(kind, body, at)
        fields[number] = Field(kind, value)
    return fields, at + 1


def _value(kind: int, body: bytes, at: int) -> tuple[Value, int]:
    if I16 <= kind <= I64:
        return _zigzag(body, at)
    if kind == STRUCT:
        return _struct(body, at)
    if kind == BINARY:
        num_bytes, at = _varint(body, at)
        if at + num_bytes > len(body):
            raise IndexError
        return body[at : at + num_bytes], at + num_bytes
    if kind == LIST:
        return _items(body, at)
    if kind == DOUBLE:
        return struct.unpack_from("<d", body, at)[0], at + 8
    if kind <= BYTE:
        return (body[at] if kind == BYTE else body[at] == TRUE), at + 1
    raise CorruptFileError("a Parquet header", f"type {kind} is not expected in it")


def _items(body: bytes, at: int) -> tuple[Items, int]:
    head = body[at]
    count, kind = head >> 4, head & 0x0F
    at += 1
    if count == 15:
        count, at = _varint(body, at)
    values: list[Value] = []
    for _ in range(count):
        value, at = _value(kind, body, at)
        values.append(value)
    return Items(kind, values), at


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_struct(out: bytearray, fields: Mapping[int, Field]) -> None:
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        step = number - last
        if 0 < step <= 15:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _put(out, I16, number)
        if kind not in (TRUE, FALSE):
            _put(out, kind, value)
        last = number
    out.append(0)


def _put(out: bytearray, kind: int, value: Value) -> None:
    if isinstance(value, Items):
        count = len(value.values)
        out.append(min(count, 15) << 4 | value.kind)
        if count >= 15:
            _put_varint(out, count)
        for each in value.values:
            _put(out, value.kind, each)
    elif isinstance(value, dict):
        _put_struct(out, value)
    elif isinstance(value, bytes):
        _put_varint(out, len(value))
        out += value
    elif isinstance(value, float):
        out += struct.pack("<d", value)
    elif kind in (TRUE, FALSE):
        out.append(TRUE if value else FALSE)
    elif kind == BYTE:
        out.append(value)
    else:
        _put_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)
