"""A coefficient is never shown without what it is measured in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIGNS = {"residual_norm": "x norm", "row_norm": "x row norm", "length": "length"}
_WORDS = {
    "residual_norm": "x the layer's mean residual norm",
    "row_norm": "x each row's norm",
    "length": "length in the residual stream",
    "fraction": "fraction removed",
}


def strength(row: Mapping[str, Any]) -> str:
    """A cell's coefficient with its unit, as short as it can be: ``1.25 x norm``."""
    unit = row.get("coefficient_unit")
    sign = _SIGNS.get(str(unit), str(unit) if unit else "")
    number = f"{row['coefficient']:g}"
    return f"{sign} {number}" if unit == "length" else f"{number} {sign}".rstrip()


def axis(unit: str | None) -> str:
    """Title of an axis of coefficients."""
    return f"coefficient ({_WORDS[unit]})" if unit in _WORDS else "coefficient"
