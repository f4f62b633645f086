"""Bundles from the first token to the last: bare, steered, pooled, and with every row kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from actors.engine.engine import Engine
from actors.request import Bundle, Capture, Request, Sampling, Steering

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


def whole_s(engine: Engine, bundle: Bundle, *, warm: int = 2, repeat: int = 3) -> float:
    """Seconds to answer a bundle, the median of ``repeat`` after ``warm`` more."""
    found = []
    for number in range(warm + repeat):
        torch.cuda.synchronize()
        if engine.collectives.world_size > 1:
            dist.barrier()
        began = time.perf_counter()
        reply = engine.run(bundle, share_rows=True)
        if number >= warm:
            found.append(time.perf_counter() - began)
        assert all(r.error is None for r in reply.results)
        del reply
    return float(np.median(found))


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
    for mode in ("bare", "steered", "steered_pooled"):
        bundle = waves(engine, mode)
        new = sum(r.sampling.max_new_tokens for r in bundle.requests)
        seconds = whole_s(engine, bundle, warm=1, repeat=2)
        found[f"1024x64+16..112_{mode}"] = {"s": seconds, "new_tokens_per_s": new / seconds}
        say(f"waves {mode}: {seconds:.3f} s, {new / seconds:.0f} new tok/s at most")
        keep()


def measure_whole(
    engine: Engine, say: Callable[[str], None], extra: dict[str, Any], keep: Callable[[], None]
) -> None:
    """Put into ``extra`` seconds and rates of both workloads in all modes, as ``measure_waves``."""
    row_bytes = engine.info.num_layers * engine.info.hidden_size * 2
    for what, count, prompt, new in (("256x64+64", 256, 64, 64), ("prefill_64x512", 64, 512, 0)):
        tokens = count * (prompt + new)
        for mode in MODES:
            seconds = whole_s(engine, requests(count, prompt, new, engine, mode))
            found = extra[f"{what}_{mode}"] = {"s": seconds, "tokens_per_s": tokens / seconds}
            base = extra[f"{what}_bare"]["s"]
            if mode == "bare" and new:
                # A reading of all tokens runs the last one's row too: one step more for everybody.
                longer = whole_s(engine, requests(count, prompt, new + 1, engine, "bare"))
                extra[f"{what}_bare_one_more"] = {"s": longer}
                say(f"{what} bare, one token more: {longer:.3f} s, {longer / base:.3f} of bare")
            text = f"{what} {mode}: {seconds:.3f} s, {tokens / seconds:.0f} tok/s, "
            if mode == "raw":
                # The last token of a completion has no row unless it is run for the reading.
                found["rows_bytes_per_s"] = tokens * row_bytes / seconds
                text += f"rows to the host {tokens * row_bytes / seconds / 1e9:.2f} GB/s, "
            say(text + f"{seconds / base:.3f} of bare")
            keep()
