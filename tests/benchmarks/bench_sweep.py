"""A sweep of 20 points as one submitted job, against one plain run and one job per point.

``python -m tests.benchmarks.bench_sweep [--repeat 2] [--points 20] [--out FILE]``. 4 traits x 5
layers of the toy model, TP 2 over gloo, through ``ray job submit`` to a local head node with a
token. ``run_s`` counts from the job's first line to its last, as its own ``runs`` table has it, so
that submission and upload are apart; ``wall_s`` is what a person waits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from storage.manifest import Run
from tests.head import Head

RECORDS = Path(__file__).parent / "records"
ROOT = Path(__file__).parents[2]
TRAITS = ("anxiety", "guilt", "confidence", "obedience")
LAYERS = (1, 2, 3, 4, 5)
WORK = (
    "extraction.num_pairs=12",
    "extraction.min_passed=1",
    "extraction.vetting=false",
    "steering.num_questions=4",
    "steering.samples=1",
    "steering.max_new_tokens=16",
    "method=mean_difference",
    "coefficient=4",
    "cluster.kv_cache_bytes=33554432",
)


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Wall seconds and output of one command."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return time.monotonic() - began, done.stdout


def measure(name: str, command: list[str], environment: dict[str, str], run_dir: Path) -> Any:
    """One job: seconds, model loads, and what the cluster saw."""
    load_before = os.getloadavg()[0]
    wall_s, out = timed([*command, f"run_dir={run_dir}"], environment)
    with Run.open(run_dir) as run:
        last = max(run.read("runs").to_pylist(), key=lambda row: row["started_at"])
    run_s = (last["finished_at"] - last["started_at"]).total_seconds()
    loads = sum(int(number) for number in re.findall(r"(\d+) model group\(s\)", out))
    computed = re.search(r"computed ([\d.]+) s", out)
    return {
        "way": name,
        "jobs": 1,
        "model_loads": loads,
        "run_s": round(run_s, 2),
        "wall_s": round(wall_s, 2),
        "computed_s": None if computed is None else float(computed[1]),
        "load_average_before": round(load_before, 1),
    }


APART = ("runs", "attempts", "steering_summary")
"""Times and hosts; and summaries, which each point makes of its own cells."""


def results(run_dir: Path) -> dict[str, str]:
    """File of a result -> sha256."""
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in APART
    }


def completions(run_dir: Path) -> list[tuple[object, ...]]:
    """Every steered answer's token ids, in a fixed order."""
    names = ("trait", "layer", "coefficient", "vector_kind", "question", "sample")
    with Run.open(run_dir) as run:
        table = run.read("steering").to_pylist()
    return sorted((*(str(row[n]) for n in names), tuple(row["completion_ids"])) for row in table)


def say(row: dict[str, Any]) -> None:
    """One line of progress."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {row}\n")
    sys.stdout.flush()


def play(folder: Path, *, repeat: int, points: int) -> list[dict[str, Any]]:
    """Plain run and submitted sweep in turn, then one job per point into one folder."""
    submit = ["jobs.cli", "submit", "steer"]
    traits, layers = ",".join(TRAITS), ",".join(map(str, LAYERS))
    rows = []
    with Head() as head:
        joined = {**head.environment, "RAY_ADDRESS": head.address}
        for turn in range(repeat):
            plain = ["jobs.steer", f"trait=[{traits}]", f"layer=[{layers}]", *WORK]
            rows.append(measure("one plain run", plain, joined, folder / f"plain-{turn}"))
            say(rows[-1])
            sweep = [*submit, "--multirun", f"trait={traits}", f"layer={layers}", *WORK]
            place = folder / f"sweep-{turn}"
            rows.append(measure("submitted sweep", sweep, head.environment, place))
            same = results(place) == results(folder / f"plain-{turn}")
            rows[-1]["same_bytes_as_plain"] = same
            say(rows[-1])
        each = []
        for trait, layer in [(t, n) for t in TRAITS for n in LAYERS][:points]:
            one = [*submit, f"trait={trait}", f"layer={layer}", *WORK]
            each.append(measure("point", one, head.environment, folder / "points"))
            say(each[-1])
    rows.append(
        {
            "way": "one submitted job per point, one after the other, in one run folder",
            "jobs": len(each),
            "model_loads": sum(one["model_loads"] for one in each),
            "run_s": round(sum(one["run_s"] for one in each), 2),
            "wall_s": round(sum(one["wall_s"] for one in each), 2),
            "computed_s": round(sum(one["computed_s"] or 0.0 for one in each), 2),
            "load_average_before": each[0]["load_average_before"] if each else None,
            # Other jobs cut the work into other bundles, so floats may differ in the last bits.
            "same_token_ids_as_plain": completions(folder / "points")
            == completions(folder / "plain-0"),
        }
    )
    return rows


def summarise(rows: list[dict[str, Any]], points: int) -> dict[str, Any]:
    """The ratios that count."""

    def of(way: str, what: str) -> float:
        return float(median(row[what] for row in rows if row["way"] == way))

    plain_s, sweep_s = of("one plain run", "run_s"), of("submitted sweep", "run_s")
    per_point = rows[-1]
    return {
        "points": len(TRAITS) * len(LAYERS),
        "sweep_over_plain_submission_apart": round(sweep_s / plain_s, 2),
        "sweep_over_plain_bound": 1.3,
        "submission_s": round(of("submitted sweep", "wall_s") - sweep_s, 2),
        "one_job_per_point_measured": points,
        "one_job_per_point_over_sweep_wall": round(
            per_point["wall_s"] * 20 / max(per_point["jobs"], 1) / of("submitted sweep", "wall_s"),
            1,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    # The head node, the job API and every job read these.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps the node on the loopback address
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = play(folder, repeat=asked.repeat, points=asked.points)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    out = asked.out or RECORDS / f"sweep_cpu{os.cpu_count()}_{today}.json"
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    summary = summarise(rows, asked.points)
    record = {
        "what": "sweep",
        "command": f"make bench B=sweep ARGS='--repeat {asked.repeat} --points {asked.points}'",
        "commit": head.stdout.strip(),
        "date": today,
        "hardware": f"{os.cpu_count()} CPU cores, no GPU, shared with other work",
        "versions": {
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": torch.__version__,
        },
        "ceilings": {"sweep_over_plain_submission_apart": 1.3, "model_loads_of_the_sweep": 1},
        "summary": summary,
        "rows": rows,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    say(summary)


if __name__ == "__main__":
    main()
