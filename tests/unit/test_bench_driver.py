"""The driver's record keeps its bound, and what it measures is the real scheduler at work."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.bench_driver import BOUND_MS, make_plan, measure

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"


def test_every_simulated_task_is_committed_over_all_groups():
    row = measure(400, 8, 1)
    assert row["num_tasks"] == 400
    assert row["num_bundles"] == 300
    assert 1 <= row["groups_at_once"] <= 8
    assert len(row["memory_mib_at_each_tenth"]) == 10


def test_a_quarter_of_the_plan_is_cpu_work_between_two_stages_of_group_work():
    plan = make_plan(40, 4)
    assert len(plan.works) == 40
    assert len(plan.cpu_works()) == 10
    assert {bundle.id.partition("-")[0] for bundle in plan.bundles} == {"left", "right", "steer"}


def test_the_newest_record_has_a_hundred_thousand_tasks_on_64_groups_within_the_bound():
    record = json.loads(sorted(RECORDS.glob("driver_cpu*.json"))[-1].read_text())
    assert record["ceilings"] == {"ms_per_task": BOUND_MS}
    full = [row for row in record["rows"] if row["num_tasks"] == 100_000]
    assert {row["requests_per_bundle"] for row in full} == {1, 64}
    for row in full:
        assert row["groups_at_once"] == row["num_groups"] == 64
        assert row["ms_per_task"] <= BOUND_MS
        # Flat: what is left over is the allocator's, a hundred times less than one task's objects.
        assert row["growth_bytes_per_task_after_the_first_tenth"] <= 300
