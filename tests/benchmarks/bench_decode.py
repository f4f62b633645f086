"""Decode, prefill and whole-bundle speed beside the physical floor of the same machine, same run.

On one GPU: ``python -m tests.benchmarks.bench_decode --model mistral_7b``; on several:
``python -m torch.distributed.run --nproc-per-node 4 -m tests.benchmarks.bench_decode ...``.
Random weights of the real shape. The floor is what must be read (weights of the experts that are
expected to be hit, attention, router, head, KV) over the copy bandwidth of this run, plus the
number of all-reduces times the fastest all-reduce of this run at that size.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from actors.engine.engine import Engine
from actors.engine.fast_state import Features
from actors.request import EngineSpec
from tests.benchmarks.floor import CONTEXT, floor_ms
from tests.benchmarks.shapes import FP8, write_shape
from tests.benchmarks.stock import build_stock, continuous_s, generate_ms
from tests.benchmarks.whole_bundles import measure_waves, measure_whole


def timed(step: Callable[[], None], repeat: int = 20, groups: int = 7) -> float:
    """Median milliseconds of one call over several groups of calls."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    found = []
    for _ in range(groups):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeat):
            step()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / repeat)
    return float(np.median(found))


def copy_bandwidth() -> float:
    """Bytes per second of a device-to-device copy, read plus written."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (timed(lambda: target.copy_(source), 5, 5) / 1e3)


def graph_of(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a replayed CUDA graph."""
    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


def best_all_reduce_us(engine: Engine, rows: int) -> dict[str, float]:
    """Microseconds of each all-reduce at a decode step's size, inside a graph of 20."""
    if engine.collectives.world_size == 1:
        return {"none": 0.0}
    fast, found = engine.fast, {}
    name = engine.collectives.group.group_name
    buffer = fast.reduce.buffer(rows)
    plain = torch.zeros_like(buffer)
    ways: dict[str, Callable[[], Any]] = {"nccl": lambda: dist.all_reduce(plain)}
    if fast.reduce.is_symmetric:
        ops = torch.ops.symm_mem
        ways["two_shot"] = lambda: ops.two_shot_all_reduce_(buffer, "sum", name)
        ways["one_shot"] = lambda: ops.one_shot_all_reduce(buffer, "sum", name)
    for label, call in ways.items():
        buffer.zero_()

        def many(call: Callable[[], Any] = call) -> None:
            for _ in range(20):
                call()

        found[label] = timed(graph_of(many), 5, 5) * 1e3 / 20
    return found


def fill_state(engine: Engine, rows: int) -> None:
    """Rows in mid-decode, each with its own steering vector, layer and coefficient."""
    state = engine.fast.state
    pages = -(-(CONTEXT + 96) // engine.cache.page_size)
    assert rows * pages < engine.cache.num_pages, "the cache is too small for the batch"
    table = torch.arange(rows * pages, dtype=torch.int32, device="cuda").view(rows, pages) + 1
    state.clear()
    state.pages[:rows, :pages] = table
    state.tokens[:rows] = torch.arange(rows, device="cuda") * 37 + 5
    state.keys[:rows] = torch.arange(rows, device="cuda") * 7919
    state.temperatures[:rows] = 1.0
    state.positions[:rows] = CONTEXT
    state.left[:rows] = 1 << 30
    state.live[:rows] = 2
    state.eos.fill_(-2)
    state.read_stop[:rows] = 1 << 30
    state.row_slots[:rows] = torch.arange(rows, dtype=torch.int32, device="cuda")
    state.bank.normal_(0, 0.01)
    layers = state.steer_slots.shape[0]
    for row in range(rows):
        state.steer_slots[row % layers, row] = row + 1
        state.steer_coefficients[row % layers, row] = 0.1 + row * 1e-3


def decode_ms(engine: Engine, rows: int, features: Features) -> float:
    """Milliseconds per decode step of ``rows`` sequences."""
    fast = engine.fast
    fast.prepare(rows, features)
    fill_state(engine, rows)

    def step() -> None:
        fast.run(rows, features)

    found = []
    for _ in range(3):
        fast.state.positions[:rows] = CONTEXT
        fast.state.step.zero_()
        found.append(timed_steps(step, fast.state))
    return float(np.median(found))


def timed_steps(step: Callable[[], None], state: Any) -> float:
    """Median over groups of 20 consecutive steps; the history is rewound between groups."""
    found = []
    for _ in range(4):
        state.step.zero_()
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(20):
            step()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 20)
    return float(np.median(found[1:]))


