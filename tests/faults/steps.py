"""kill -9 before and after every step of a commit, here and in the bucket, and a full disk.

The writer is a fork of this process, so one death costs milliseconds. Calls are counted by wrapping
``os``: nothing in the product knows that it is being watched.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from storage.errors import DiskFullError
from storage.manifest import Run
from tests.faults.worker import write_task

CALLS = ("fsync", "fdatasync", "link", "replace", "rename", "unlink", "mkdir")
TASK = "t4"
ROOT = Path(__file__).parents[2]


class Deaths(NamedTuple):
    """What a round of deaths left behind."""

    num_injected: int
    num_lost: int
    num_half_visible: int
    num_wrong_bytes: int


def in_child(work: Callable[[], int]) -> int:
    """Run in a fork; returns its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _die_at(number: int, *, after: bool) -> None:
    """From now on, the ``number``-th watched call is this process's last."""
    seen = 0

    def watch(plain: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            nonlocal seen
            seen += 1
            if seen == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = plain(*args, **named)
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    for name in CALLS:
        setattr(os, name, watch(getattr(os, name)))


def _write(root: Path, number: int, *, after: bool) -> int:
    _die_at(number, after=after)
    with Run.open(root) as run:
        write_task(run, TASK, salt=0)
    return 0


def kill_at_every_step(folder: Path, *, every: int = 1) -> Deaths:
    """Kill a writer at each step, look, let another finish, and compare the bytes."""
    with Run.open(folder / "reference") as run:
        write_task(run, TASK, salt=0)
        wanted = run.commits()[TASK]
    injected = lost = half = wrong = 0
    number = 1
    while True:
        survived = False
        for after in (False, True):
            root = folder / f"step-{number}-{after}"
            code = in_child(partial(_write, root, number, after=after))
            survived = survived or code == 0
            injected += code == -signal.SIGKILL
            with Run.open(root) as run:
                report = run.verify()
                half += not report.is_whole
                half += run.is_done(TASK) != (report.num_commits == 1)
                write_task(run, TASK, salt=0)
                run.gc()
                report = run.verify()
                lost += report.num_commits != 1 or not report.is_whole
                wrong += run.commits()[TASK] != wanted or bool(report.litter)
                wrong += len(list((root / "wip").iterdir())) != 2  # the lock and this writer
        if survived:
            return Deaths(injected, lost, half, wrong)
        number += every


def fill_the_disk(folder: Path) -> Deaths:
    """Writes stop at ever other byte; each is refused by name and leaves earlier results alone."""
    injected = lost = half = 0
    for i, limit_bytes in enumerate((0, 100, 4_000, 100_000, 1_000_000, 6_000_000)):
        root = folder / f"full-{i}"
        with Run.open(root) as run:
            write_task(run, "t1", salt=0)
        code = in_child(partial(_write_limited, root, limit_bytes))
        injected += code == 3
        with Run.open(root) as run:
            report = run.verify()
            half += not report.is_whole or run.is_done(TASK)
            lost += not run.is_done("t1")
            half += bool(list((root / "data/activations").rglob("*.parquet")))
    return Deaths(injected, lost, half, 0)


def _write_limited(root: Path, limit_bytes: int) -> int:
    """3 when the full disk was named and nothing of it stayed in this writer's folder."""
    with Run.open(root) as run:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        try:
            write_task(run, TASK, salt=0)
        except DiskFullError:
            return 3
    return 0


def fill_a_small_disk(folder: Path) -> Deaths:
    """A real disk of a few MB is full; 0 injected where this user may not mount one."""
    injected = lost = 0
    mount = 'mount -t tmpfs -o size=$1k small "$0" && shift && exec "$@"'
    for i, size_kib in enumerate((300, 1_000, 3_000, 6_000)):
        place = folder / f"disk-{i}"
        place.mkdir(parents=True)
        command = ["unshare", "-Urm", "sh", "-c", mount, str(place), str(size_kib)]
        command += [sys.executable, "-m", "tests.faults.steps", str(place / "run")]
        done = subprocess.run(command, check=False, capture_output=True, cwd=ROOT)
        injected += done.returncode in (3, 4)
        lost += done.returncode == 4
    return Deaths(injected, lost, 0, 0)


def _write_on_a_small_disk(root: Path) -> int:
    """3 when the full disk was named, all of the task is gone and earlier results are whole."""
    with Run.open(root) as run:
        write_task(run, "t1", salt=0)
        free = shutil.disk_usage(root).free
        try:
            write_task(run, TASK, salt=0)
        except DiskFullError:
            is_whole = run.verify().is_whole and sorted(run.commits()) == ["t1"]
            rows = list((root / "data/activations").rglob("*.parquet"))
            return 3 if is_whole and not rows and run.gc() is not None else 4
    return 70 if free else 4


if __name__ == "__main__":
    sys.exit(_write_on_a_small_disk(Path(sys.argv[1])))
