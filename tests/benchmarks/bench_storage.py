"""What storage costs against the disk, the client and the formats people would use instead.

``python -m tests.benchmarks.bench_storage`` writes a record. Every ratio is between two things that
were measured in turn on the same bytes, best of several rounds, with the machine's load beside it:
on a shared machine the ratio says more than the megabytes.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from tests.benchmarks.storage_reads import bench_layer, bench_prompt, bench_reads
from tests.benchmarks.storage_writes import bench_write, lance, sha256_mb_per_s
from tests.faults.servers import WRANGLER, R2Local, ServerMissingError

RECORDS = Path(__file__).parent / "records"


_UPLOAD = """
import hashlib, json, os, sys, time
from pathlib import Path
import boto3, boto3.s3.transfer
from botocore.config import Config
from storage.objects import S3Settings, S3Store
how, endpoint, path, key = sys.argv[1:5]
path = Path(path)
store = S3Store(S3Settings(endpoint=endpoint, bucket="bucket", prefix="up", num_parallel_parts=4))
digest = sys.argv[5]
started = time.perf_counter()
if how == "ours":
    store.put_file(key, path, digest, path.with_suffix(".journal"))
else:
    client = boto3.client("s3", endpoint_url=endpoint, region_name="auto",
        aws_access_key_id=os.environ["R2_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["R2_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required",
                      response_checksum_validation="when_required"))
    client.upload_file(str(path), "bucket", "up/" + key, Config=boto3.s3.transfer.TransferConfig(
        multipart_threshold=64 << 20, multipart_chunksize=64 << 20, max_concurrency=4,
        preferred_transfer_client="classic"))
seconds = time.perf_counter() - started
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(json.dumps([seconds, int(peak.split()[1]) * 1024]))
"""


def bench_upload(
    folder: Path, server: str, rounds: int, size_bytes: int
) -> list[dict[str, object]]:
    """A file in 64 MiB parts, ours and boto3's own upload_file in turn, each in a fresh process."""
    path = folder / "upload.bin"
    path.write_bytes(np.random.default_rng(2).bytes(size_bytes))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seconds: dict[str, list[float]] = {"ours": [], "boto3": []}
    memory: dict[str, int] = {"ours": 0, "boto3": 0}
    for i in range(rounds):
        for how in ("boto3", "ours") if i % 2 else ("ours", "boto3"):
            command = [sys.executable, "-c", _UPLOAD, how, server, str(path), f"{how}-{i}", digest]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            took, peak = json.loads(done.stdout)
            seconds[how].append(took)
            memory[how] = max(memory[how], peak)
    best = {how: min(found) for how, found in seconds.items()}
    pairs = [b / o for b, o in zip(seconds["boto3"], seconds["ours"], strict=True)]
    return [
        {
            "what": "upload, 64 MiB parts, 4 at once",
            "bytes": size_bytes,
            "ours_mb_per_s": round(size_bytes / best["ours"] / 1e6, 1),
            "boto3_mb_per_s": round(size_bytes / best["boto3"] / 1e6, 1),
            "share_of_boto3": round(best["boto3"] / best["ours"], 3),
            "median_share": round(statistics.median(pairs), 3),
            "ours_peak_bytes": memory["ours"],
            "boto3_peak_bytes": memory["boto3"],
        }
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of the written file")
    parser.add_argument("--rounds", type=int, default=7, help="of writing")
    parser.add_argument(
        "--patience", type=float, default=20.0, help="seconds to wait for others before each write"
    )
    parser.add_argument("--only", choices=["write"], help="leave reading and uploading out")
    parser.add_argument("--out", type=Path, help="record; by default tests/benchmarks/records/")
    chosen = parser.parse_args()
    os.environ.setdefault("R2_ACCESS_KEY_ID", "testkey")
    os.environ.setdefault("R2_SECRET_ACCESS_KEY", "testsecret")
    load_before = os.getloadavg()
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    hash_mb_per_s = sha256_mb_per_s()
    with tempfile.TemporaryDirectory(prefix="traitmill-bench-") as scratch:
        folder = Path(scratch)
        rows = bench_write(folder, chosen.rounds, chosen.tokens, chosen.patience)
        rows.append(prediction(rows, hash_mb_per_s))
        if chosen.only is None:
            rows += bench_layer(folder)
            shutil.rmtree(folder / "write")
            rows += bench_reads(folder)
            rows += with_bucket(folder)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    packages = ("pyarrow", "boto3", "numpy", "safetensors", "torch")
    versions = {name: metadata.version(name) for name in packages}
    record = {
        "what": "storage",
        "command": " ".join(["python -m tests.benchmarks.bench_storage", *sys.argv[1:]]),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "date": date,
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()}), shared virtual disk",
        "versions": versions
        | {"pylance": None if lance is None else lance.__version__}
        | {"python": platform.python_version(), "server": f"wrangler {WRANGLER} (local R2)"},
        "ceilings": {
            "sha256_mb_per_s": hash_mb_per_s,
            "started": started,
            "load_before": load_before,
            "load_after": os.getloadavg(),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
        "rows": rows,
    }
    out = chosen.out or RECORDS / f"storage_cpu{os.cpu_count()}_{date}.json"
    out.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(json.dumps(record["rows"], indent=1) + "\n")
    return 0


def prediction(rows: list[dict[str, object]], hash_mb_per_s: int) -> dict[str, object]:
    """What two cores allow: writing and hashing at once take as long as the slower of them."""
    (raw,) = (row for row in rows if row["what"] == "write raw with fsync")
    hash_s = float(str(raw["bytes"])) / 1e6 / hash_mb_per_s
    raw_s = float(str(raw["median_s"]))
    return {
        "what": "ours against raw, predicted",
        "hash_s": round(hash_s, 3),
        "share": round(raw_s / max(raw_s, hash_s), 3),
    }


def with_bucket(folder: Path) -> list[dict[str, object]]:
    """What needs a server; null with the reason where it cannot run."""
    try:
        server = R2Local(folder / "r2")
    except ServerMissingError as reason:
        missing: dict[str, object] = {"what": "upload", "mb_per_s": None, "why": str(reason)}
        return [*bench_prompt(folder, None), missing]
    try:
        address = f"http://127.0.0.1:{server.port}{server.path}"
        return bench_prompt(folder, address) + bench_upload(folder, address, 5, 256 << 20)
    finally:
        server.kill()


if __name__ == "__main__":
    sys.exit(main())
