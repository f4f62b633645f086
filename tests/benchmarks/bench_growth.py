"""How cost grows: time with tokens, memory with queued requests.

``python -m tests.benchmarks.bench_growth`` writes a record and ``plot_growth`` draws it. Each row
is a process of its own with one thread and a small random model. Its attention is one head of 8 on
purpose: attention reads the whole context for every token, in any engine, and what is measured here
is all that surrounds it. Time is CPU time, which a busy machine stretches less than the clock's.
Memory is the process's resident set above what it was when the bundle was handed over, with
answers dropped as they come: what the engine itself needs.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 16384,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
QUEUED = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
COMPLETIONS = tuple(2**k for k in range(5, 12))
PROMPTS = tuple(2**k for k in range(5, 13))
KINDS = ("plain", "steered and read")
WHY = (
    "requests of one length cost the same each; within a sequence the exponent is above 1 because "
    "attention reads the whole context for every token"
)


def resident_bytes() -> int:
    """What this process holds in memory now, after giving back what it can."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def make_engine(folder: str) -> Any:
    """A small random llama with a tokenizer of one letter per token."""
    import torch

    from actors.engine.engine import Engine
    from actors.request import EngineSpec

    torch.set_num_threads(1)
    Path(folder, "config.json").write_text(json.dumps(CONFIG))
    spec = EngineSpec(
        model_path=folder, weights="random", max_batch_tokens=1024, kv_cache_bytes=128 << 20
    )

    def decode(ids: Sequence[int]) -> str:
        return "".join(chr(97 + i % 20) for i in ids)

    return Engine.load(spec, rank=0, world_size=1, process_group=None, decode=decode)


