"""Values staged for a device are the values given, whatever their shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.engine.staging import blank, rows_of, stage, stage_parts, there

CPU = torch.device("cpu")


def test_parts_of_any_length_come_back_as_they_were() -> None:
    parts = [np.arange(n, dtype=np.int64) + 10 * n for n in (5, 0, 1, 8, 3)]
    moved = stage_parts(parts, CPU)
    assert [t.tolist() for t in moved] == [p.tolist() for p in parts]
    assert {t.dtype for t in moved} == {torch.int64}


def test_every_part_begins_at_sixteen_bytes() -> None:
    moved = stage_parts([np.arange(n, dtype=np.int64) for n in (1, 3, 2, 7, 1)], CPU)
    base = moved[0].data_ptr()
    assert [(t.data_ptr() - base) % 16 for t in moved] == [0] * 5


def test_no_parts_are_no_tensors() -> None:
    assert stage_parts([], CPU) == []


def test_a_view_with_strides_is_staged_by_value() -> None:
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert stage(grid[:, ::2], CPU).tolist() == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]


@pytest.mark.parametrize(
    ("positions", "want"),
    [(range(3, 7), [3, 4, 5, 6]), (range(4, 4), []), ([9, 2], [9, 2]), ((), [])],
)
def test_positions_become_rows(positions, want) -> None:
    rows = rows_of(positions)
    assert rows.tolist() == want
    assert rows.dtype == np.int64


@pytest.mark.gpu
def test_staging_does_not_wait_for_the_device() -> None:
    device = torch.device("cuda")
    torch.cuda._sleep(2_000_000_000)  # about a second
    done = torch.cuda.Event()
    done.record()
    moved = stage(np.arange(1000, dtype=np.int64), device)
    assert not done.query()
    assert moved.tolist() == list(range(1000))


def test_a_blank_is_there_as_it_was_filled() -> None:
    host = blank((2, 3), CPU)
    assert host.dtype == torch.float32
    host.numpy()[:] = ((0, 0, 0), (1, 2, 3))
    assert there(host, CPU).tolist() == [[0, 0, 0], [1, 2, 3]]
