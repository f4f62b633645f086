"""Captured rows against a raw write of the same bytes, and against the formats of others.

Every way is taken in turn, the file forced to the disk, and how busy others kept the machine is
written down beside it: on a shared machine ratios of neighbours say more than megabytes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from storage.activations import ActivationWriter, RowBlock
from storage.manifest import Run

try:
    import lance
except ImportError:
    lance = None

WIDTH, LAYERS = 7168, 61
QUIET = 0.15
"""A machine of which others use less than this is quiet; pairs are taken apart by it."""
NO_LANCE = "the package pylance is not installed: pip install 'traitmill[bench]'"


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def layer_block(values_ND: np.ndarray, layer: int, prompt: int) -> RowBlock:
    positions = np.arange(len(values_ND), dtype=np.int32)
    return RowBlock(
        prompts="bench",
        prompt_id=f"p{prompt:05d}",
        layer=layer,
        site="resid_post",
        values_ND=values_ND,
        positions=positions,
        token_ids=positions,
        is_response=positions >= 0,
    )


def write_rows(run: Run, task: str, blocks: list[list[RowBlock]]) -> Path:
    """All of what a writer actor does: order, write, hash, fsync, commit."""
    writer = ActivationWriter(
        run.wip,
        task_id=task,
        model="bench",
        groups=[(layer, "resid_post") for layer in range(len(blocks))],
        width=WIDTH,
        provenance={},
    )
    for layer, group in enumerate(blocks):
        for block in group:
            writer.add(block)
        writer.complete(layer, "resid_post")
    commit = run.commit(task, {}, model="bench", provenance={}, staged=[writer.finish()])
    return run.root / commit.files[0].key


def write_raw(path: Path, values: np.ndarray) -> None:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for layer in values:
        body = memoryview(layer).cast("B")
        at = 0
        while at < len(body):
            at += os.write(handle, body[at:])
    os.fsync(handle)
    os.close(handle)


def synced(path: Path, write: Callable[[], object]) -> None:
    write()
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def sync_tree(folder: Path) -> None:
    """fsync of every file under a folder: a dataset of Lance is many files."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        synced(path, lambda: None)


def lance_table(values: np.ndarray) -> pa.Table:
    """Rows of all layers as one table, the values as fixed-size binary."""
    num_layers, num_tokens, width = values.shape
    num_rows = num_layers * num_tokens
    rows = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * width), num_rows, [None, pa.py_buffer(values)]
    )
    layers = pa.array(np.repeat(np.arange(num_layers, dtype=np.int16), num_tokens))
    return pa.table({"layer": layers, "activation": rows})


def write_lance(folder: Path, values: np.ndarray) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lance.write_dataset(lance_table(values), str(folder))
    sync_tree(folder)


def busy_share(seconds: float = 0.5) -> float:
    """Share of the processors' time that anybody used during the next moment."""

    def read() -> tuple[int, int]:
        fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    all_before, idle_before = read()
    time.sleep(seconds)
    all_after, idle_after = read()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def wait_until_quiet(limit_s: float) -> float:
    """Wait for others to pause, at most so long; returns how busy the machine is then."""
    deadline = time.monotonic() + limit_s
    while (busy := busy_share()) > QUIET and time.monotonic() < deadline:
        continue
    return busy


class Taken(NamedTuple):
    """One measurement."""

    seconds: float
    cpu_s: float
    busy: float
    """Share of the processors that others used just before it."""


def taken(work: Callable[[], object], patience_s: float) -> Taken:
    os.sync()
    busy = wait_until_quiet(patience_s)
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = timed(work)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, cpu_s, busy)


def sha256_mb_per_s() -> int:
    """What one core hashes, best of five: no file can be written and hashed faster than this."""
    body = bytes(64 << 20)
    best = min(timed(lambda: hashlib.sha256(body).digest()) for _ in range(5))
    return round(len(body) / best / 1e6)


def bench_write(
    folder: Path, rounds: int, tokens: int, patience_s: float
) -> list[dict[str, object]]:
    """One file of 61 layers, against a raw write and other formats; all with fsync, in turn."""
    draw = np.random.default_rng(0)
    values = draw.integers(0, 65_535, (LAYERS, tokens, WIDTH), dtype=np.uint16)
    blocks = [[layer_block(values[layer], layer, 0)] for layer in range(LAYERS)]
    run = Run.open(folder / "write")
    numbers = itertools.count()

    def ours() -> Path:
        return write_rows(run, f"t{next(numbers)}", blocks)

    def by(name: str, write: Callable[[Path], object]) -> Callable[[], Path]:
        def work() -> Path:
            write(folder / name)
            return folder / name

        return work

    ways: dict[str, Callable[[], Path]] = {
        "raw": by("raw", lambda path: write_raw(path, values)),
        "ours": ours,
        "npy": by("rows.npy", lambda path: synced(path, lambda: np.save(path, values))),
        "safetensors": by(
            "rows.safetensors",
            lambda path: synced(path, lambda: save_file({"rows": values}, path)),
        ),
    }
    if lance is not None:
        ways["lance"] = by("rows.lance", lambda path: write_lance(path, values))
    found: dict[str, list[Taken]] = {name: [] for name in ways}
    names = list(ways)
    for i in range(rounds):
        # Raw and ours side by side, each first in every other round, the others after them.
        for name in (*names[:2][:: -1 if i % 2 else 1], *names[2:]):
            out: list[Path] = []
            found[name].append(taken(lambda w=ways[name], o=out: o.append(w()), patience_s))
            is_last_of_ours = name == "ours" and i == rounds - 1
            for path in out if not is_last_of_ours else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.close()
    return write_summary(found, values.nbytes)


def write_summary(found: dict[str, list[Taken]], size_bytes: int) -> list[dict[str, object]]:
    """A row for each way, and one for ours against raw."""
    middle = {name: statistics.median(t.seconds for t in each) for name, each in found.items()}
    rows: list[dict[str, object]] = [
        {
            "what": f"write {name} with fsync",
            "bytes": size_bytes,
            "median_s": round(middle[name], 3),
            "best_s": round(min(t.seconds for t in each), 3),
            "mb_per_s": round(size_bytes / middle[name] / 1e6),
            "cpu_s": round(statistics.median(t.cpu_s for t in each), 3),
            "share_of_raw": round(middle["raw"] / middle[name], 3),
            "seconds": [round(t.seconds, 3) for t in each],
            "busy_before": [round(t.busy, 2) for t in each],
        }
        for name, each in found.items()
    ]
    if "lance" not in found:
        rows.append({"what": "write lance with fsync", "mb_per_s": None, "why": NO_LANCE})
    pairs = [r.seconds / o.seconds for r, o in zip(found["raw"], found["ours"], strict=True)]
    calm = [
        (r.seconds, o.seconds)
        for r, o in zip(found["raw"], found["ours"], strict=True)
        if max(r.busy, o.busy) <= QUIET
    ]
    rows.append(
        {
            "what": "ours against raw",
            "target": 0.65,
            "ratio_of_medians": round(middle["raw"] / middle["ours"], 3),
            "ratio_of_best": round(
                min(t.seconds for t in found["raw"]) / min(t.seconds for t in found["ours"]), 3
            ),
            "pairs": [round(ratio, 3) for ratio in pairs],
            "quiet_pairs": len(calm),
            "quiet_ratio_of_medians": round(
                statistics.median(r for r, _ in calm) / statistics.median(o for _, o in calm), 3
            )
            if calm
            else None,
        }
    )
    return rows
