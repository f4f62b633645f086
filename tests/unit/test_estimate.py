"""Predictions of a real plan, with what is committed left out, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.resolve import JobRequest
from conf.schema import JobConfig, JudgeConfig
from jobs.entry import main
from jobs.estimate import (
    Estimate,
    estimate,
    forecast,
    gpu_dollars,
    hours,
    judge_dollars,
    judge_seconds,
)
from jobs.runner import Batch, load_encoder, make_batches

STEER = ("steer", "trait=anxiety", "layer=3", "coefficient=[90,180]", "method=mean_difference")


def batch(tmp_path: Path, job: str, *typed: str) -> Batch:
    found: list[JobRequest] = []
    main(
        job, [f"run_dir={tmp_path}", *typed], runner=lambda requests, _: found.extend(requests) or 0
    )
    (only,) = make_batches(found)
    return only


def of(planned: Batch, done: set[str] = frozenset()) -> Estimate:
    encoder = load_encoder(planned.points[0])
    return estimate(planned.plan, planned.model.facts, planned.model.spec, encoder, done=done)


def test_a_plan_is_counted_by_kind(tmp_path: Path) -> None:
    found = of(batch(tmp_path, *STEER))

    assert found.tasks == found.todo
    assert found.requests == {"responses": 52, "baseline": 56, "steering": 336}
    assert found.judged_texts == 52 + 2 * (56 + 336)
    assert found.new_tokens == 52 * 16 + (56 + 336) * 24
    assert found.judge_tokens == 52 * (400 + 16) + 2 * (56 + 336) * (400 + 24)
    assert found.compute_s > 0


def test_what_is_committed_is_left_out_and_its_bundle_runs_whole(tmp_path: Path) -> None:
    planned = batch(tmp_path, *STEER)
    whole = of(planned)
    bundle = next(one for one in planned.plan.bundles if len(one.works) > 1)
    half = of(planned, {bundle.task_ids[0]})

    assert sum(half.todo.values()) == sum(whole.todo.values()) - 1
    assert half.prompt_tokens == whole.prompt_tokens
    everything = of(planned, set(planned.plan.works))
    assert (everything.num_bundles, everything.new_tokens, everything.compute_s) == (0, 0, 0)
    assert everything.tasks == whole.tasks


def test_dollars_are_hours_times_gpus_times_price(tmp_path: Path) -> None:
    found = of(batch(tmp_path, *STEER))
    config = JobConfig(job="steer")
    assert gpu_dollars(found, config) is None
    config.cluster.tensor_parallel_size, config.cluster.gpus_per_rank = 8, 1
    config.cluster.price_per_gpu_hour = 2.5
    assert gpu_dollars(found, config) == pytest.approx(found.compute_s / 3600 * 8 * 2.5)


def test_a_slow_judge_decides_how_long_it_takes(tmp_path: Path) -> None:
    """836 texts at 8 calls of 1 s at once, or at 60 a minute."""
    found = of(batch(tmp_path, *STEER))
    judge = JudgeConfig(name="e", kind="endpoint", max_concurrency=8)
    assert judge_seconds(found, judge) == pytest.approx(836 / 8)
    judge.requests_per_minute = 60
    assert judge_seconds(found, judge) == pytest.approx(836)
    config = JobConfig(job="steer", judge=judge)
    assert hours(found, config) == pytest.approx(836 / 3600)
    judge.kind = "lexicon"
    assert judge_seconds(found, judge) == 0
    assert hours(found, config) == pytest.approx(found.compute_s / 3600)


def test_a_judge_costs_what_it_reads_and_writes(tmp_path: Path) -> None:
    found = of(batch(tmp_path, *STEER))
    judge = JudgeConfig(name="e", kind="endpoint")
    assert judge_dollars(found, judge) == 0
    judge.usd_per_million_prompt_tokens, judge.usd_per_million_completion_tokens = 2.0, 10.0
    assert judge_dollars(found, judge) == pytest.approx((found.judge_tokens * 2 + 836 * 10) / 1e6)


def test_a_forecast_sets_what_was_measured_beside_what_was_said(tmp_path: Path) -> None:
    rows = forecast(of(batch(tmp_path, *STEER)), {"tasks": 10.0, "judged texts": 836})
    by_name = {row["quantity"]: row for row in rows}

    assert by_name["judged texts"]["predicted"] == by_name["judged texts"]["actual"] == 836
    assert by_name["computing time"]["actual"] is None
    assert {row["bound"] for row in rows} == {"exact", "at most", "about"}
