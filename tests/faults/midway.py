"""A large file is half sent when the server or the writer is killed; the other half is sent alone.

The proxy counts what is asked of the store, so that an upload which begins again, or sends a part
twice that the store has acknowledged, is seen.
"""

from __future__ import annotations

import collections
import hashlib
import os
import re
import signal
import threading
from functools import partial
from pathlib import Path

from storage.objects import S3Store
from tests.faults.proxy import DROPPED, Asked, Fault, FaultProxy
from tests.faults.steps import in_child
from tests.faults.worker import PART_BYTES, store_for

NUM_PARTS = 6
DIES_AT = 4
"""The part that finds the server, or the writer, dead."""
KEY = "data/activations/toy/t9-000000000000.parquet"


class Midway:
    """Counts the requests of one upload, and does something once a part is asked for."""

    def __init__(self, on_part: object = None) -> None:
        self.num_starts = 0
        self.num_sent: collections.Counter[int] = collections.Counter()
        self._on_part = on_part
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Fault | None:
        part = re.search(r"partNumber=(\d+)", asked.target)
        with self._lock:
            self.num_starts += asked.method == "POST" and "uploads" in asked.target.split("?")[-1]
            if asked.method != "PUT" or part is None:
                return None
            number = int(part[1])
            if number == DIES_AT and callable(self._on_part):
                act, self._on_part = self._on_part, None
                act()
                return DROPPED
            self.num_sent[number] += 1
            return None

    def is_resumed(self) -> bool:
        """True when there was one upload, and no part went into it twice."""
        return self.num_starts == 1 and self.num_sent == dict.fromkeys(range(1, NUM_PARTS + 1), 1)


def large_file(root: Path) -> tuple[Path, str]:
    """A file of equal parts and a shorter last one, with its digest."""
    root.mkdir(parents=True, exist_ok=True)
    body = os.urandom(PART_BYTES * (NUM_PARTS - 1) + 12_345)
    path = root / "large.bin"
    path.write_bytes(body)
    return path, hashlib.sha256(body).hexdigest()


def one_at_a_time(endpoint: str, prefix: str) -> S3Store:
    """Parts go in order, so that those before the death are known to be stored."""
    import dataclasses

    patient = store_for(endpoint, prefix).settings
    patience = patient.patience._replace(deadline_s=120.0)
    return S3Store(dataclasses.replace(patient, num_parallel_parts=1, patience=patience))


def server_dies(server, _: str, root: Path) -> bool:
    """kill -9 of the server between two parts, then a start on the same state."""

    def restart() -> None:
        server.kill()
        server.start()

    path, sha256 = large_file(root)
    midway = Midway(restart)
    spoiler = FaultProxy(server.port, midway)
    try:
        store = one_at_a_time(f"http://127.0.0.1:{spoiler.port}{server.path}", root.name)
        sent = store.put_file(KEY, path, sha256, root / "journal.json")
        return sent and store.sha256(KEY) == sha256 and midway.is_resumed()
    finally:
        spoiler.close()


def writer_dies(server, _: str, root: Path) -> bool:
    """kill -9 of the writer between two parts; the next one goes on from its journal."""
    path, sha256 = large_file(root)
    journal = root / "journal.json"
    midway = Midway()
    spoiler = FaultProxy(server.port, midway)
    endpoint = f"http://127.0.0.1:{spoiler.port}{server.path}"
    try:
        code = in_child(partial(_send_and_die, endpoint, root.name, path, sha256, journal))
        stored = dict(midway.num_sent)
        store = one_at_a_time(endpoint, root.name)
        sent = store.put_file(KEY, path, sha256, journal)
        is_cut = code == -signal.SIGKILL and stored == dict.fromkeys(range(1, DIES_AT), 1)
        return is_cut and sent and store.sha256(KEY) == sha256 and midway.is_resumed()
    finally:
        spoiler.close()


def _send_and_die(endpoint: str, prefix: str, path: Path, sha256: str, journal: Path) -> int:
    store = one_at_a_time(endpoint, prefix)
    plain = store._client.upload_part

    def upload_part(**wanted: object) -> object:
        if wanted["PartNumber"] == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(**wanted)

    store._client.upload_part = upload_part
    store.put_file(KEY, path, sha256, journal)
    return 0
