"""The picture of the growth record is drawn from it, and the record says what the issue asks."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks.bench_growth import exponent
from tests.benchmarks.plot_growth import Axis, Linear, draw

RECORDS = sorted((Path(__file__).parents[1] / "benchmarks/records").glob("growth_*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_committed_picture_is_the_one_that_its_record_gives(path):
    picture = path.with_suffix(".svg").read_text()
    assert draw(json.loads(path.read_text())) == picture
    dots = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}circle")
    rows = json.loads(path.read_text())["rows"]
    times, queues = (sum(name in row for row in rows) for name in ("grows", "queued"))
    assert len(list(dots)) == times + queues + queues // 2  # and what the caller holds, once


def test_the_last_record_shows_linear_time_and_memory_far_below_the_requests_own():
    record = json.loads(RECORDS[-1].read_text())
    assert 0.9 < record["says"]["time_exponent"]["requests"] < 1.1
    for kind in ("plain", "steered and read"):
        (largest,) = [
            r for r in record["rows"] if (r.get("queued"), r.get("kind")) == (100_000, kind)
        ]
        assert largest["peak_bytes"] < largest["given_bytes"] / 4
        assert largest["peak_bytes"] < 5_000_000


def test_exponents_and_scales_by_hand():
    rows = [{"n": n, "linear": 3.0 * n, "square": n * n, "flat": 7.0} for n in (1, 10, 100)]
    assert [exponent(rows, "n", y) for y in ("linear", "square", "flat")] == [1.0, 2.0, 0.0]
    assert exponent(rows[:1], "n", "linear") is None
    decades = Axis(20, 900, 0.0, 300.0)
    assert decades.ticks() == [10.0, 100.0, 1000.0]
    assert decades(100) == pytest.approx(150)
    even = Linear(23.8, 250.0, 0.0)
    assert even.ticks() == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    assert even(10) == pytest.approx(150)
