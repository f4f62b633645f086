"""A job that is killed again and again ends in the same bytes as one that was left alone.

``python -m tests.chaos.run --kills 200 --seed 0 [--record]``: one clean run of a small pipeline,
then the same request in new folders on a Ray and with a judge of our own. Ranks, the driver, the
judge, the supervisor of a resident group and the whole of Ray are killed at random moments, until
every kill hit a job at work; each folder is then compared with the clean one, byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
import torch

from tests.chaos.stage import Stage
from tests.chaos.story import Kill, rows
from tests.chaos.trial import Hung, Trial, commits, differences

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"
TRAITS = "trait=[anxiety,guilt,confidence,obedience]"
PLAN = (TRAITS, "layer=[1,2]", "steering.coefficient_ratios=[0.5,1.0]")
COLUMNS = (
    *("way", "kills", "detected_s_median", "detected_s_max"),
    *("recovered_s_median", "recovered_s_max", "bundles_in_flight", "bundles_recomputed"),
    *("cpu_tasks_in_flight", "cpu_tasks_recomputed"),
)


def main() -> int:
    """Run the trial; 0 when nothing was lost and every byte is the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new run after so many")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    parser.add_argument("--record", nargs="?", type=Path, const=RECORDS, help="write a record")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        outcome = play(folder, kills=asked.kills, seed=asked.seed, minutes=asked.minutes)
    show(outcome)
    if asked.record is not None:
        write(outcome, asked.record, f"make chaos ARGS='--kills {asked.kills} --seed {asked.seed}'")
    return 0 if outcome["is_whole"] else 1


def play(folder: Path, *, kills: int, seed: int, minutes: float = 60.0) -> dict[str, Any]:
    """One clean run, then tormented ones until there were so many kills."""
    draw, clean, began = random.Random(seed), folder / "clean", time.monotonic()
    tally = Tally(kills, seed)
    with Stage(folder) as stage:
        first = Trial(stage, clean, PLAN, False, draw, say)
        code = first.undisturbed()
        if code != 0:
            raise SystemExit(f"the clean run ended with code {code}: {folder}")
        tally.clean_s, tally.num_tasks = time.monotonic() - began, len(commits(clean))
        say(f"clean run: {tally.num_tasks} tasks, {tally.clean_s:.0f} s")
        while len(tally.kills) < kills and time.monotonic() - began < 60 * minutes:
            place, resident = folder / f"run-{len(tally.laps):03d}", len(tally.laps) % 2 == 1
            trial = Trial(stage, place, PLAN, resident, draw, say)
            tally.add(trial, lap(trial, clean, kills - len(tally.kills)))
            tally.took_s = time.monotonic() - began
            (folder / "outcome.json").write_text(json.dumps(tally.outcome(), indent=1))
    return tally.outcome()


@dataclass
class Tally:
    """What has been shown so far."""

    wanted: int
    seed: int
    clean_s: float = 0.0
    took_s: float = 0.0
    num_tasks: int = 0
    kills: list[Kill] = field(default_factory=list)
    laps: list[dict[str, Any]] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)
    loads: list[float] = field(default_factory=lambda: [os.getloadavg()[0]])

    def add(self, trial: Trial, row: dict[str, Any]) -> None:
        """Take in one run folder."""
        self.laps.append(row)
        self.kills += trial.story.kills
        self.exits += trial.exits
        self.loads.append(os.getloadavg()[0])
        say(f"{len(self.kills)}/{self.wanted} kills, load {self.loads[-1]:.1f}: {row}")

    def outcome(self) -> dict[str, Any]:
        """As plain data."""
        enough = len(self.kills) >= self.wanted
        return {
            "kills": len(self.kills),
            "seed": self.seed,
            "is_whole": enough and all(one["is_whole"] for one in self.laps),
            "minutes": round(self.took_s / 60, 1),
            "kills_per_minute": round(60 * len(self.kills) / (self.took_s - self.clean_s), 1),
            "clean_run_s": round(self.clean_s, 1),
            "tasks_per_run": self.num_tasks,
            "load_average": {
                "lowest": round(min(self.loads), 1),
                "mean": round(sum(self.loads) / len(self.loads), 1),
                "highest": round(max(self.loads), 1),
            },
            "other_exits": {str(code): count for code, count in sorted(self.exits.items())},
            "rows": rows(self.kills),
            "runs": self.laps,
        }


def lap(trial: Trial, clean: Path, kills: int) -> dict[str, Any]:
    """One run folder; it is deleted when nothing is wrong with it."""
    try:
        code = trial.torment(kills)
    except (Hung, RuntimeError) as error:
        say(f"  {error}")
        code = -1
    finally:
        trial.give_up()
    wasted = trial.story.settle()
    odd = differences(trial.run_dir, clean)
    is_whole = code == 0 and not odd and not wasted and trial.story.num_lost() == 0
    if is_whole:
        shutil.rmtree(trial.run_dir)
    return {
        "resident": trial.resident,
        "kills": len(trial.story.kills),
        "exit_code": code,
        "same_bytes": not odd,
        "differences": odd[:10],
        "recomputed_without_need": wasted[:10],
        "committed_twice": trial.story.num_lost(),
        "is_whole": is_whole,
    }


def show(outcome: dict[str, Any]) -> None:
    """The table."""
    lines = ["  ".join(f"{name:>{max(len(name), 10)}}" for name in COLUMNS)]
    for row in outcome["rows"]:
        cells = ("-" if row[name] is None else str(row[name]) for name in COLUMNS)
        pairs = zip(cells, COLUMNS, strict=True)
        lines.append("  ".join(f"{cell:>{max(len(name), 10)}}" for cell, name in pairs))
    sys.stdout.write("\n".join(lines) + "\n")
    rest = {name: value for name, value in outcome.items() if name not in ("rows", "runs")}
    num_odd = sum(not one["is_whole"] for one in outcome["runs"])
    say(f"{len(outcome['runs'])} runs, {num_odd} not whole; {rest}")


def write(outcome: dict[str, Any], place: Path, command: str) -> None:
    """The record."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    path = place / f"chaos_cpu{os.cpu_count()}_{today}.json" if place.is_dir() else place
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    record = {
        "what": "chaos",
        "command": command,
        "commit": head.stdout.strip(),
        "date": today,
        "hardware": f"{os.cpu_count()} CPU cores, no GPU, shared with other work",
        "versions": {
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": torch.__version__,
        },
        "ceilings": {"kills": 200, "minutes": 60, "bundles_recomputed": "bundles_in_flight"},
        **outcome,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def say(line: str) -> None:
    """One line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
