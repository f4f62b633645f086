"""A forward's rows reach exactly the readings that asked for them."""

from __future__ import annotations

import torch

from actors.engine.gather import keep_rows, sum_by_owner, to_step
from actors.engine.reading import Reading, make_reading
from actors.request import Capture

CPU = torch.device("cpu")


def readings(count: int) -> list[Reading]:
    return [make_reading(Capture(layers=(0, 1), tokens="all")) for _ in range(count)]


def test_a_step_knows_whose_each_row_is() -> None:
    first, second, third = readings(3)
    runs = [(first, 0, 2), (second, 2, 3), (third, 3, 6)]
    step = to_step(runs, [4, 0, 1], CPU)
    assert step.rows.tolist() == [4, 5, 0, 1, 2, 3]
    assert step.owner.tolist() == [0, 0, 1, 2, 2, 2]
    assert step.bounds.tolist() == [0, 2, 3, 6]


def test_sums_are_by_owner_and_in_float32() -> None:
    pair = readings(2)
    step = to_step([(pair[0], 0, 2), (pair[1], 2, 3)], [0, 3], CPU)
    value = torch.randn(4, 5).bfloat16()
    got = sum_by_owner(value, step, squares=True)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0, 0], value[0].float() + value[1].float())
    torch.testing.assert_close(got[1, 1], value[3].float() ** 2)
    assert sum_by_owner(value, step, squares=False).shape == (2, 1, 5)


def test_kept_rows_are_each_readings_own_run() -> None:
    first, second = readings(2)
    block = torch.arange(2 * 5 * 3).view(2, 5, 3)
    keep_rows(block, "resid_post", [(first, 0, 3), (second, 3, 5)])
    keep_rows(block + 100, "resid_post", [(second, 1, 2)])
    assert torch.equal(first.pieces["resid_post"][0].rows(), block[:, :3])
    both = [piece.rows() for piece in second.pieces["resid_post"]]
    assert torch.equal(torch.cat(both, dim=1), torch.cat([block[:, 3:], block[:, 1:2] + 100], 1))
