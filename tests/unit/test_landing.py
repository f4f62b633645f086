"""Values land once, whole, and are read through the place that a reading was given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from actors.engine.landing import Landing, Piece, copy_stream, fetch, land


def test_host_values_have_landed_already_and_are_not_copied() -> None:
    values = torch.randn(3, 4)
    landing = land(values)
    assert landing.has_come
    landing.wait()
    assert landing.host is values
    assert landing.good is None


def test_a_prefill_piece_is_its_run_of_rows() -> None:
    block = torch.arange(2 * 5 * 3).view(2, 5, 3)
    piece = Piece(Landing(block, None), None, None, 1, 4)
    assert torch.equal(piece.rows(), block[:, 1:4])
    assert piece.is_good() is None


@pytest.mark.parametrize("layers", [None, [2, 0]])
def test_a_burst_piece_is_one_rows_steps_at_its_own_layers(layers: list[int] | None) -> None:
    block = torch.arange(4 * 3 * 8 * 2).view(4, 3, 8, 2)  # rows, layers, steps, width
    piece = Piece(Landing(block, None), 2, layers, 3, 7)
    assert torch.equal(piece.rows(), block[2][layers or [0, 1, 2]][:, 3:7])


def test_only_the_flags_of_the_piece_decide_whether_it_is_good() -> None:
    good = torch.ones(2, 6, dtype=torch.bool)
    good[0, 5] = good[1, 0] = False
    landing = Landing(torch.zeros(2, 1, 6, 2), good)
    assert Piece(landing, 0, None, 0, 5).is_good() is True
    assert Piece(landing, 0, None, 3, 6).is_good() is False
    assert Piece(landing, 1, None, 0, 1).is_good() is False
    flat = Landing(torch.zeros(1, 6, 2), good[1])
    assert Piece(flat, None, None, 1, 6).is_good() is True
    assert Piece(flat, None, None, 0, 2).is_good() is False


class SlowEvent:
    """What a copy on its way looks like."""

    def __init__(self) -> None:
        self.is_done = False

    def query(self) -> bool:
        return self.is_done

    def synchronize(self) -> None:
        self.is_done = True


def test_a_copy_on_its_way_is_waited_for_once_and_only_when_read() -> None:
    event = SlowEvent()
    landing = Landing(torch.zeros(1, 2, 2), torch.ones(2, dtype=torch.bool), event)
    piece = Piece(landing, None, None, 0, 2)
    assert not landing.has_come
    assert piece.is_good() is True
    assert event.is_done
    assert landing.has_come


class SharedEvent(SlowEvent):
    """While this thread waits, another one sees the end of the copy and says so."""

    landing: Landing

    def query(self) -> bool:
        self.landing._event = None
        return True

    def synchronize(self) -> None:
        self.landing._event = None


class OnceRead(Landing):
    """A landing whose event is gone at the second look, as when another thread came first."""

    looks = 0

    def __getattribute__(self, name: str) -> object:
        if name == "_event":
            OnceRead.looks += 1
            if OnceRead.looks > 1:
                return None
        return super().__getattribute__(name)


@pytest.mark.parametrize("look", [Landing.wait, Landing.has_come.fget])
def test_a_landing_looks_at_its_event_once(look: Callable[[Landing], object]) -> None:
    event = SharedEvent()
    landing = OnceRead(torch.zeros(1, 1, 1), None, event)
    event.landing = landing
    OnceRead.looks = 0
    look(landing)  # a second look would find None and fail
    assert OnceRead.looks == 1


def test_values_of_the_host_are_fetched_as_they_are() -> None:
    values = torch.arange(6).view(2, 3)[:, :2]
    assert fetch(values) is values


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_a_value_is_fetched_while_rows_are_still_leaving(dtype: torch.dtype) -> None:
    rows = torch.ones(1 << 30, dtype=torch.uint8, device="cuda")
    values = torch.arange(5000, device="cuda").to(dtype).view(50, 100)[:, :70]
    fetch(values)  # compiled
    host = torch.empty(len(rows), dtype=torch.uint8, pin_memory=True)
    torch.cuda.synchronize()
    with torch.cuda.stream(copy_stream(rows.device)):
        for _ in range(4):
            host.copy_(rows, non_blocking=True)
        left = torch.cuda.Event()
        left.record()
    found = fetch(values)
    assert not left.query()  # a plain copy would have come after them
    assert torch.equal(found, values.cpu())
