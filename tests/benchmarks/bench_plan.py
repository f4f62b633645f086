"""What the dry run predicts beside what a toy run then took: the source of its speeds on the CPU.

``python -m tests.benchmarks.bench_plan`` runs three small jobs and writes a record. Counts do not
depend on the machine; times do, so its load stands beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import re
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from jobs.capacity import SPEEDS
from jobs.dry_run import predict
from jobs.entry import main as run_job
from jobs.estimate import forecast
from jobs.runner import make_batches
from storage.manifest import Run

RECORDS = Path(__file__).parent / "records"
JOBS = (
    ("steer", "model=toy_mla", "trait=anxiety", "layer=3"),
    ("extract", "model=toy_gqa", "trait=[anxiety,guilt]", "layer=all"),
    ("capture", "model=toy_mla", "layer=all"),
)


def actuals(run_dir: Path) -> dict[str, float]:
    """What a finished run folder holds, by the names of ``jobs.estimate.forecast``."""
    with Run.open(run_dir) as run:
        results = {
            task: commit for task, commit in run.commits().items() if not task.startswith("run-")
        }
        answers = [*run.read("responses").to_pylist(), *run.read("steering").to_pylist()]
        judged = run.read("vetting").num_rows + run.read("judgements").num_rows
    return {
        "tasks": len(results),
        "tokens read and generated": sum(
            len(row["prompt_ids"]) + len(row["completion_ids"]) for row in answers
        ),
        "judged texts": judged,
        "bytes in result files": sum(
            file.size_bytes for commit in results.values() for file in commit.files
        ),
    }


def measure(job: str, *typed: str) -> list[dict[str, object]]:
    """Predict one job, run it, and set both side by side."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*typed, f"run_dir={folder}/run", "cluster.dashboard=false"]
        points: list[object] = []
        run_job(job, arguments, runner=lambda found, _: points.extend(found) or 0)
        (batch,) = make_batches(points)
        predicted = predict(batch)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert run_job(job, arguments) == 0, said.getvalue()
        actual = actuals(Path(folder) / "run")
        actual["computing time"] = float(re.search(r"computed ([\d.]+) s", said.getvalue())[1])
    return [{"job": " ".join([job, *typed]), **row} for row in forecast(predicted, actual)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    load = os.getloadavg()[0]
    rows = [row for job in JOBS for row in measure(*job)]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {
        "what": "plan",
        "command": "python -m tests.benchmarks.bench_plan",
        "commit": commit,
        "date": today,
        "hardware": f"{os.cpu_count()} CPU cores, no GPU; load average {load:.1f} before",
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "ray")},
        },
        "ceilings": {
            "bytes_per_s": SPEEDS["cpu"].bytes_per_s,
            "ops_per_s": SPEEDS["cpu"].ops_per_s,
            "step_s": SPEEDS["cpu"].step_s,
        },
        "rows": rows,
    }
    path = out or RECORDS / f"plan_cpu{os.cpu_count()}_{today}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
