"""Layers asked for exist; layers not asked for are few and from the middle."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from jobs.entry import compose
from jobs.layers import check_layers, middle_layers
from jobs.report.console import Console


def request(job: str, *overrides: str):
    (point,) = compose(job, list(overrides), Console())
    return point


def test_middle_layers_are_few_and_spread():
    assert middle_layers(6) == (1, 3, 4)
    assert middle_layers(61) == (15, 30, 45)
    assert middle_layers(1) == (0,)
    assert middle_layers(2) == (0, 1)


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UserError, match="layer=6 does not exist: model=toy_mla has 6 layers"):
        check_layers(request("steer", "layer=[1,6]"), 6)
    check_layers(request("steer", "layer=all"), 6)
