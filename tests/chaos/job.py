"""A job as anybody starts it, that also writes down what it sent, lost, answered and committed.

``python -m tests.chaos.job EVENTS JOB key=value ...``: one JSON line per event, appended, so that
a killed job loses nothing it had said. Nothing of the job's behaviour is changed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import actors.judges.endpoint
from jobs import entry, runner, work
from jobs.loopback import prepare_environment
from jobs.stages.judging import JudgeWork, VettingWork

TASK = re.compile(r"[a-z]+-[0-9a-f]{24}")


class Journal:
    """Lines at the end of a file; several processes in turn may write to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()

    def say(self, event: str, **fields: Any) -> None:
        line = json.dumps({"t": time.time(), "e": event, "pid": os.getpid(), **fields})
        with self._lock:
            self._file.write(line.encode() + b"\n")


class WatchedGroup:
    """A model group, and a line for every bundle that goes in or comes out."""

    def __init__(self, group: Any, journal: Journal) -> None:
        self._group = group
        self._journal = journal
        self._flying: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def submit(self, bundle: Any, **options: Any) -> Any:
        tasks = dict.fromkeys(m[0] for r in bundle.requests if (m := TASK.match(r.id)))
        self._journal.say("sent", bundle=bundle.id, tasks=list(tasks))
        pending = self._group.submit(bundle, **options)
        self._flying.append(pending)
        return pending

    def wait(self, pendings: Sequence[Any], timeout_s: float | None = None) -> Any:
        done = self._group.wait(pendings, timeout_s=timeout_s)
        for pending in [one for one in self._flying if one.is_done]:
            self._flying.remove(pending)
            error = pending.error
            if error is None:
                self._journal.say("answered", bundle=pending.bundle_id)
            else:
                self._journal.say("failed", bundle=pending.bundle_id, error=type(error).__name__)
        return done


def watch(journal: Journal) -> None:
    """Put the journal behind the few doors through which all work passes."""
    from jobs import driver

    start_group, commit = driver.start_group, work.Context.commit
    post_json = actors.judges.endpoint.post_json

    def start(*arguments: Any, **options: Any) -> WatchedGroup:
        journal.say("group starts")
        try:
            group = start_group(*arguments, **options)
        except Exception as error:
            journal.say("group failed", error=type(error).__name__)
            raise
        journal.say("group up")
        return WatchedGroup(group, journal)

    def commit_and_say(self: Any, task: Any, tables: Any) -> None:
        commit(self, task, tables)
        journal.say("commit", task=task.id)

    def ask(*arguments: Any, **options: Any) -> Any:
        answer = post_json(*arguments, **options)
        journal.say("judge answered" if answer.body is not None else "judge away")
        return answer

    driver.start_group = start  # type: ignore[assignment]
    work.Context.commit = commit_and_say  # type: ignore[method-assign]
    actors.judges.endpoint.post_json = ask
    for kind in leaves(work.CpuWork):
        judges = issubclass(kind, JudgeWork | VettingWork)
        kind.compute = announced(kind.compute, journal, judges=judges)


def announced(compute: Callable[..., Any], journal: Journal, *, judges: bool) -> Any:
    """A task's work with a line before it."""

    def begin(self: Any, context: Any) -> Any:
        journal.say("begin", task=self.task.id, judges=judges)
        return compute(self, context)

    return begin


def leaves(kind: type) -> list[Any]:
    """All classes below one, with an own ``compute``."""
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return ([kind] if "compute" in vars(kind) and kind is not work.CpuWork else []) + below


def main() -> int:
    path, job, *arguments = sys.argv[1:]
    prepare_environment()
    journal = Journal(Path(path))
    journal.say("start")
    watch(journal)
    sys.argv = [f"jobs.{job}", *arguments]
    code = entry.main(job, arguments)
    journal.say("end", code=int(code))
    return int(code)


if __name__ == "__main__":
    assert runner  # imported with every stage, so that all kinds of work are known
    sys.exit(main())
