"""The bucket never names what it does not hold: data first, its proof second, the record last.

Uploads run in the background, off the path of whoever commits, with a limit on the bytes that wait.
Above the limit ``submit`` blocks, so a slow network slows the run down and never fills the disk.
An upload that fails loses nothing: the commit is on this disk, and ``sync`` or the next open of the
run sends it again, from the part where it stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from storage import layout
from storage.bucket import Bucket
from storage.durable import publish, publish_if_absent, write_bytes
from storage.errors import StorageError, UploadError
from storage.records import Commit
from storage.store import ObjectStore

if TYPE_CHECKING:
    from storage.manifest import Run

logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 8 * 1024**3
"""Committed here but not in the bucket; ``submit`` waits above this."""

NUM_PARALLEL_TASKS = 2

OnPending = Callable[[int], None] | None

Direction = Literal["to_bucket", "from_bucket"]


class Synced(NamedTuple):
    """What a sync moved."""

    num_tasks: int
    """Tasks that the other side did not have."""
    num_files: int
    size_bytes: int
    num_replaced: int
    """Tasks that both sides had with different results: the bucket's record counts."""


class Uploader:
    """Sends commits of one run folder to its bucket in the background."""

    def __init__(
        self,
        root: Path,
        store: ObjectStore,
        *,
        wip: Path,
        on_replaced: Callable[[Commit], None] | None = None,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        on_pending: OnPending = None,
    ) -> None:
        """Args: ``on_pending`` is told the bytes that wait, whenever they change."""
        self._root = root
        self._bucket = Bucket(store)
        self._wip = wip
        self._on_replaced = on_replaced
        self._max_pending_bytes = max_pending_bytes
        self._on_pending = on_pending
        self._pending_bytes = 0
        self._room = threading.Condition()
        self._failed: dict[str, StorageError] = {}
        self._waiting: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(NUM_PARALLEL_TASKS, thread_name_prefix="upload")

    @property
    def pending_bytes(self) -> int:
        """Bytes of commits that wait for the bucket."""
        return self._pending_bytes

    @property
    def failed(self) -> dict[str, StorageError]:
        """Tasks that did not reach the bucket, with the cause."""
        return dict(self._failed)

    def submit(self, commit: Commit) -> None:
        """Queue one commit; waits while more than the limit is queued already."""
        size_bytes = sum(file.size_bytes for file in commit.files)
        with self._room:
            self._room.wait_for(
                lambda: (
                    self._pending_bytes == 0
                    or self._pending_bytes + size_bytes <= self._max_pending_bytes
                )
            )
            self._count(size_bytes)
        self._waiting.append(self._pool.submit(self._send, commit, size_bytes))

    def flush(self) -> None:
        """Wait for everything queued so far.

        Raises:
            UploadError: Some tasks did not reach the bucket.
        """
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.result()
        if self._failed:
            raise UploadError(len(self._failed), next(iter(self._failed.values())).message)

    def close(self, *, wait: bool) -> None:
        """Stop; with ``wait`` after everything queued is sent, else after what is being sent."""
        try:
            if wait:
                self.flush()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _send(self, commit: Commit, size_bytes: int) -> None:
        try:
            counts = push(self._root, self._bucket, commit)
            self._failed.pop(commit.task_id, None)
            if counts != commit:
                replace_local(self._root, self._bucket, counts, self._wip)
                if self._on_replaced:
                    self._on_replaced(counts)
        except StorageError as error:
            logger.warning("task %s is not in the bucket: %s", commit.task_id, error.message)
            self._failed[commit.task_id] = error
        finally:
            with self._room:
                self._count(-size_bytes)
                self._room.notify_all()

    def _count(self, change: int) -> None:
        """Bytes joined or left the queue; the caller holds the lock."""
        self._pending_bytes += change
        if self._on_pending is not None:
            self._on_pending(self._pending_bytes)


def push(root: Path, bucket: Bucket, commit: Commit) -> Commit:
    """Put one commit into the bucket: data, then the record. Repeating it changes nothing.

    Returns:
        The record that counts there: this one, or the one of an attempt that was first.
    """
    for file in commit.files:
        journal = root / layout.JOURNAL / f"{file.sha256[:32]}.json"
        path = layout.path_of(root, file.key)
        bucket.store.put_file(file.key, path, file.sha256, journal)
    return bucket.commit(commit)


def pull(root: Path, bucket: Bucket, commit: Commit, wip: Path) -> int:
    """Bring one commit of the bucket here: data, checked, then the record; returns new files."""
    num_files = 0
    for file in commit.files:
        if not layout.path_of(root, file.key).exists():
            bucket.download(file, root, wip)
            num_files += 1
    final = layout.path_of(root, layout.commit_key(commit.task_id))
    publish_if_absent(write_bytes(wip, commit.to_bytes()), final)
    return num_files


def replace_local(root: Path, bucket: Bucket, commit: Commit, wip: Path) -> None:
    """Let the bucket's record of a task count here too; the files of the other become litter."""
    pull(root, bucket, commit, wip)
    final = layout.path_of(root, layout.commit_key(commit.task_id))
    publish(write_bytes(wip, commit.to_bytes()), final)


def sync(run: Run, store: ObjectStore, direction: Direction) -> Synced:
    """Move what the other side lacks; stopped at any point, the same call goes on.

    Args:
        run: The local run folder; opened without a store.
        store: The bucket with the run's prefix.
        direction: ``to_bucket`` or ``from_bucket``.
    """
    bucket = Bucket(store)
    there, here = bucket.commits(), run.commits()
    if direction == "to_bucket":
        moved = [here[task] for task in here if there.get(task) != here[task]]
        replaced = sum(_push_or_replace(run, bucket, commit) for commit in moved)
        bucket.write_manifest()
        push_papers(run.root, store)
    else:
        moved = [there[task] for task in there if here.get(task) != there[task]]
        replaced = 0
        for commit in moved:
            pull(run.root, bucket, commit, run.wip)
            if commit.task_id in here:
                replace_local(run.root, bucket, commit, run.wip)
                run.forget(commit.task_id)
                replaced += 1
        run.write_manifest()
        if moved or not (run.root / layout.REPORT).exists():
            pull_papers(run, store)
    files = [file for commit in moved for file in commit.files]
    return Synced(len(moved), len(files), sum(file.size_bytes for file in files), replaced)


def _push_or_replace(run: Run, bucket: Bucket, commit: Commit) -> bool:
    counts = push(run.root, bucket, commit)
    if counts == commit:
        return False
    replace_local(run.root, bucket, counts, run.wip)
    run.forget(commit.task_id)
    return True


def pull_papers(run: Run, store: ObjectStore) -> None:
    """Bring the report, and the resolved configs that are not here; the README is made anew."""
    held = [info.key for info in store.list(f"{layout.POINTS}/")]
    wanted = [key for key in held if not layout.path_of(run.root, key).exists()]
    if store.head(layout.REPORT) is not None:
        wanted.append(layout.REPORT)
    for key in wanted:
        publish(write_bytes(run.wip, store.get(key)), layout.path_of(run.root, key))
    run.write_readme()


def push_papers(root: Path, store: ObjectStore) -> None:
    """Report, README and resolved configs: small, and rewritten as they are here."""
    papers = [root / layout.README, root / layout.REPORT]
    papers += sorted(p for p in (root / layout.POINTS).rglob("*") if p.is_file())
    for path in papers:
        if path.is_file():
            key = path.relative_to(root).as_posix()
            if all(not part.startswith(".") for part in key.split("/")):
                store.put(key, path.read_bytes())
