"""A plan is shown in numbers from small files alone; nothing starts and nothing is written."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from conf.resolve import JobRequest
from jobs.capacity import Memory
from jobs.dry_run import device_bytes, show_memory, show_plan, size
from jobs.entry import main
from jobs.readiness import committed
from jobs.report.console import Console
from jobs.runner import Batch, make_batches
from tests.benchmarks.shapes import FP8, write_shape


def points(job: str, *typed: str, multirun: bool = False) -> list[JobRequest]:
    found: list[JobRequest] = []

    def take(requests, console):
        found.extend(requests)
        return 0

    assert main(job, [*(["--multirun"] if multirun else []), *typed], runner=take) == 0
    return found


def batch(job: str, *typed: str) -> Batch:
    (only,) = make_batches(points(job, *typed))
    return only


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    return f"run_dir={tmp_path / 'run'}"


def test_nothing_is_committed_where_there_is_no_folder(run_dir: str) -> None:
    assert committed(batch("generate", run_dir)) == set()


def test_only_tasks_of_this_plan_count_as_committed(run_dir: str, tmp_path: Path) -> None:
    planned = batch("generate", run_dir)
    records = tmp_path / "run" / "_meta" / "commits"
    records.mkdir(parents=True)
    mine = next(iter(planned.plan.works))
    (records / f"{mine}.json").write_text("{}")
    (records / "somebody-elses-task.json").write_text("{}")

    assert committed(planned) == {mine}


def told(job: str, *typed: str, multirun: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    code = show_plan(points(job, *typed, multirun=multirun), Console(out))
    return code, out.getvalue()


def test_the_plan_is_told_in_numbers(run_dir: str) -> None:
    code, text = told("steer", run_dir, "trait=guilt", "layer=2")

    assert code == 0
    assert text.startswith("steer: 1 point(s), ")
    assert "model toy_mla: 6 layers of 128, float32, 2 rank(s) on cpu; 5 bundles to run" in text
    assert {"kind", "tasks", "to", "do", "requests"} <= set(text.split())
    assert "each rank: weights 6.05 MB, KV cache 536.87 MB (" in text
    assert "\nfits: " in text
    assert " read, " in text
    assert " generated at most; captured rows: " in text
    assert "result files: about " in text
    assert "; bucket: none" in text
    assert "judge lexicon: " in text
    assert "from tests/benchmarks/records/plan_cpu2_2026-11-21.json" in text
    assert "GPU dollars: none, no GPU is used" in text


GPUS = ("model.weights=random", "cluster=h200x8", "trait=guilt", "layer=2")


def test_dollars_are_told_at_a_price_and_asked_for_without_one(run_dir: str) -> None:
    """A group of 8 whose plan takes about t hours costs 8 x 3.5 x t."""
    _, without = told("steer", run_dir, *GPUS)
    _, text = told("steer", run_dir, *GPUS, "cluster.price_per_gpu_hour=3.5")

    assert "GPU dollars: not known; set cluster.price_per_gpu_hour" in without
    assert " at 3.5 for each GPU and hour" in text
    assert "from tests/benchmarks/records/decode_h200x4_2026-11-20.json" in text
    assert "fits: 150.00 GB are there" in text


def test_what_does_not_fit_says_why_and_is_refused(run_dir: str) -> None:
    code, text = told("steer", run_dir, *GPUS, "cluster.device_memory_bytes=1000000")

    assert code == 2
    assert "\ndoes not fit: " in text


def test_a_judge_that_is_a_server_has_calls_time_and_a_price(run_dir: str) -> None:
    server = (
        "judge=endpoint",
        "judge.url=http://127.0.0.1:1/v1",
        "judge.model=m",
        "judge.usd_per_million_prompt_tokens=2",
    )
    _, text = told("steer", run_dir, "trait=guilt", "layer=2", *server)

    assert ", one call each, about " in text
    assert " dollars, " in text
    assert "at 1 s a call" in text


def test_a_bucket_is_named(run_dir: str) -> None:
    _, text = told("generate", run_dir, "storage=r2", "storage.bucket=mine")

    assert "; bucket mine" in text


def test_memory_that_nobody_knows_is_not_guessed() -> None:
    out = io.StringIO()
    memory = Memory(
        weights=10**9, cache=0, cache_tokens=0, capture=0, longest=10, device=None, misfit=None
    )
    show_memory(memory, Console(out))

    assert (
        "fit: not known; set cluster.device_memory_bytes, no GPU is here to ask" in out.getvalue()
    )


def test_weights_that_leave_no_room_have_no_cache_of_negative_size() -> None:
    out = io.StringIO()
    memory = Memory(
        weights=9 * 10**9, cache=-(10**9), cache_tokens=0, capture=0, longest=10, device=8 * 10**9,
        misfit="weights of 9.00 GB are more than 8.00 GB",
    )  # fmt: skip
    show_memory(memory, Console(out))

    assert "weights 9.00 GB, no room for a KV cache (0 tokens;" in out.getvalue()
    assert "does not fit: weights of 9.00 GB" in out.getvalue()


def test_a_size_that_is_set_counts_more_than_what_is_here(run_dir: str) -> None:
    (here,) = points("generate", run_dir)
    (told_so,) = points("generate", run_dir, "cluster.device_memory_bytes=7")

    assert device_bytes(told_so) == 7
    assert (device_bytes(here) or 0) > 10**9


@pytest.mark.parametrize(
    ("number", "text"),
    [(900, "0.9 kB"), (2_500_000, "2.50 MB"), (-3 * 10**9, "-3.00 GB"), (1.5e12, "1.50 TB")],
)
def test_bytes_have_a_unit(number: int, text: str) -> None:
    assert size(number) == text


def test_points_of_a_sweep_are_one_plan(run_dir: str) -> None:
    out = io.StringIO()
    swept = points("steer", run_dir, "trait=guilt", "layer=2,3", multirun=True)
    show_plan(swept, Console(out))

    assert out.getvalue().startswith("steer: 2 point(s), ")


def test_two_models_are_two_plans(run_dir: str) -> None:
    out = io.StringIO()
    swept = points("generate", run_dir, "model=toy_mla,toy_gqa", multirun=True)
    show_plan(swept, Console(out))

    assert out.getvalue().count("generated at most") == 2


def test_nothing_is_written(run_dir: str, tmp_path: Path) -> None:
    show_plan(points("pipeline", run_dir), Console(io.StringIO()))

    assert list(tmp_path.iterdir()) == []


def test_kimi_k2_as_published_fits_one_node_for_its_experts_stay_fp8(
    run_dir: str, tmp_path: Path, toy_mla_path: Path
) -> None:
    folder = write_shape("kimi_k2", tmp_path, quantization_config=FP8)
    for tokenizer in toy_mla_path.glob("tokenizer*"):
        shutil.copy(tokenizer, folder)
    asked = ("trait=guilt", "model=kimi_k2_base", f"model.path={folder}", "model.weights=random",
             "cluster=h200x8")  # fmt: skip
    code, text = told("extract", run_dir, *asked)
    assert code == 0, text
    assert "61 layers of 7168, bfloat16, experts in FP8, 8 rank(s) on cuda" in text
    assert "each rank: weights 132.03 GB, " in text
    code, text = told("extract", run_dir, *asked, "model.expert_weights=dequantized")
    assert code == 2
    assert "bfloat16, 8 rank(s)" in text
    assert "258.5 GB are needed and 150.0 GB are there; use cluster.tensor_parallel_size=16" in text
