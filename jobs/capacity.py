"""Whether a rank can hold a plan, and how long it computes: arithmetic on a few measured numbers.

Each speed names the record it was measured in. Nothing is asked of a GPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from actors.model.family import ModelFacts, kept_blocks
from actors.model.memory import (
    CACHE_SHARE,
    CPU_CACHE_BYTES,
    ITEM_BYTES,
    RankWeights,
    cache_values_per_token,
    rank_weights,
)
from actors.request import EngineSpec
from jobs.demand import Demand


class Speed(NamedTuple):
    """What one rank was measured to do."""

    bytes_per_s: float
    """Weights read in decode steps."""
    ops_per_s: float
    """Arithmetic, two operations for each weight and token."""
    step_s: float
    """On top of each decode step, however small."""
    source: str
    """The record."""


SPEEDS = {
    "cuda": Speed(2.1e12, 1.2e14, 0.0005, "tests/benchmarks/records/decode_h200x4_2026-11-20.json"),
    "cpu": Speed(5.0e9, 4.0e9, 0.012, "tests/benchmarks/records/plan_cpu2_2026-11-21.json"),
}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one rank."""

    weights: int
    cache: int
    """For keys and values; negative when the weights alone do not fit."""
    cache_tokens: int
    capture: int
    """Captured rows of the largest bundle, this rank's share of the layers; at most."""
    longest: int
    """Tokens of the longest sequence."""
    device: int | None
    """Memory of one GPU, or of the machine for all its ranks; None when nobody said."""
    misfit: str | None = None
    """Why it cannot run, with a way out."""


def size_memory(
    facts: ModelFacts,
    spec: EngineSpec,
    bundles: Sequence[Sequence[Demand]],
    device_bytes: int | None,
) -> Memory:
    """What a rank holds, and whether that is possible."""
    size, item = spec.tensor_parallel_size, ITEM_BYTES[spec.dtype]
    weights = _held(facts, spec, size).held_bytes(item)
    cache = spec.kv_cache_bytes
    if cache is None and spec.device == "cpu":
        cache = CPU_CACHE_BYTES
    if cache is None:
        cache = 0 if device_bytes is None else int((device_bytes - weights) * CACHE_SHARE)
    page = cache_values_per_token(facts, size) * item * spec.page_size
    captured = max((sum(one.captured_bytes for one in bundle) for bundle in bundles), default=0)
    memory = Memory(
        weights=weights,
        cache=cache,
        cache_tokens=max(0, cache // page - 1) * spec.page_size,  # page 0 belongs to nobody
        capture=captured // size,
        longest=max((one.longest for bundle in bundles for one in bundle), default=0),
        device=device_bytes,
    )
    return dataclasses.replace(memory, misfit=_misfit(facts, spec, memory))


def _misfit(facts: ModelFacts, spec: EngineSpec, memory: Memory) -> str | None:
    """Why a plan cannot run, or None."""
    if memory.device is not None:
        on_gpu = spec.device == "cuda"
        ranks = 1 if on_gpu else spec.tensor_parallel_size
        held = ranks * (memory.weights + (0 if on_gpu else memory.cache))
        if held >= memory.device:
            way = _more_ranks(facts, spec, memory.device) if on_gpu else "lower kv_cache_bytes"
            return (
                f"{held / 1e9:.1f} GB are needed and {memory.device / 1e9:.1f} GB are there; {way}"
            )
    is_known = memory.device is not None or spec.device == "cpu" or spec.kv_cache_bytes
    if is_known and memory.cache_tokens < memory.longest:
        return (
            f"the cache holds {memory.cache_tokens:,} tokens and the longest sequence has "
            f"{memory.longest:,}; raise cluster.kv_cache_bytes or cluster.tensor_parallel_size"
        )
    return None


def _more_ranks(facts: ModelFacts, spec: EngineSpec, device_bytes: int) -> str:
    """The smallest group that would hold the weights with a tenth of the memory to spare."""
    for size in facts.fitting_sizes():
        if _held(facts, spec, size).held_bytes(ITEM_BYTES[spec.dtype]) < 0.9 * device_bytes:
            return f"use cluster.tensor_parallel_size={size}"
    return "no tensor_parallel_size up to 64 is enough"


def _held(facts: ModelFacts, spec: EngineSpec, size: int) -> RankWeights:
    """What a rank of a group of ``size`` holds."""
    return rank_weights(facts, size, kept_blocks(spec, facts, size))


def bundle_seconds(
    facts: ModelFacts, spec: EngineSpec, bundle: Sequence[Demand], memory: Memory
) -> float:
    """Computing time of one bundle whose answers all have full length."""
    speed = SPEEDS[spec.device]
    weights = _held(facts, spec, spec.tensor_parallel_size)
    num_requests = sum(one.num_requests for one in bundle)
    rows = min(num_requests, spec.max_batch_requests)
    if memory.cache_tokens and memory.longest:
        rows = min(rows, max(1, memory.cache_tokens // memory.longest))
    steps = math.ceil(sum(one.new_tokens for one in bundle) / max(rows, 1))
    prompt = sum(one.prompt_tokens for one in bundle)
    prefill_s = 2 * weights.per_token * prompt / speed.ops_per_s
    return prefill_s + steps * step_seconds(weights, rows, ITEM_BYTES[spec.dtype], speed)


def step_seconds(weights: RankWeights, rows: int, item_bytes: int, speed: Speed) -> float:
    """One decode step of so many rows: whichever takes longer, reading or arithmetic."""
    reading_s = weights.read_bytes(rows, item_bytes) / speed.bytes_per_s
    arithmetic_s = 2 * weights.per_token * rows / speed.ops_per_s
    return speed.step_s + max(reading_s, arithmetic_s)
