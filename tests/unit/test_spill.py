"""Rows that waited on the disk come back as they went, and leave no file behind."""

from __future__ import annotations

import os

import numpy as np
import pytest

from storage.spill import Spill

ROWS = np.arange(60 * 8, dtype=np.uint16).reshape(60, 8)


def test_what_was_spilled_comes_back(tmp_path):
    spill = Spill(tmp_path / "s")
    first = spill.append(ROWS[:10])
    second = spill.append(ROWS[10:])
    assert (first, second) == (0, 160)
    assert spill.read(second, 16) == ROWS[10].tobytes()
    assert spill.read(0, ROWS.nbytes) == ROWS.tobytes()
    spill.drop()


def test_the_file_is_there_from_the_first_row_until_it_is_dropped(tmp_path):
    path = tmp_path / "s"
    spill = Spill(path)
    assert not path.exists()
    spill.append(ROWS)
    assert path.stat().st_size == 960
    spill.drop()
    spill.drop()
    assert not path.exists()


def test_nobody_else_may_read_it(tmp_path):
    spill = Spill(tmp_path / "s")
    spill.append(ROWS)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    spill.drop()


def test_a_name_that_is_taken_is_not_overwritten(tmp_path):
    (tmp_path / "s").write_bytes(b"someone's")
    with pytest.raises(FileExistsError):
        Spill(tmp_path / "s").append(ROWS)
    assert (tmp_path / "s").read_bytes() == b"someone's"


def test_a_disk_that_takes_a_few_bytes_at_a_time_loses_none(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, body: write(handle, body[:7]))
    spill = Spill(tmp_path / "s")
    assert spill.append(ROWS) == 0
    assert spill.append(ROWS) == 960
    monkeypatch.undo()
    assert spill.read(960, 960) == ROWS.tobytes()
    spill.drop()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_every_dtype_of_rows_keeps_its_bits(tmp_path, dtype):
    rows = np.array([[0, 1], [65_535, 7]], dtype)
    spill = Spill(tmp_path / "s")
    spill.append(rows)
    assert np.array_equal(np.frombuffer(spill.read(0, rows.nbytes), dtype).reshape(2, 2), rows)
    spill.drop()