def measure(args: argparse.Namespace, engine: Engine, say: Callable[[str], None]) -> None:
    """All rows of one model."""
    bandwidth = copy_bandwidth()
    world = engine.collectives.world_size
    say(f"copy {bandwidth / 1e12:.2f} TB/s, symmetric {engine.fast.reduce.is_symmetric}")
    rows: list[dict[str, Any]] = []
    for size, ways in engine.fast.joiner.microseconds.items():
        say(f"join of {size} rows, us: { ({k: round(v, 1) for k, v in ways.items()}) }")
    for batch in args.batches:
        reduces = best_all_reduce_us(engine, batch)
        floor = floor_ms(engine, batch, bandwidth, min(reduces.values()))
        plain = decode_ms(engine, batch, Features(reach=0))
        ours = decode_ms(engine, batch, Features(True, True, 0))
        row = {
            "model": args.model, "num_layers": engine.info.num_layers, "tp": world,
            "batch": batch, "ours_ms": ours, "ours_plain_ms": plain, "floor_ms": floor,
            "all_reduce_us": reduces,
        }  # fmt: skip
        rows.append(row)
        say(
            f"{args.model} B={batch}: plain {plain:.3f} ms, steered+captured {ours:.3f} "
            f"({(ours / plain - 1) * 100:+.1f} %), floor {floor:.3f} ({floor / ours:.0%}), "
            f"all-reduce { ({k: round(v, 1) for k, v in reduces.items()}) }"
        )
    found = {"rows": rows, "extra": {}, "copy_bytes_per_s": bandwidth}
    save(args, found)  # a run that is cut short keeps what it has
    extra = found["extra"]
    for is_asked, measured in ((args.whole, measure_whole), (args.waves, measure_waves)):
        if is_asked:
            measured(engine, say, extra, lambda: save(args, found))
    if args.stock:
        compare_stock(args.stock, Path(engine.spec.model_path), engine.device, rows, extra, say)
    for batch in args.kernels:  # last: a profiler once used slows later launches
        from tests.benchmarks.bench_kernels import report

        say(report(engine, args.model, batch))
    save(args, found)


def save(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write what was measured so far, on the first rank."""
    if args.out and int(os.environ.get("RANK", 0)) == 0:
        Path(args.out).write_text(json.dumps(found, indent=1), encoding="utf-8")


def compare_stock(
    batches: list[int],
    path: Path,
    device: torch.device,
    rows: list[dict[str, Any]],
    extra: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Measure stock transformers in the same run and put it beside ours and the floor."""
    model = build_stock(path, device)
    for batch in batches:
        stock = generate_ms(model, batch)
        for row in (row for row in rows if row["batch"] == batch):
            row["stock_ms"] = stock
            say(f"B={batch}: ours {row['ours_ms']:.2f} ms, stock generate() {stock:.1f} ms "
                f"({stock / row['ours_ms']:.1f}x), floor {row['floor_ms']:.2f} ms")  # fmt: skip
    found = extra["stock_continuous_256x64+64"] = continuous_s(model)
    ours = extra.get("256x64+64_steered_pooled", {}).get("s")
    beside = f", ours {ours:.2f} s" if ours else ""
    say(f"stock continuous batching of 256 requests of 64 + 64: {found}{beside}")


def main() -> None:
    """Load the shape, measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mistral_7b")
    parser.add_argument("--layers", type=int, default=None)
    parser.add_argument("--fp8", action="store_true", help="experts stay FP8 in memory")
    parser.add_argument("--whole", action="store_true", help="256 requests, and a prefill")
    parser.add_argument("--waves", action="store_true", help="1,024 requests of many lengths")
    sizes: Callable[[str], list[int]] = lambda s: [int(b) for b in s.split(",")]  # noqa: E731
    parser.add_argument("--batches", type=sizes, default=[1, 32])
    parser.add_argument("--kernels", type=sizes, default=[], help="batch sizes to break down")
    parser.add_argument("--stock", type=sizes, default=[], help="batch sizes to run stock at")
    parser.add_argument("--out", default=None)
    parser.add_argument("--deadline-s", type=float, default=0.0, help="dump stacks and end")
    args = parser.parse_args()
    if args.deadline_s:
        faulthandler.dump_traceback_later(args.deadline_s, exit=True)
    os.environ.setdefault("NCCL_GRAPH_MIXING_SUPPORT", "0")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.cuda.set_device(rank)
    torch.set_num_threads(8)  # as a rank that has some cores; torchrun gives it one
    group = None
    if world > 1:
        dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
        group = dist.group.WORLD

    def say(text: str) -> None:
        if rank == 0:
            print(text, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        changes = {"quantization_config": FP8} if args.fp8 else {}
        path = write_shape(args.model, Path(folder), args.layers, **changes)
        spec = EngineSpec(
            model_path=str(path), weights="random", dtype="bfloat16", device="cuda",
            tensor_parallel_size=world, kv_cache_bytes=6 << 30, max_batch_tokens=8192,
            max_batch_requests=256,
        )  # fmt: skip
        began = time.perf_counter()
        engine = Engine.load(spec, rank=rank, world_size=world, process_group=group)
        torch.cuda.synchronize()
        say(f"{args.model} {args.layers}: {engine.info.weight_bytes / 1e9:.1f} GB a rank, "
            f"{time.perf_counter() - began:.1f} s")  # fmt: skip
        measure(args, engine, say)
    if world > 1:
        dist.barrier()
        os._exit(0)  # symmetric memory and graphs outlive a clean NCCL teardown


if __name__ == "__main__":
    main()
