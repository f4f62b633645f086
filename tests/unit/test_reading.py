"""What a reading kept becomes exactly the rows, sums or means that its selector names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.engine.landing import Landing, Piece
from actors.engine.reading import count_non_finite, finish, make_reading, visited_sites
from actors.engine.sequence import Sequence
from actors.request import Capture
from tests.tiny import ask


def _sequence(length: int, prompt: int = 3) -> Sequence:
    request = ask("r", range(3, 3 + prompt), 20)
    return Sequence(request, 0, list(request.token_ids) + [7] * (length - prompt))


@pytest.mark.parametrize(
    ("sites", "visited"),
    [
        (("resid_post",), ("resid_post",)),
        (("router",), ("router", "router_weights", "router_experts")),
        (("mlp_out", "mlp_out", "attn_out"), ("mlp_out", "attn_out")),
    ],
)
def test_a_router_is_three_places_and_no_place_is_visited_twice(sites, visited):
    assert visited_sites(Capture(layers=(0,), sites=sites)) == visited


@pytest.mark.parametrize(
    ("tokens", "reduction", "streams"),
    [
        ("response[:5]", "mean", True),
        ("all", "sum", True),
        ("response[-1]", "mean", False),  # which row it is shows at the end
        ("all[:-2]", "sum", False),
        ("prompt[-1]", "mean", True),
        ("response[:]", "none", False),
        ("response[:]", "projection", False),
        ("response[-1]", "moments", True),
    ],
)
def test_only_reductions_over_known_rows_are_summed_as_they_come(tokens, reduction, streams):
    capture = Capture(layers=(0,), tokens=tokens, reduction=reduction)
    assert make_reading(capture).streams is streams


def _kept(tokens: str, reduction: str, dtype=torch.float32):
    """Rows 0 to 5 of two layers, in two chunks; row p of layer l is 10 l + p."""
    reading = make_reading(Capture(layers=(0, 1), tokens=tokens, reduction=reduction))
    rows = torch.tensor([[[10.0 * layer + p] * 2 for p in range(6)] for layer in range(2)])
    reading.book(range(6))
    whole = Landing(rows.to(dtype), None)
    reading.pieces["resid_post"] = [
        Piece(whole, None, None, 0, 4),
        Piece(whole, None, None, 4, rows.shape[1]),
    ]
    return reading


@pytest.mark.parametrize(
    ("tokens", "positions"),
    [("response[-2:]", [4, 5]), ("all[-5:-3]", [1, 2]), ("response[:-1]", [3, 4])],
)
def test_an_open_selector_is_cut_when_the_length_is_known(tokens, positions):
    for reduction in ("none", "mean", "sum"):
        result = finish(_kept(tokens, reduction), _sequence(6))
        values = result.values["resid_post"]
        rows = np.array([[[10.0 * layer + p] * 2 for p in positions] for layer in range(2)])
        want = {
            "none": rows,
            "mean": rows.mean(1),
            "sum": np.stack((rows.sum(1), (rows**2).sum(1)), axis=1),
        }[reduction]
        assert result.positions.tolist() == positions
        assert values.tolist() == want.tolist()
        assert (result.layers, result.tokens, result.reduction) == ((0, 1), tokens, reduction)


def test_rows_that_may_have_counted_but_did_not_are_dropped():
    result = finish(_kept("response[9:-1]", "mean"), _sequence(6))
    assert result.positions.tolist() == []
    assert np.isnan(result.values["resid_post"]).all()
    assert finish(_kept("response[9:-1]", "sum"), _sequence(6)).values["resid_post"].sum() == 0


def test_streamed_sums_are_divided_by_the_rows_that_were_read():
    reading = make_reading(Capture(layers=(0, 1), tokens="all[:4]", reduction="mean"))
    reading.book(range(4))
    reading.total["resid_post"] = torch.tensor([[[8.0, 4.0]], [[2.0, 0.0]]])
    assert finish(reading, _sequence(6)).values["resid_post"].tolist() == [[2.0, 1.0], [0.5, 0.0]]
    reading = make_reading(Capture(layers=(0,), tokens="all[:4]", reduction="sum"))
    reading.book(range(2))
    reading.total["resid_post"] = torch.tensor([[[3.0], [5.0]]])
    assert finish(reading, _sequence(6)).values["resid_post"].tolist() == [[[3.0], [5.0]]]


def test_bits_of_bfloat16_come_back_as_the_numbers_they_were():
    result = finish(_kept("all[-6:]", "none", torch.bfloat16), _sequence(6))
    bits = result.values["resid_post"].astype(np.uint32) << 16
    assert result.dtype == "bfloat16"
    assert bits.view(np.float32)[1, :, 0].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]


def test_expert_ids_are_int32_and_never_count_as_broken():
    reading = make_reading(Capture(layers=(1,), sites=("router",), tokens="all"))
    reading.book(range(2))
    chosen = Landing(torch.tensor([[[4, 0], [1, 5]]]), None)
    reading.pieces["router_experts"] = [Piece(chosen, None, None, 0, 2)]
    (values,) = finish(reading, _sequence(3)).values.values()
    assert values.dtype == np.int32
    assert values.tolist() == [[[4, 0], [1, 5]]]
    assert count_non_finite(values, "float32") == 0


@pytest.mark.parametrize(
    ("array", "dtype", "count"),
    [
        (np.array([1.0, np.nan, np.inf, -np.inf], "f4"), "float32", 3),
        (np.array([0x7F80, 0xFF80, 0x7FC0, 0x7F7F, 0x0000], "u2"), "bfloat16", 3),
        (np.array([0x7F80], "u2"), "float32", 0),  # plain integers
        (np.zeros((0, 4), "f4"), "float32", 0),
    ],
)
def test_values_that_are_not_finite_are_counted_in_both_encodings(array, dtype, count):
    assert count_non_finite(array, dtype) == count


def test_rows_are_read_in_turn_and_none_is_left_out():
    reading = make_reading(Capture(layers=(0,), tokens="all"))
    for wanted in (range(2, 5), range(5, 6), range(6, 9)):
        reading.book(wanted)
    assert reading.positions == range(2, 9)
    for elsewhere in (range(10, 11), range(8, 9)):
        with pytest.raises(AssertionError):
            reading.book(elsewhere)
