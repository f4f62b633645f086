"""Sums of many readings in one tensor are the sums that each would have alone."""

from __future__ import annotations

import random

import pytest
import torch

from actors.engine.reading import make_reading
from actors.engine.sums import add_sums, gather_sums, land_sums, take_slots, zero_slots
from actors.request import Capture

LAYERS, WIDTH = 3, 5


def _reading(layers=(0, 1, 2), reduction="mean"):
    return make_reading(Capture(layers=layers, tokens="all[:9]", reduction=reduction))


def _block(generator, count, kinds=1, layers=LAYERS):
    return torch.randn(layers, count, kinds, WIDTH, generator=generator)


@pytest.mark.parametrize("kinds", [1, 2])
def test_random_steps_add_up_for_every_reading(kinds) -> None:
    draw, generator = random.Random(kinds), torch.Generator().manual_seed(kinds)
    readings = [_reading() for _ in range(7)]
    want = {id(r): torch.zeros(LAYERS, kinds, WIDTH) for r in readings}
    seen = set()
    for _ in range(40):
        step = draw.sample(readings, draw.randint(1, 7))
        block = _block(generator, len(step), kinds)
        for number, reading in enumerate(step):
            want[id(reading)] += block[:, number]
            seen.add(id(reading))
        add_sums(step, "resid_post", block.clone())
    assert seen == set(want)
    for reading in readings:
        sums, place = reading.sums["resid_post"]
        torch.testing.assert_close(sums.block[:, place], want[id(reading)], rtol=1e-5, atol=1e-5)
    order = draw.sample(readings, 7)
    together = gather_sums([r.sums["resid_post"] for r in order])
    assert together.shape == (7, LAYERS, kinds, WIDTH)
    for row, reading in zip(together, order, strict=True):
        torch.testing.assert_close(row, want[id(reading)], rtol=1e-5, atol=1e-5)


def test_the_same_readings_again_add_without_an_index() -> None:
    generator = torch.Generator().manual_seed(3)
    readings = [_reading(), _reading()]
    first, second = _block(generator, 2), _block(generator, 2)
    add_sums(readings, "resid_post", first.clone())
    add_sums(readings, "resid_post", second.clone())
    sums, place = readings[1].sums["resid_post"]
    assert place == 1
    assert torch.equal(sums.block, second + first)


def test_sites_are_kept_apart() -> None:
    reading = _reading()
    add_sums([reading], "attn_out", torch.ones(LAYERS, 1, 1, WIDTH))
    add_sums([reading], "mlp_out", torch.full((LAYERS, 1, 1, WIDTH), 2.0))
    found = {site: sums.block.unique().tolist() for site, (sums, _) in reading.sums.items()}
    assert found == {"attn_out": [1.0], "mlp_out": [2.0]}


def test_slots_go_to_their_readings_and_may_be_used_again_at_once() -> None:
    totals = torch.arange(LAYERS * 6 * WIDTH, dtype=torch.float32).view(LAYERS, 6, WIDTH)
    want = totals.clone()
    whole, some = _reading(), _reading(layers=(2, 0))
    add_sums([whole], "resid_post", torch.ones(LAYERS, 1, 1, WIDTH))
    take_slots(totals, [4, 1], [whole, some], "resid_post")
    zero_slots(totals, [4, 1])
    sums, place = whole.sums["resid_post"]
    assert torch.equal(sums.block[:, place, 0], want[:, 4] + 1)
    sums, place = some.sums["resid_post"]
    assert torch.equal(sums.block[:, place, 0], want[[2, 0], 1])
    assert totals[:, [1, 4]].abs().sum() == 0
    assert torch.equal(totals[:, [0, 2, 3, 5]], want[:, [0, 2, 3, 5]])


def test_no_slots_change_nothing() -> None:
    totals = torch.ones(LAYERS, 2, WIDTH)
    zero_slots(totals, [])
    take_slots(totals, [], [], "resid_post")
    assert totals.sum() == LAYERS * 2 * WIDTH


def test_means_are_divided_by_their_own_rows_and_a_mean_of_none_is_no_number() -> None:
    readings = [_reading(), _reading(), _reading()]
    for count, reading in zip((4, 1, 0), readings, strict=True):
        reading.book(range(count))
    add_sums(readings, "resid_post", torch.full((LAYERS, 3, 1, WIDTH), 8.0))
    land_sums([(r, "resid_post") for r in readings], is_mean=True)
    found = [r.total["resid_post"].unique().tolist() for r in readings[:2]]
    assert found == [[2.0], [8.0]]
    assert readings[2].total["resid_post"].isnan().all()
    landing, _ = readings[0].landed["resid_post"]
    assert landing.good is not None
    assert landing.good.tolist() == [True, True, True]  # the sums were; nothing was divided yet
    assert all(not r.sums for r in readings)


def test_a_sum_that_is_not_finite_is_told_from_its_neighbours() -> None:
    readings = [_reading(reduction="sum"), _reading(reduction="sum")]
    block = torch.ones(LAYERS, 2, 2, WIDTH)
    block[1, 1, 0, 3] = float("inf")
    add_sums(readings, "resid_post", block)
    land_sums([(r, "resid_post") for r in readings], is_mean=False)
    landing, place = readings[1].landed["resid_post"]
    assert place == 1
    assert landing.good is not None
    assert landing.good.tolist() == [True, False]


def test_sums_are_of_one_kind_when_they_can_land_in_one_copy():
    generator = torch.Generator().manual_seed(0)
    kinds = {}
    for count, number, layers in ((2, 1, 3), (4, 1, 3), (2, 2, 3), (2, 1, 2)):
        owners = [_reading() for _ in range(count)]
        add_sums(owners, "resid_post", _block(generator, count, number, layers))
        kinds[count, number, layers] = owners[0].sums["resid_post"][0].kind
    assert kinds == {
        (2, 1, 3): (3, 1, 5),
        (4, 1, 3): (3, 1, 5),
        (2, 2, 3): (3, 2, 5),
        (2, 1, 2): (2, 1, 5),
    }
