"""Captured rows become table rows bit for bit, and come back the same way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from actors.request import CaptureResult, Result
from jobs.rows import RowKey, as_float32, captured_bytes, from_table, to_table

WIDTH = 4


def result(name: str, prompt: tuple[int, ...], completion: tuple[int, ...], **capture) -> Result:
    return Result(
        id=name,
        prompt_ids=prompt,
        completion_ids=completion,
        finish_reason="length",
        captures=(CaptureResult(tokens="all", reduction="none", **capture),),
    )


def block(start: int, num_layers: int, num_rows: int) -> np.ndarray:
    """Distinct float32 values [L, N, D], counting up from ``start``."""
    count = num_layers * num_rows * WIDTH
    values = np.arange(start, start + count, dtype=np.float32)
    return values.reshape(num_layers, num_rows, WIDTH)


@pytest.fixture
def two() -> list[Result]:
    """Two prompts of 2 and 1 tokens with one answered token each; layers 1 and 3."""
    return [
        result(
            "a",
            (11, 12),
            (13,),
            layers=(1, 3),
            positions=np.array([0, 1, 2], np.int32),
            values={"resid_post": block(0, 2, 3)},
        ),
        result(
            "b",
            (21,),
            (22,),
            layers=(1, 3),
            positions=np.array([0, 1], np.int32),
            values={"resid_post": block(100, 2, 2)},
        ),
    ]


def tabled(results: list[Result]) -> pa.Table:
    return to_table("everyday", ["p1", "p2"], results, layers=(1, 3), sites=("resid_post",))


def test_the_memory_of_what_was_captured_is_counted(two: list[Result]) -> None:
    assert captured_bytes(two) == (2 * 3 + 2 * 2) * WIDTH * 4
    assert captured_bytes([]) == 0


def test_rows_come_layer_by_layer_then_prompt_then_position(two: list[Result]) -> None:
    table = tabled(two)

    assert table.num_rows == 10
    assert table["layer"].to_pylist() == [1] * 5 + [3] * 5
    assert table["prompt_id"].to_pylist() == ["p1", "p1", "p1", "p2", "p2"] * 2
    assert table["position"].to_pylist() == [0, 1, 2, 0, 1] * 2


def test_each_row_says_which_token_it_belongs_to(two: list[Result]) -> None:
    table = tabled(two).slice(0, 5)

    assert table["token_id"].to_pylist() == [11, 12, 13, 21, 22]
    assert table["is_response"].to_pylist() == [False, False, True, False, True]
    assert set(table["prompts"].to_pylist()) == {"everyday"}


def test_a_row_holds_exactly_the_bytes_that_were_captured(two: list[Result]) -> None:
    table = tabled(two)
    body = [np.frombuffer(value, "<f4").tolist() for value in table["activation"].to_pylist()]

    assert body[0] == [0, 1, 2, 3]
    assert body[2] == [8, 9, 10, 11]
    assert body[3] == [100, 101, 102, 103]
    assert body[5] == [12, 13, 14, 15]
    assert body[9] == [112, 113, 114, 115]


def test_one_layer_is_read_back_as_it_was(two: list[Result]) -> None:
    back = from_table(tabled(two), layer=3, site="resid_post")

    assert back.keys == [
        RowKey("p1", 0, 11, False),
        RowKey("p1", 1, 12, False),
        RowKey("p1", 2, 13, True),
        RowKey("p2", 0, 21, False),
        RowKey("p2", 1, 22, True),
    ]
    expected = np.concatenate([block(0, 2, 3)[1], block(100, 2, 2)[1]])
    assert back.rows_ND.dtype == np.float32
    assert np.array_equal(back.rows_ND, expected)


def test_sites_are_kept_apart() -> None:
    both = result(
        "a",
        (5,),
        (),
        layers=(0,),
        positions=np.array([0], np.int32),
        values={"resid_pre": block(0, 1, 1), "resid_post": block(50, 1, 1)},
    )
    table = to_table("set", ["p"], [both], layers=(0,), sites=("resid_pre", "resid_post"))

    assert table["site"].to_pylist() == ["resid_pre", "resid_post"]
    assert from_table(table, layer=0, site="resid_pre").rows_ND.tolist() == [[0, 1, 2, 3]]
    assert from_table(table, layer=0, site="resid_post").rows_ND.tolist() == [[50, 51, 52, 53]]


def test_only_selected_positions_have_rows() -> None:
    chosen = result(
        "a",
        (5, 6, 7),
        (8, 9),
        layers=(2,),
        positions=np.array([2, 4], np.int32),
        values={"resid_post": block(0, 1, 2)},
    )
    table = to_table("set", ["p"], [chosen], layers=(2,), sites=("resid_post",))

    assert table["position"].to_pylist() == [2, 4]
    assert table["token_id"].to_pylist() == [7, 9]
    assert table["is_response"].to_pylist() == [False, True]


# bfloat16 is the upper half of a float32: 1.0, -2.5, 0, the smallest subnormal.
BITS = np.array([0x3F80, 0xC020, 0x0000, 0x0001], np.uint16)
VALUES = [1.0, -2.5, 0.0, 2.0**-133]


def test_bfloat16_travels_as_bit_patterns_and_only_arithmetic_widens_it() -> None:
    half = result(
        "a",
        (5,),
        (),
        layers=(0,),
        positions=np.array([0], np.int32),
        values={"resid_post": BITS.reshape(1, 1, 4)},
        dtype="bfloat16",
    )
    table = to_table("set", ["p"], [half], layers=(0,), sites=("resid_post",))

    assert table.schema.field("activation").type == pa.binary(8)
    assert table["activation"].to_pylist() == [BITS.tobytes()]
    assert from_table(table, layer=0, site="resid_post").rows_ND.tolist() == [VALUES]


def test_widening_is_exact() -> None:
    assert as_float32(BITS, "bfloat16").tolist() == VALUES
    assert as_float32(np.array([1.5, -3.0], np.float32), "float32").tolist() == [1.5, -3.0]


def test_every_bfloat16_pattern_survives() -> None:
    patterns = np.arange(0x10000, dtype=np.uint32).astype(np.uint16)
    wide = as_float32(patterns, "bfloat16")

    assert np.array_equal(wide.view(np.uint32) >> 16, patterns)
    assert not np.any(wide.view(np.uint32) & 0xFFFF)


def test_a_layer_that_was_not_captured_has_no_rows(two: list[Result]) -> None:
    back = from_table(tabled(two), layer=3, site="mlp_out")

    assert back.keys == []
    assert back.rows_ND.shape == (0, WIDTH)
