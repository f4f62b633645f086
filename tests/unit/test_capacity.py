"""Fit and time are arithmetic on measured speeds; every number here was worked out by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from actors.model.family import ModelFacts, read_model_facts
from actors.model.memory import RankWeights, rank_weights
from actors.request import EngineSpec
from jobs.capacity import SPEEDS, Speed, bundle_seconds, size_memory, step_seconds
from jobs.demand import Demand
from tests.benchmarks.shapes import FP8, write_shape

ROOT = Path(__file__).resolve().parents[2]
ASKED = Demand(
    num_requests=10, prompt_tokens=100, new_tokens=80, longest=18, captured_bytes=4_000_000
)


@pytest.fixture
def facts(toy_mla_path) -> ModelFacts:
    return read_model_facts(str(toy_mla_path))


@pytest.fixture
def spec(toy_mla_path) -> EngineSpec:
    return EngineSpec(model_path=str(toy_mla_path), tensor_parallel_size=2)


def test_a_cpu_rank_has_the_cache_that_the_engine_takes_and_its_share_of_captured_rows(facts, spec):
    memory = size_memory(facts, spec, [[ASKED, ASKED], [ASKED]], 25 * 10**9)
    assert memory.weights == 6_046_464
    assert memory.cache == 512 << 20
    assert memory.cache_tokens == (29_127 - 1) * 16  # what the engine reports, page 0 apart
    assert memory.capture == 2 * 4_000_000 // 2
    assert (memory.longest, memory.misfit) == (18, None)


def test_a_machine_that_is_too_small_says_by_how_much(facts, spec):
    memory = size_memory(facts, spec, [[ASKED]], 10**9)
    assert memory.misfit == "1.1 GB are needed and 1.0 GB are there; lower kv_cache_bytes"


def test_weights_that_do_not_fit_a_gpu_name_the_group_that_would_hold_them(facts, spec):
    on_gpu = dataclasses.replace(spec, device="cuda", tensor_parallel_size=1)
    memory = size_memory(facts, on_gpu, [[ASKED]], 9_000_000)
    assert memory.weights > 9_000_000
    assert memory.misfit.endswith("use cluster.tensor_parallel_size=2")
    assert size_memory(facts, on_gpu, [[ASKED]], 1_000).misfit.endswith("up to 64 is enough")


def test_a_gpu_gives_its_cache_what_the_weights_leave(facts, spec):
    on_gpu = dataclasses.replace(spec, device="cuda")
    memory = size_memory(facts, on_gpu, [[ASKED]], 106_046_464)
    assert memory.cache == 85_000_000
    assert memory.misfit is None
    unknown = size_memory(facts, on_gpu, [[ASKED]], None)
    assert (unknown.cache, unknown.misfit) == (0, None)


def test_a_cache_shorter_than_one_sequence_is_refused(facts, spec):
    tiny = dataclasses.replace(spec, kv_cache_bytes=2 * 16 * 6 * 48 * 4)
    memory = size_memory(facts, tiny, [[ASKED]], None)
    assert memory.cache_tokens == 16
    assert memory.misfit == (
        "the cache holds 16 tokens and the longest sequence has 18; raise cluster.kv_cache_bytes "
        "or cluster.tensor_parallel_size"
    )


def test_a_step_takes_as_long_as_the_slower_of_reading_and_arithmetic():
    weights = RankWeights(embedding=0, shared=1000, experts=0, active_share=0.0)
    reads = Speed(bytes_per_s=1000, ops_per_s=1e9, step_s=0.5, source="")
    counts = Speed(bytes_per_s=1e9, ops_per_s=1000, step_s=0.5, source="")
    assert step_seconds(weights, 10, 4, reads) == 0.5 + 4.0
    assert step_seconds(weights, 10, 4, counts) == 0.5 + 20.0


def test_a_small_cache_makes_more_steps_and_a_large_batch_fewer(facts, spec):
    def seconds(cache_bytes, **changes):
        asked = dataclasses.replace(spec, kv_cache_bytes=cache_bytes, **changes)
        memory = size_memory(facts, asked, [[ASKED]], None)
        return bundle_seconds(facts, asked, [ASKED], memory)

    roomy, narrow = seconds(None), seconds(3 * 16 * 6 * 48 * 4)
    assert narrow > 5 * roomy  # one sequence at a time, not ten
    assert seconds(None, max_batch_requests=1) == pytest.approx(narrow)


def test_decoding_mistral_on_four_gpus_is_predicted_within_a_factor_of_two(tmp_path):
    """The record says 2.69 ms for a batch of 32, and 3.10 ms for 128."""
    config = {
        "model_type": "mistral",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "vocab_size": 32000,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = rank_weights(read_model_facts(str(tmp_path)), 4)
    for rows, measured_s in ((32, 0.00269), (128, 0.00310)):
        assert 0.5 < step_seconds(weights, rows, 2, SPEEDS["cuda"]) / measured_s < 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_speed_names_a_record_that_is_there(device):
    record = json.loads((ROOT / SPEEDS[device].source).read_text())
    assert record["rows"]


def test_kimi_k2_fits_eight_gpus_where_its_experts_stay_fp8(tmp_path):
    path = write_shape("kimi_k2", tmp_path, quantization_config=FP8)
    facts, gpu = read_model_facts(str(path)), 141 * 10**9
    spec = EngineSpec(
        model_path=str(path), weights="random", dtype="bfloat16", device="cuda",
        tensor_parallel_size=8,
    )  # fmt: skip
    memory = size_memory(facts, spec, [[ASKED]], gpu)
    assert (memory.misfit, round(memory.weights / 1e9)) == (None, 132)
    wide = dataclasses.replace(spec, expert_weights="dequantized")
    assert size_memory(facts, wide, [[ASKED]], gpu).misfit.endswith("tensor_parallel_size=32")
    four = dataclasses.replace(spec, tensor_parallel_size=4)
    assert size_memory(facts, four, [[ASKED]], gpu * 1.1).misfit.endswith("parallel_size=8")
    reading = bundle_seconds(facts, spec, [ASKED], memory)
    assert reading < 0.7 * bundle_seconds(facts, wide, [ASKED], memory)
