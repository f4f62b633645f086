"""What a request would do, in numbers, from small files alone: nothing is started."""

from __future__ import annotations

import os
from collections.abc import Sequence

from conf.resolve import JobRequest
from jobs.capacity import SPEEDS, Memory
from jobs.entry import ExitCode
from jobs.estimate import (
    JUDGE_CALL_S,
    Estimate,
    estimate,
    gpu_dollars,
    hours,
    judge_dollars,
    judge_seconds,
)
from jobs.execution import Batch, load_encoder
from jobs.preflight import experts_held
from jobs.readiness import check_texts, committed
from jobs.report.console import Console, duration
from jobs.runner import make_batches


def show_plan(points: Sequence[JobRequest], console: Console) -> int:
    """Print every batch; refused when one cannot run."""
    fits = [_show(batch, console) for batch in make_batches(points)]
    return ExitCode.DONE if all(fits) else ExitCode.REFUSED


def predict(batch: Batch) -> Estimate:
    """The numbers of one batch."""
    first = batch.points[0]
    return estimate(
        batch.plan,
        batch.model.facts,
        batch.model.spec,
        batch.encoder or load_encoder(first),
        done=committed(batch),
        device_bytes=device_bytes(first),
    )


def device_bytes(request: JobRequest) -> int | None:
    """Memory of one GPU; on the CPU that of this machine, for all ranks together."""
    cluster = request.config.cluster
    if cluster.device_memory_bytes is not None:
        return cluster.device_memory_bytes
    if cluster.device == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch  # seconds of start-up, so only when a GPU is asked about

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def _show(batch: Batch, console: Console) -> bool:
    first, plan, spec = batch.points[0], batch.plan, batch.model.spec
    check_texts(batch, committed(batch))
    found = predict(batch)
    done = len(plan.works) - sum(found.todo.values())
    experts = experts_held(batch.model)
    kind = f"{spec.dtype}, experts in FP8" if experts == "fp8" else spec.dtype
    console.note(
        f"{first.job}: {len(plan.points)} point(s), {len(plan.works)} tasks, "
        f"{done} committed in {batch.run_dir}\n"
        f"model {first.model_name}: {batch.model.facts.num_layers} layers of "
        f"{batch.model.facts.hidden_size}, {kind}, {spec.tensor_parallel_size} rank(s) on "
        f"{spec.device}; {found.num_bundles} bundles to run"
    )
    rows = [
        (kind, str(total), str(found.todo.get(kind, 0)), str(found.requests.get(kind, 0) or "-"))
        for kind, total in found.tasks.items()
    ]
    console.table("Tasks", ("kind", "tasks", "to do", "requests"), rows)
    show_memory(found.memory, console)
    show_work(found, first, console)
    return found.memory.misfit is None


def show_memory(memory: Memory, console: Console) -> None:
    """Bytes on one rank, and whether they fit."""
    cache = f"KV cache {size(memory.cache)}" if memory.cache >= 0 else "no room for a KV cache"
    console.note(
        f"\neach rank: weights {size(memory.weights)}, {cache} "
        f"({memory.cache_tokens:,} tokens; the longest sequence has {memory.longest:,}), "
        f"captured rows on their way out {size(memory.capture)} at most"
    )
    if memory.misfit is not None:
        console.note(f"does not fit: {memory.misfit}")
    elif memory.device is None:
        console.note("fit: not known; set cluster.device_memory_bytes, no GPU is here to ask")
    else:
        console.note(f"fits: {size(memory.device)} are there")


def show_work(found: Estimate, request: JobRequest, console: Console) -> None:
    """Tokens, bytes, judge calls, hours and dollars."""
    config = request.config
    console.note(
        f"tokens: {found.prompt_tokens:,} read, {found.new_tokens:,} generated at most; captured "
        f"rows: {size(found.captured_bytes)} at most"
    )
    where = f"bucket {config.storage.bucket}" if config.storage.kind != "local" else "bucket: none"
    console.note(f"result files: about {size(found.written_bytes)}; {where}")
    console.note(
        f"judge {config.judge.name}: {found.judged_texts:,} texts{_judging(found, request)}"
    )
    speed = SPEEDS[config.cluster.device]
    console.note(
        f"time: about {duration(3600 * hours(found, config))} ({hours(found, config):.3f} h) of "
        f"computing, start-up apart; assumes {speed.bytes_per_s:.2g} bytes/s and "
        f"{speed.ops_per_s:.2g} operations/s for each rank, from {found.source}"
    )
    dollars = gpu_dollars(found, config)
    if config.cluster.gpus_per_rank == 0:
        console.note("GPU dollars: none, no GPU is used")
    elif dollars is None:
        console.note("GPU dollars: not known; set cluster.price_per_gpu_hour")
    else:
        console.note(
            f"GPU dollars: about {dollars:,.2f} at {config.cluster.price_per_gpu_hour:g} for each "
            "GPU and hour"
        )


def _judging(found: Estimate, request: JobRequest) -> str:
    """Calls, time and dollars of a judge that is a server."""
    judge = request.config.judge
    if judge.kind != "endpoint":
        return ""
    priced = judge.usd_per_million_prompt_tokens or judge.usd_per_million_completion_tokens
    cost = f"about {judge_dollars(found, judge):,.2f} dollars" if priced else "price not set"
    return (
        f", one call each, about {found.judge_tokens:,} tokens, {cost}, "
        f"{duration(judge_seconds(found, judge))} at {JUDGE_CALL_S:g} s a call"
    )


def size(num_bytes: int) -> str:
    """Bytes as a person says them."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if abs(num_bytes) >= scale:
            return f"{num_bytes / scale:,.2f} {unit}"
    return f"{num_bytes / 1e3:,.1f} kB"
