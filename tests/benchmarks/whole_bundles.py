"""Bundles from the first token to the last: bare, steered, pooled, and with every row kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from actors.engine.engine import Engine
from actors.request import Bundle, Capture, Request, Sampling, Steering

Times = NDArray[np.float64]

MODES: dict[str, tuple[bool, Any]] = {
    "bare": (False, None),
    "steered": (True, None),
    "pooled": (False, "mean"),
    "steered_pooled": (True, "mean"),
    "raw": (False, "none"),
}
"""Mode -> (every request steers its own way, reduction of a capture of all layers and tokens)."""


def requests(count: int, prompt: int, new: int, engine: Engine, mode: str) -> Bundle:
    """``count`` random requests in one of ``MODES``."""
    rng = np.random.default_rng(1)
    steers, reduction = MODES[mode]
    layers = tuple(range(engine.info.num_layers))
    width = engine.info.hidden_size
    vectors = {f"v{i}": rng.standard_normal(width).astype(np.float32) for i in range(count)}
    made = []
    for i in range(count):
        steering = (Steering(layer=i % len(layers), vector=f"v{i}", coefficient=0.01),)
        capture = (Capture(layers=layers, tokens="all", reduction=reduction),) if reduction else ()
        made.append(
            Request(
                id=f"{new}/{i}",
                token_ids=tuple(int(t) for t in rng.integers(5, 30000, size=prompt)),
                sampling=Sampling(max_new_tokens=new, ignore_eos=True),
                steering=steering if steers else (),
                capture=capture,
            )
        )
    return Bundle(
        id=f"{count}x{prompt}+{new}", requests=tuple(made), vectors=vectors if steers else {}
    )


def whole_s(engine: Engine, bundles: Sequence[Bundle], *, warm: int = 2, repeat: int = 7) -> Times:
    """Seconds to answer each bundle, ``[repeat, bundles]``, after ``warm`` rounds more.

    The bundles take turns, so that what changes with time (clocks, the host's other work) meets
    them alike and ratios within a round may be compared.
    """
    found = np.zeros((warm + repeat, len(bundles)))
    for number in range(warm + repeat):
        for i, bundle in enumerate(bundles):
            torch.cuda.synchronize()
            if engine.collectives.world_size > 1:
                dist.barrier()
            began = time.perf_counter()
            reply = engine.run(bundle, share_rows=True)
            found[number, i] = time.perf_counter() - began
            assert all(r.error is None for r in reply.results)
            del reply
    return found[warm:]


def waves(engine: Engine, mode: str, count: int = 1024, prompt: int = 64) -> Bundle:
    """Four batches of requests that end at different lengths, as those with an end token do."""
    rng = np.random.default_rng(2)
    like = requests(256, prompt, 1, engine, mode)
    made = []
    for i in range(count):
        one = like.requests[i % 256]
        sampling = Sampling(max_new_tokens=int(rng.integers(16, 113)))
        tokens = tuple(int(t) for t in rng.integers(5, 30000, size=prompt))
        made.append(replace(one, id=f"w{i}", token_ids=tokens, sampling=sampling))
    return Bundle(id=f"waves-{count}", requests=tuple(made), vectors=like.vectors)


def measure_waves(
    engine: Engine, say: Callable[[str], None], found: dict[str, Any], keep: Callable[[], None]
) -> None:
    """Put into ``found`` seconds and rates of bundles of four batches, whose rows end one by one.

    Args:
        engine: This rank's.
        say: Prints a line, on one rank.
        found: By workload and mode.
        keep: Called after each, so that a run that is cut short keeps what it has.
    """
    modes = ("bare", "steered", "steered_pooled")
    bundles = [waves(engine, mode) for mode in modes]
    times = whole_s(engine, bundles, warm=1, repeat=3)
    for i, (mode, bundle) in enumerate(zip(modes, bundles, strict=True)):
        new = sum(r.sampling.max_new_tokens for r in bundle.requests)
        entry = found[f"1024x64+16..112_{mode}"] = _entry(times, i, "new_tokens_per_s", new)
        say(f"waves {mode}: {_text(entry)}, {new / entry['s']:.0f} new tok/s at most")
    keep()


def measure_whole(
    engine: Engine, say: Callable[[str], None], extra: dict[str, Any], keep: Callable[[], None]
) -> None:
    """Put into ``extra`` seconds and rates of both workloads in all modes, as ``measure_waves``."""
    row_bytes = engine.info.num_layers * engine.info.hidden_size * 2
    for what, count, prompt, new in (("256x64+64", 256, 64, 64), ("prefill_64x512", 64, 512, 0)):
        tokens = count * (prompt + new)
        named = {mode: requests(count, prompt, new, engine, mode) for mode in MODES}
        raw = named.pop("raw")
        if new:
            # A reading of all tokens runs the last one's row too: one step more for everybody.
            named["bare_one_more"] = requests(count, prompt, new + 1, engine, "bare")
        times = whole_s(engine, list(named.values()))
        for i, mode in enumerate(named):
            more = count if mode == "bare_one_more" else 0
            entry = extra[f"{what}_{mode}"] = _entry(times, i, "tokens_per_s", tokens + more)
            say(f"{what} {mode}: {_text(entry)}, {entry['tokens_per_s']:.0f} tok/s")
        keep()
        # Rows fill pinned memory, so this workload has no turn among the others.
        times = whole_s(engine, [named["bare"], raw], repeat=3)
        entry = extra[f"{what}_raw"] = _entry(times, 1, "tokens_per_s", tokens)
        entry["rows_bytes_per_s"] = tokens * row_bytes / entry["s"]
        rate = entry["rows_bytes_per_s"] / 1e9
        say(f"{what} raw: {_text(entry)}, rows to the host {rate:.2f} GB/s")
        keep()


def _entry(times: Times, at: int, rate: str, tokens: int) -> dict[str, float]:
    """Median seconds, rate, and the median and range of a round's ratios to its first bundle."""
    seconds = float(np.median(times[:, at]))
    ratios = times[:, at] / times[:, 0]
    spread = {"of_bare_least": float(ratios.min()), "of_bare_most": float(ratios.max())}
    return {"s": seconds, rate: tokens / seconds, "of_bare": float(np.median(ratios)), **spread}


def _text(entry: dict[str, float]) -> str:
    least, most = entry["of_bare_least"], entry["of_bare_most"]
    return f"{entry['s']:.4f} s, {entry['of_bare']:.4f} of bare ({least:.3f} to {most:.3f})"
