"""Kept rows lie at home in order of position, whatever runs they came in; memory has a limit."""

from __future__ import annotations

import random

import pytest
import torch

from actors.engine.gather import find_home, keep_rows
from actors.engine.homes import SLAB_BYTES, Home, Move, Shelf, Staging, send
from actors.engine.reading import finish, make_reading
from actors.engine.sequence import Sequence
from actors.request import Capture
from tests.tiny import ask

CPU = torch.device("cpu")


def _shelf(limit=1 << 30):
    return Shelf(CPU, num_ranks=1, limit=limit)


def _kept(tokens="all", at_most=range(9)):
    reading = make_reading(Capture(layers=(0, 1), tokens=tokens, reduction="none"))
    reading.positions_at_most = at_most
    return reading


def test_homes_do_not_overlap_and_keep_their_shapes() -> None:
    shelf, draw, homes = _shelf(), random.Random(1), []
    for number in range(60):
        shape = (draw.randint(1, 4), draw.randint(1, 30), draw.randint(1, 40))
        home = shelf.home(shape, draw.choice([torch.float32, torch.bfloat16]), first=number)
        assert home is not None
        assert home.host.shape == shape
        homes.append(home)
        home.host.fill_(float(number))
    for number, home in enumerate(homes):
        assert home.first == number
        assert (home.host == number).all()


def test_a_bundle_may_use_its_share_of_memory_and_no_more() -> None:
    shelf = _shelf(limit=1000)
    assert shelf.home((1, 10, 20), torch.float32, 0) is not None
    assert shelf.home((1, 10, 20), torch.float32, 0) is None
    assert shelf.home((1, 5, 10), torch.float32, 0) is not None


def test_a_large_home_has_memory_of_its_own() -> None:
    shelf = Shelf(CPU, num_ranks=1, limit=2 * SLAB_BYTES)
    large = shelf.home((1, SLAB_BYTES // 4, 2), torch.bfloat16, 0)
    small = shelf.home((1, 2, 2), torch.bfloat16, 0)
    assert large is not None
    assert small is not None
    storages = {h.host.untyped_storage().data_ptr() for h in (large, small)}
    assert len(storages) == 2


def test_the_default_limit_is_shared_by_the_ranks() -> None:
    alone, shared = Shelf(CPU, num_ranks=1), Shelf(CPU, num_ranks=4)
    assert alone._left // 4 == pytest.approx(shared._left, abs=4)
    assert shared._left > 1 << 28


def test_rows_go_to_the_places_of_their_positions() -> None:
    home = Home(torch.zeros(2, 6, 3), first=10)
    source = torch.arange(2 * 4 * 3, dtype=torch.float32).view(2, 4, 3)
    landing = send(
        [Move(home, 14, source[:, :2]), Move(home, 10, source[:, 3:])], source, torch.ones(4) > 0
    )
    assert landing.has_come
    assert landing.is_all_good
    assert torch.equal(home.host[:, 4:6], source[:, :2])
    assert torch.equal(home.host[:, 0], source[:, 3])
    assert home.host[:, 1:4].abs().sum() == 0


def test_a_reading_at_home_and_one_on_foot_tell_the_same() -> None:
    draw, generator = random.Random(5), torch.Generator().manual_seed(5)
    for _ in range(20):
        at_home, on_foot, shelf = _kept(), _kept(), _shelf()
        position = 0
        while position < 9:
            count = draw.randint(1, min(4, 9 - position))
            block = torch.randn(2, count + 1, 4, generator=generator)
            for reading in (at_home, on_foot):
                reading.book(range(position, position + count))
            keep_rows(block, "resid_post", [(at_home, 1, count + 1)], shelf=shelf)
            keep_rows(block, "resid_post", [(on_foot, 1, count + 1)])
            position += count
        assert "resid_post" in at_home.homes
        assert not on_foot.homes
        sequence = Sequence(ask(0, range(4), 5), 0, list(range(9)))
        one, other = finish(at_home, sequence), finish(on_foot, sequence)
        assert one.positions.tolist() == other.positions.tolist() == list(range(9))
        assert (one.values["resid_post"] == other.values["resid_post"]).all()


def test_a_sequence_that_ends_early_leaves_the_rest_of_its_home() -> None:
    reading = _kept(at_most=range(2, 9))
    reading.book(range(2, 4))
    keep_rows(torch.ones(2, 2, 4), "resid_post", [(reading, 0, 2)], shelf=_shelf())
    result = finish(reading, Sequence(ask(0, range(4), 5), 0, list(range(4))))
    assert reading.homes["resid_post"].host.shape == (2, 7, 4)
    assert result.values["resid_post"].shape == (2, 2, 4)


def test_a_reading_that_began_on_foot_stays_on_foot() -> None:
    reading, block = _kept(), torch.ones(2, 2, 4)
    reading.book(range(2))
    keep_rows(block, "resid_post", [(reading, 0, 2)], shelf=_shelf(limit=0))
    assert find_home(reading, "resid_post", block, _shelf()) is None
    assert len(reading.pieces["resid_post"]) == 1


def test_reductions_and_selectors_that_read_nothing_have_no_home() -> None:
    block = torch.ones(2, 2, 4)
    open_mean = make_reading(Capture(layers=(0, 1), tokens="response[-2:]", reduction="mean"))
    open_mean.positions_at_most = range(9)
    assert find_home(open_mean, "resid_post", block, _shelf()) is None
    assert find_home(_kept(at_most=range(0)), "resid_post", block, _shelf()) is None


def test_staged_copies_are_contiguous_and_their_own() -> None:
    staging = Staging(64, torch.float32, CPU)
    values = torch.arange(24.0).view(2, 3, 4)
    copy = staging.copy(values.permute(2, 0, 1))
    staging.leaves()
    values.zero_()
    assert copy.is_contiguous()
    assert copy[3, 1].tolist() == [15.0, 19.0, 23.0]


@pytest.mark.gpu
def test_strided_copies_from_a_gpu_come_home() -> None:
    device = torch.device("cuda")
    shelf, staging = Shelf(device, num_ranks=1), Staging(4096, torch.bfloat16, device)
    home = shelf.home((3, 40, 8), torch.bfloat16, first=0)
    assert home is not None
    want = torch.randn(3, 40, 8).bfloat16()
    there = want.cuda()
    for start in range(0, 40, 5):
        block = staging.copy(there[:, start : start + 5])
        landing = send([Move(home, start, block)], block, block.isfinite().all(-1).all(0))
        staging.leaves()
    landing.wait()
    assert landing.is_all_good
    assert torch.equal(home.host, want)
