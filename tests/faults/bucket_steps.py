"""kill -9 before and after every request that a commit makes to the bucket.

The writer is a fork of this process; requests are counted where the client hands them to the
network, so nothing in the product knows that it is being watched.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from botocore.httpsession import URLLib3Session

from storage.bucket import Bucket
from storage.manifest import Run
from storage.objects import S3Store
from tests.faults.steps import TASK, Deaths, in_child
from tests.faults.worker import store_for, write_task


def kill_at_every_request(server, folder: Path) -> Deaths:
    """Kill a writer at each request, look at the bucket, and let another one finish.

    A death before a request goes on in the same folder, one after it on a fresh machine.
    """
    with Run.open(folder / "reference") as run:
        write_task(run, TASK, salt=0)
        wanted = run.commits()[TASK]
    endpoint = f"http://127.0.0.1:{server.port}{server.path}"
    injected = lost = half = wrong = number = 0
    survived = False
    while not survived:
        number += 1
        for after in (False, True):
            name = f"request-{number}-{after}"
            make_store = partial(store_for, endpoint, f"{folder.name}/{name}")
            root = folder / name
            code = in_child(partial(_write, root, make_store, number, after=after))
            survived = survived or code == 0
            injected += code == -signal.SIGKILL
            bucket = Bucket(make_store())
            half += not bucket.verify().is_whole
            with Run.open(folder / f"{name}-fresh" if after else root, store=make_store()) as run:
                write_task(run, TASK, salt=0)
            report = bucket.verify()
            lost += report.num_commits != 1 or not report.is_whole
            wrong += bucket.commits() != {TASK: wanted} or bool(report.litter)
    return Deaths(injected, lost, half, wrong)


def _write(root: Path, make_store: Callable[[], S3Store], number: int, *, after: bool) -> int:
    _die_at_request(number, after=after)
    with Run.open(root, store=make_store()) as run:
        write_task(run, TASK, salt=0)
    return 0


def _die_at_request(number: int, *, after: bool) -> None:
    """From now on, the ``number``-th request is this process's last."""
    seen = 0
    counting = threading.Lock()
    plain = URLLib3Session.send

    def send(session: URLLib3Session, request: object) -> object:
        nonlocal seen
        with counting:
            seen += 1
            is_last = seen == number
        if is_last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = plain(session, request)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    URLLib3Session.send = send
