"""Where the time of one decode step goes: every kernel of a replayed graph, by name.

Part of ``bench_decode --kernels``: launches per layer, microseconds each and together, and the time
between kernels, which is what fusing could win.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from actors.engine.engine import Engine
from actors.engine.fast_state import Features
from tests.benchmarks.bench_decode import decode_ms, fill_state

STEPS = 5


def kernel_table(engine: Engine, rows: int, features: Features) -> list[tuple[str, float, float]]:
    """(kernel, launches per step, microseconds each) of a decode step, dearest first."""
    fill_state(engine, rows)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(STEPS):
            engine.fast.run(rows, features)
        torch.cuda.synchronize()
    spent: dict[str, list[float]] = defaultdict(list)
    for event in found.events() or ():
        if event.device_type.name == "CUDA":
            spent[event.name].append(event.device_time)
    rows_of = [(name, len(us) / STEPS, sum(us) / len(us)) for name, us in spent.items()]
    return sorted(rows_of, key=lambda row: -row[1] * row[2])


def report(engine: Engine, model: str, rows: int) -> str:
    """The table of one batch size as text."""
    features = Features(True, True, 0)
    step_us = decode_ms(engine, rows, features) * 1e3
    table = kernel_table(engine, rows, features)
    layers = engine.info.num_layers
    busy = sum(count * us for _, count, us in table)
    launches = sum(count for _, count, _ in table) / layers
    lines = [
        f"{model} B={rows}: {step_us:.0f} us a step, {step_us / layers:.1f} a layer; kernels "
        f"{busy:.0f} us, {launches:.1f} launches a layer"
    ]
    for name, count, us in table[:24]:
        lines.append(
            f"  {count / layers:6.2f} a layer {us:7.2f} us {count * us / layers:7.2f} us a layer  "
            f"{name[:84]}"
        )
    return "\n".join(lines)
