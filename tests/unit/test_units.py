"""A coefficient is shown with what it is measured in, or bare where nobody knows."""

from __future__ import annotations

import pytest

from jobs.report.units import axis, strength


@pytest.mark.parametrize(
    ("unit", "number", "said"),
    [
        ("residual_norm", 1.25, "1.25 x norm"),
        ("row_norm", 0.5, "0.5 x row norm"),
        ("length", 180.0, "length 180"),
        ("fraction", 1.0, "1 fraction"),
        (None, 2.0, "2"),
    ],
)
def test_a_coefficient_stands_with_its_unit(unit, number, said):
    assert strength({"coefficient": number, "coefficient_unit": unit}) == said


def test_a_row_from_before_units_is_shown_bare():
    assert strength({"coefficient": -3.5}) == "-3.5"


def test_an_axis_says_what_its_numbers_multiply():
    assert axis("residual_norm") == "coefficient (x the layer's mean residual norm)"
    assert axis("length") == "coefficient (length in the residual stream)"
    assert axis(None) == axis("") == "coefficient"
