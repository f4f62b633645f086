"""One layer of many, one prompt of many, and a whole file, here and from a bucket.

Cold means that the kernel was asked to forget the file's pages first.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from storage.manifest import Run
from storage.objects import S3Settings, S3Store
from storage.rows import ActivationReader
from storage.upload import sync
from tests.benchmarks.storage_writes import (
    LAYERS,
    NO_LANCE,
    WIDTH,
    lance,
    layer_block,
    timed,
    write_lance,
    write_rows,
)


def drop_from_cache(path: Path) -> None:
    """Ask the kernel to forget a file's pages, without root."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def bench_layer(folder: Path) -> list[dict[str, object]]:
    """One layer of 61 against all, bytes and seconds, cold."""
    run = Run.open(folder / "write")
    (task,) = [t for t, c in run.commits().items() if (run.root / c.files[0].key).exists()][-1:]
    file = run.commits()[task].files[0]
    path = run.root / file.key
    for other in [c for t, c in run.commits().items() if t != task]:
        (run.root / f"_meta/commits/{other.task_id}.json").unlink()

    def read(layers: range) -> tuple[float, int]:
        drop_from_cache(path)
        reader = ActivationReader(run)
        before = _read_bytes()
        seconds = timed(
            lambda: [int(reader.read(n).values_ND.view(np.uint8).sum()) for n in layers]
        )
        return seconds, _read_bytes() - before

    one = [read(range(30, 31)) for _ in range(5)]
    every = [read(range(LAYERS)) for _ in range(3)]
    wanted = file.num_rows // LAYERS * WIDTH * 2
    return [
        {
            "what": "one layer of 61, cold, every byte touched",
            "bytes_wanted": wanted,
            "disk_bytes": min(found for _, found in one),
            "one_s": round(min(s for s, _ in one), 5),
            "all_s": round(min(s for s, _ in every), 5),
            "times_faster": round(min(s for s, _ in every) / min(s for s, _ in one), 1),
            "note": "disk bytes include the kernel's read-ahead",
        }
    ]


def _read_bytes() -> int:
    """Bytes this process had fetched from the disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def bench_prompt(folder: Path, server: str | None) -> list[dict[str, object]]:
    """One prompt of 10,000: four tokens at one layer, cold, and by one range of the bucket."""
    run = Run.open(folder / "prompts")
    draw = np.random.default_rng(1)
    values = draw.integers(0, 65_535, (10_000, 4, WIDTH), dtype=np.uint16)
    path = write_rows(run, "t", [[layer_block(values[i], 0, i) for i in range(10_000)]])
    reader = ActivationReader(run)
    cold = []
    for i in range(20):
        drop_from_cache(path)
        prompt = f"p{(i * 487) % 10_000:05d}"
        cold.append(timed(lambda p=prompt: reader.read(0, prompt_ids=[p]).values_ND.sum()))
    opening = timed(lambda: ActivationReader(run))
    row: dict[str, object] = {
        "what": "one prompt of 10,000 (4 tokens, 57,344 bytes)",
        "cold_ms_median": round(1e3 * statistics.median(cold), 2),
        "cold_ms_worst": round(1e3 * max(cold), 2),
        "open_index_ms": round(1e3 * opening, 2),
    }
    if server:
        store = S3Store(S3Settings(endpoint=server, bucket="bucket", prefix="prompts"))
        sync(run, store, "to_bucket")
        fresh = Run.open(folder / "fresh", store=store)
        remote = ActivationReader(fresh)
        asked: list[int] = []
        plain = store.get_range
        store.get_range = lambda k, o, s: (asked.append(s), plain(k, o, s))[1]  # type: ignore[method-assign]
        got = remote.read(0, prompt_ids=["p04242"]).values_ND
        row["bucket_ranges"] = list(asked)
        row["bucket_equal"] = bool(np.array_equal(got, values[4242]))
        fresh.close()
    run.close()
    return [row]


def bench_reads(folder: Path) -> list[dict[str, object]]:
    """A whole file warm and one layer of 61 cold, every byte touched, beside other formats."""
    values = np.random.default_rng(3).integers(0, 65_535, (LAYERS, 64, WIDTH), dtype=np.uint16)
    run = Run.open(folder / "reads")
    ours = write_rows(run, "t", [[layer_block(values[n], n, 0)] for n in range(LAYERS)])
    npy, tensors, other = folder / "r.npy", folder / "r.safetensors", folder / "r.lance"
    np.save(npy, values)
    save_file({f"layer.{n}": values[n] for n in range(LAYERS)}, tensors)
    one: dict[str, tuple[Path, Callable[[], object]]] = {
        "ours": (ours, lambda: ActivationReader(run).read(30).values_ND.view(np.uint8).sum()),
        "npy (memory map)": (npy, lambda: np.load(npy, mmap_mode="r")[30].view(np.uint8).sum()),
        "safetensors": (tensors, lambda: _one_tensor(tensors)),
    }
    if lance is not None:
        write_lance(other, values)
        one["lance"] = (
            other,
            lambda: lance.dataset(str(other)).to_table(filter="layer = 30").nbytes,
        )
    rows: list[dict[str, object]] = []
    for name, (path, read) in one.items():
        cold = []
        for _ in range(7):
            for each in path.rglob("*") if path.is_dir() else [path]:
                if each.is_file():
                    drop_from_cache(each)
            cold.append(timed(read))
        rows.append(
            {
                "what": f"one layer of 61, {name}, cold",
                "median_ms": round(1e3 * statistics.median(cold), 2),
                "best_ms": round(1e3 * min(cold), 2),
            }
        )
    # After the cold reads: the kernel does not forget pages that are still mapped.
    reader = ActivationReader(run)
    whole: dict[str, Callable[[], object]] = {
        "ours": lambda: [reader.read(n).values_ND.view(np.uint8).sum() for n in range(LAYERS)],
        "npy (memory map)": lambda: np.load(npy, mmap_mode="r").view(np.uint8).sum(),
        "safetensors": lambda: [t.view(np.uint8).sum() for t in load_file(tensors).values()],
        "ours through pyarrow": lambda: run.read("activations", ["activation"]).nbytes,
    }
    if lance is not None:
        whole["lance"] = lambda: lance.dataset(str(other)).to_table(columns=["activation"]).nbytes
    for name, read in whole.items():
        best = min(timed(read) for _ in range(5))
        rows.append({"what": f"read {name}, warm", "mb_per_s": round(values.nbytes / best / 1e6)})
    if lance is None:
        rows.append({"what": "read lance", "mb_per_s": None, "why": NO_LANCE})
    run.close()
    return rows


def _one_tensor(path: Path) -> int:
    with safe_open(path, "np") as tensors:
        return int(tensors.get_tensor("layer.30").view(np.uint8).sum())