def short_requests(count: int, kind: str) -> Iterator[Any]:
    """Four prompt tokens and one new one each; no two prompts share a page."""
    from actors.request import Capture, Request, Sampling, Steering

    extra: dict[str, Any] = {}
    if kind != "plain":
        extra["steering"] = (Steering(layer=1, vector="v", coefficient=0.5),)
        read = Capture(layers=(0, 1, 2, 3), tokens="response[:]", reduction="mean")
        extra["capture"] = (read,)
    sampling = Sampling(max_new_tokens=1)
    for i in range(count):
        ids = (3 + i % 500, 3 + i // 500 % 500, 5, 6)
        yield Request(id=str(i), token_ids=ids, sampling=sampling, **extra)


class _Dropped(dict[str, Any]):
    """Forgets every answer."""

    def __setitem__(self, key: str, value: Any) -> None:
        del key, value


def measure_queue(engine: Any, count: int, kind: str) -> dict[str, Any]:
    """Memory and time of one bundle of so many requests."""
    import numpy as np

    from actors.request import Bundle

    vectors = {"v": np.ones(CONFIG["hidden_size"], np.float32)}
    for _ in range(2):  # warm: buffers of the largest batch
        engine.run(Bundle(id="w", requests=tuple(short_requests(600, kind)), vectors=vectors))
    before = resident_bytes()
    bundle = Bundle(id="b", requests=tuple(short_requests(count, kind)), vectors=vectors)
    given = resident_bytes()
    seen: list[int] = []
    step, steps = engine._step, [0]

    def watched(run: Any) -> None:
        if not steps[0]:
            run._results = _Dropped()
        if steps[0] % max(1, count // 4000) == 0:
            seen.append(resident_bytes() - given)
        steps[0] += 1
        step(run)

    engine._step = watched
    engine.run(bundle)
    return {
        "queued": count,
        "kind": kind,
        "given_bytes": given - before,
        "queue_bytes": seen[0],
        "peak_bytes": max(seen),
        "num_steps": steps[0],
    }


def measure_time(engine: Any, count: int, kind: str) -> dict[str, Any]:
    """CPU seconds of a bundle; ``count`` is what grows, ``kind`` names it."""
    from actors.request import Bundle, Request, Sampling

    if kind == "requests":
        requests = tuple(short_requests(count, "plain"))
        tokens = 5 * count
    elif kind == "completion":
        sampling = Sampling(max_new_tokens=count, ignore_eos=True, stop_strings=("zzz", "z!"))
        requests = tuple(
            Request(id=str(i), token_ids=(3 + i, 4, 5, 6), sampling=sampling) for i in range(8)
        )
        tokens = 8 * count
    else:
        sampling = Sampling(max_new_tokens=0)
        ids = tuple(3 + i * 7 % 500 for i in range(count))
        requests = (Request(id="0", token_ids=ids, sampling=sampling),)
        tokens = count
    repeats = max(1, min(20, 4000 // tokens))
    bundle = Bundle(id="b", requests=requests)
    engine.run(bundle)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        engine.run(bundle)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "grows": kind,
        "tokens": tokens,
        "cpu_s": round(cpu / repeats, 5),
        "wall_s": round(wall / repeats, 5),
        "us_per_token": round(cpu / repeats / tokens * 1e6, 1),
    }


def measure_answers(engine: Any, count: int, kind: str) -> dict[str, Any]:
    """What the answers of a bundle take, which whoever asked then holds."""
    import numpy as np

    from actors.request import Bundle

    vectors = {"v": np.ones(CONFIG["hidden_size"], np.float32)}
    engine.run(Bundle(id="w", requests=tuple(short_requests(600, kind)), vectors=vectors))
    bundle = Bundle(id="b", requests=tuple(short_requests(count, kind)), vectors=vectors)
    before = resident_bytes()
    reply = engine.run(bundle)
    return {"answers": len(reply.results), "kind": kind, "bytes": resident_bytes() - before}


MEASURES = {"queue": measure_queue, "time": measure_time, "answers": measure_answers}


def one(measure: str, count: int, kind: str) -> dict[str, Any]:
    """One row, from a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_growth", "--one", measure]
    done = subprocess.run(
        [*command, str(count), kind],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{row}\n")
    return row


def exponent(rows: Sequence[dict[str, Any]], x: str, y: str) -> float | None:
    """Slope of ``log y`` over ``log x``: 1 is linear, 0 is flat; None of fewer than two rows."""
    if len(rows) < 2:
        return None
    points = [(math.log(row[x]), math.log(max(row[y], 1e-12))) for row in rows]
    mean_x = sum(a for a, _ in points) / len(points)
    mean_y = sum(b for _, b in points) / len(points)
    above = sum((a - mean_x) * (b - mean_y) for a, b in points)
    return round(above / sum((a - mean_x) ** 2 for a, _ in points), 3)


def sweep(largest: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All rows and what they say."""
    memory = [one("queue", n, kind) for kind in KINDS for n in QUEUED if n <= largest]
    answers = [one("answers", min(10_000, largest), kind) for kind in KINDS]
    times = [one("time", n, "requests") for n in QUEUED if n <= largest]
    times += [one("time", n, "completion") for n in COMPLETIONS if n <= largest]
    times += [one("time", n, "prompt") for n in PROMPTS if n <= largest]
    says: dict[str, Any] = {"time_exponent": {}, "memory_peak_bytes": {}, "why": WHY}
    for kind in ("requests", "completion", "prompt"):
        mine = [row for row in times if row["grows"] == kind and row["tokens"] >= 500]
        says["time_exponent"][kind] = exponent(mine, "tokens", "cpu_s")
    for kind in KINDS:
        mine = [row for row in memory if row["kind"] == kind]
        says["memory_peak_bytes"][kind] = [mine[0]["peak_bytes"], mine[-1]["peak_bytes"]]
    return [*memory, *answers, *times], says


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("MEASURE", "COUNT", "KIND"))
    parser.add_argument("--largest", type=int, default=QUEUED[-1])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    parser.add_argument("--out", type=Path, default=RECORDS / f"growth_cpu2_{today}.json")
    chosen = parser.parse_args()
    if chosen.one:
        measure, count, kind = chosen.one
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            row = MEASURES[measure](make_engine(folder), int(count), kind)
        sys.stdout.write(json.dumps(row) + "\n")
        return 0
    load = os.getloadavg()
    rows, says = sweep(chosen.largest)
    record = {
        "what": "growth",
        "command": " ".join(["python -m tests.benchmarks.bench_growth", *sys.argv[1:]]),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "date": today,
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()}), one of them used",
        "versions": {n: metadata.version(n) for n in ("torch", "transformers", "numpy")}
        | {"python": platform.python_version()},
        "ceilings": {"load_before": load, "load_after": os.getloadavg()},
        "model": CONFIG,
        "says": says,
        "rows": rows,
    }
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    from tests.benchmarks.plot_growth import draw

    chosen.out.with_suffix(".svg").write_text(draw(record))
    sys.stdout.write(json.dumps(says, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
