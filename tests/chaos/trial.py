"""One run folder, tormented until its job ends by itself, and compared with a clean one."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from storage.manifest import Run
from tests.chaos import stage as stages
from tests.chaos.stage import Stage
from tests.chaos.story import Kill, Story

PLAN = (
    "extraction.num_pairs=12",
    "extraction.min_passed=1",
    "extraction.positive_min=0",
    "extraction.negative_max=100",
    "steering.num_questions=6",
    "steering.samples=1",
    "steering.max_new_tokens=16",
    "steering.coherence_gate=0",
    "capture.num_prompts=3",
    "capture.max_new_tokens=8",
    "method=mean_difference",
    "schedule.bundle_requests=12",
    "cluster.kv_cache_bytes=33554432",
    # A bundle that is often hit is no poison: it stays whole, whatever happens to it.
    "schedule.group_attempts=1000",
    "schedule.judge_attempts=1000",
    "judge=endpoint",
    "judge.model=number",
)
SILENT_S = 180.0
"""A job that does nothing for so long hangs."""
MOST_STARTS_IN_VAIN = 5
"""In a row, without a kill, that end before anything was committed."""
KEPT_APART = ("runs", "attempts")
"""Tables of times and hosts, which differ from run to run."""
WEIGHTS = {
    False: {"rank": 50, "judge": 25, "driver": 20, "whole Ray": 5},
    True: {"rank": 40, "judge": 15, "supervisor": 30, "driver": 10, "whole Ray": 5},
}
"""Of the ways to kill, without and with a resident group; a supervisor exists with one only."""


class Hung(Exception):  # noqa: N818 - the name says what happened
    """The job did nothing for a long time."""


@dataclass
class Trial:
    """One run folder and the job that fills it."""

    stage: Stage
    run_dir: Path
    plan: tuple[str, ...]
    resident: bool
    draw: random.Random
    say: Callable[[str], None]
    story: Story = field(init=False)
    exits: Counter[int] = field(default_factory=Counter)
    """Codes with which the job ended although it was not the one that was killed."""
    _starts_in_vain: int = 0

    def __post_init__(self) -> None:
        self.story = Story(self.run_dir.with_suffix(".events"))

    def undisturbed(self) -> int:
        """Run the job to its end; its exit code."""
        self.start()
        return self._end()

    def torment(self, kills: int) -> int:
        """Kill until the job ends by itself; the exit code of its last start."""
        self.start()
        while len(self.story.kills) < kills:
            way = self._next_way()
            if not self._wait_for(way):
                if self.job.returncode == 0:
                    return 0
                self._start_again()
                continue
            self._kill(way)
        while (code := self._end()) != 0:
            self._start_again()
        return code

    def start(self) -> None:
        """Start the job, in a process group of its own."""
        url = f"judge.url=http://127.0.0.1:{self.stage.judge_port}/v1"
        resident = f"cluster.resident={str(self.resident).lower()}"
        command = [sys.executable, "-m", "tests.chaos.job", str(self.story.path), "pipeline"]
        with self.run_dir.with_suffix(".log").open("ab") as log:
            self.job = subprocess.Popen(
                [*command, f"run_dir={self.run_dir}", url, resident, *PLAN, *self.plan],
                env=self.stage.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._heard = time.monotonic()

    def _start_again(self) -> None:
        """The job ended with an error that a kill caused; the same command continues."""
        self.exits[self.job.returncode] += 1
        self.say(f"  the job ended with code {self.job.returncode}; the same command again")
        since = [e for e in self.story.events if e["e"] in ("start", "commit")][-1:]
        in_vain = [e for e in since if e["e"] == "start"]
        self._starts_in_vain = self._starts_in_vain + 1 if in_vain else 0
        if self._starts_in_vain > MOST_STARTS_IN_VAIN:
            raise Hung("the job does not get anywhere any more")
        self.start()

    def _next_way(self) -> str:
        weights = WEIGHTS[self.resident]
        return self.draw.choices(list(weights), list(weights.values()))[0]

    def _wait_for(self, way: str) -> bool:
        """Wait for a moment at which this way hits work; False when the job ended first."""
        if self.draw.random() < 0.3:  # early: during a start, or while the last kill is mended
            until = time.monotonic() + self.draw.uniform(0.0, 3.0)
            self._pass(lambda: time.monotonic() >= until)
        else:
            num = self._progress()
            self._pass(lambda: self._progress() > num)
            until = time.monotonic() + self.draw.uniform(0.0, 0.8)
            self._pass(lambda: time.monotonic() >= until)
        self._pass(lambda: self._is_target(way))
        return self.job.poll() is None

    def _pass(self, is_due: Callable[[], bool]) -> None:
        """Let time pass until something is due or the job ended."""
        while self.job.poll() is None:
            if self.story.look():
                self._heard = time.monotonic()
            if is_due():
                return
            if time.monotonic() - self._heard > SILENT_S:
                raise Hung(f"{self.run_dir.name}: nothing happened for {SILENT_S:g} s")
            time.sleep(0.05)

    def _progress(self) -> int:
        return sum(e["e"] in ("answered", "commit") for e in self.story.events)

    def _is_target(self, way: str) -> bool:
        """True when killing this now hits work."""
        if way in ("driver", "whole Ray"):
            return any(e["e"] == "start" and e["pid"] == self.job.pid for e in self.story.events)
        here = [e for e in self.story.events if e.get("pid") == self.job.pid]
        if way == "judge":
            judging = {e["task"] for e in here if e["e"] == "begin" and e["judges"]}
            return bool(judging - {e["task"] for e in here if e["e"] == "commit"})
        sent = sum(e["e"] == "sent" for e in here)
        back = sum(e["e"] in ("answered", "failed") for e in here)
        starting = [e["e"] for e in here if e["e"].startswith("group")][-1:] == ["group starts"]
        return (sent > back or starting) and bool(self._victims(way))

    def _victims(self, way: str) -> list[int]:
        return self.stage.actors(r"RankActor|run \S+ rank \d" if way == "rank" else "Supervisor")

    def _kill(self, way: str) -> None:
        during = next((e["e"] for e in reversed(self.story.events)), "start")
        kill = Kill(way, time.time(), during)
        if way in ("rank", "supervisor"):
            victims = self._victims(way)
            if not victims or not stages.kill(self.draw.choice(victims)):
                return
        self.story.kills.append(kill)
        self.story.note("kill", way=way)
        if way == "judge":
            self.stage.kill_judge(self.draw.uniform(0.0, 1.0))
        elif way == "whole Ray":
            self.stage.kill_ray()
            try:
                self._end(gone=True)
            finally:
                self.stage.start_ray()
            self.start()
        elif way == "driver":
            self._kill_driver()
        name = f"{len(self.story.kills)}: {way} while {during}"
        self.say(f"  {name}; {len(commits(self.run_dir))} tasks safe")

    def _kill_driver(self) -> None:
        """Without a word, or as ``ray job stop`` and Ctrl-C do it."""
        asked = self.draw.random() < 0.3
        self.job.send_signal(signal.SIGTERM if asked else signal.SIGKILL)
        self._end(gone=True)
        self.start()

    def _end(self, *, gone: bool = False) -> int:
        """Wait for the job's end; its exit code."""
        self._heard = time.monotonic()
        self._pass(lambda: False)
        if gone:
            self.story.note("process gone", code=self.job.returncode)
        self.story.look()
        return int(self.job.returncode)

    def give_up(self) -> None:
        """End the job if it still runs."""
        if self.job.poll() is None:
            os.killpg(self.job.pid, signal.SIGABRT)
            self.job.wait()


def commits(run_dir: Path) -> set[str]:
    """Records of finished tasks; those of invocations left out."""
    folder = run_dir / "_meta" / "commits"
    names = {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()
    return {name for name in names if not name.startswith("run-")}


def digests(run_dir: Path) -> dict[str, str]:
    """File of a result -> sha256."""
    return {
        path.relative_to(run_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run_dir / "data").rglob("*.parquet"))
        if path.relative_to(run_dir).parts[1] not in KEPT_APART
    }


def differences(run_dir: Path, clean: Path) -> list[str]:
    """What is not as in the clean run; nothing, when every byte is."""
    ours, theirs = digests(run_dir), digests(clean)
    odd = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    odd += sorted(commits(run_dir) ^ commits(clean))
    return odd + [str(one) for one in Run.open(run_dir).verify().problems]
