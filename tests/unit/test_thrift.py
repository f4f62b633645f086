"""Headers that Parquet writers made are read field by field and written again as the same bytes."""

from __future__ import annotations

import datetime
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import CorruptFileError
from storage.thrift import (
    BINARY,
    BYTE,
    DOUBLE,
    FALSE,
    I16,
    I32,
    I64,
    LIST,
    MAP,
    STRUCT,
    TRUE,
    Field,
    Items,
    Struct,
    read_struct,
    write_struct,
)


def footer_of(path) -> bytes:
    body = path.read_bytes()
    (num_bytes,) = struct.unpack("<I", body[-8:-4])
    return body[-8 - num_bytes : -8]


TABLE = pa.table(
    {
        "text": ["a", "b" * 300, None],
        "number": pa.array([1, -(2**62), 3], pa.int64()),
        "real": [0.5, float("nan"), 2.0],
        "truth": [True, False, None],
        "list": [[1, 2], [], None],
        "when": [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)] * 3,
        "nested": [{"a": 1, "b": "x"}, {"a": None, "b": "y"}, None],
        "bytes": pa.array([b"0123"] * 3, pa.binary(4)),
    }
)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "zstd", "use_dictionary": False},
        {"write_page_index": True, "write_page_checksum": True},
        {"row_group_size": 1, "sorting_columns": [pq.SortingColumn(1)]},
        {"version": "1.0", "store_schema": False, "write_statistics": False},
    ],
    ids=str,
)
def test_a_footer_comes_back_as_the_same_bytes(tmp_path, settings):
    pq.write_table(TABLE, tmp_path / "f", **settings)
    footer = footer_of(tmp_path / "f")
    found = read_struct(footer)
    assert found.num_bytes == len(footer)
    assert found.fields.whole(3) == 3
    assert write_struct(found.fields) == footer


def test_what_follows_a_struct_is_left_alone(tmp_path):
    pq.write_table(TABLE, tmp_path / "f")
    footer = footer_of(tmp_path / "f")
    assert read_struct(footer + b"\x15\x00rest").num_bytes == len(footer)
    assert read_struct(memoryview(footer)).num_bytes == len(footer)


def test_the_fields_say_what_the_reader_says(tmp_path):
    pq.write_table(TABLE, tmp_path / "f", row_group_size=2)
    groups = read_struct(footer_of(tmp_path / "f")).fields.structs(4)
    metadata = pq.read_metadata(tmp_path / "f")
    assert [group.whole(3) for group in groups] == [2, 1]
    for i, group in enumerate(groups):
        for j, chunk in enumerate(group.structs(1)):
            known = metadata.row_group(i).column(j)
            assert chunk.inner(3).whole(9) == known.data_page_offset
            assert chunk.inner(3).whole(7) == known.total_compressed_size


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({}, "00"),
        ({1: Field(I32, 1)}, "150200"),
        ({1: Field(I64, -1)}, "160100"),
        ({1: Field(I32, 300)}, "15d80400"),
        ({20: Field(I16, 2)}, "04280400"),
        ({1: Field(TRUE, True), 2: Field(FALSE, False)}, "111200"),
        ({1: Field(BINARY, b"ab")}, "1802616200"),
        ({1: Field(DOUBLE, 1.0)}, "17000000000000f03f00"),
        ({1: Field(BYTE, 7)}, "130700"),
        ({1: Field(LIST, Items(I32, [1, 2]))}, "1925020400"),
        ({1: Field(LIST, Items(TRUE, [True, False]))}, "1921010200"),
        ({3: Field(STRUCT, Struct({1: Field(I32, 0)}))}, "3c15000000"),
    ],
)
def test_each_type_has_its_bytes_by_the_protocol(fields, body):
    assert write_struct(fields).hex() == body
    assert read_struct(bytes.fromhex(body)).fields == fields


def test_long_lists_keep_their_length():
    for count in (14, 15, 16, 1000):
        fields = {1: Field(LIST, Items(I64, list(range(-count // 2, count // 2))))}
        assert read_struct(write_struct(fields)).fields == fields


def test_any_number_of_64_bits_comes_back():
    draw = np.random.default_rng(0)
    numbers = [0, -1, 1, 63, 64, -64, -65, 2**63 - 1, -(2**63)]
    numbers += [int(n) for n in draw.integers(-(2**63), 2**63 - 1, 500)]
    fields = {1: Field(LIST, Items(I64, numbers))}
    assert read_struct(write_struct(fields)).fields == fields


def test_a_cut_header_is_refused_wherever_it_is_cut(tmp_path):
    pq.write_table(TABLE, tmp_path / "f", compression="zstd")
    footer = footer_of(tmp_path / "f")
    for length in range(len(footer)):
        with pytest.raises(CorruptFileError, match="cut"):
            read_struct(footer[:length])


def test_a_type_that_parquet_does_not_use_is_refused():
    with pytest.raises(CorruptFileError, match=f"type {MAP} is not expected"):
        read_struct(bytes([0x10 | MAP, 0, 0]))


def test_a_field_of_another_kind_is_not_taken_for_the_wanted_one():
    fields = Struct({1: Field(BINARY, b"x"), 2: Field(LIST, Items(I32, [1]))})
    for ask in (fields.whole, fields.inner, fields.structs):
        with pytest.raises(CorruptFileError, match="field 1"):
            ask(1)
    with pytest.raises(CorruptFileError, match="field 2 is no list of structs"):
        fields.structs(2)
