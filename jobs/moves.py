"""A run goes to its bucket and comes back; stopped at any point, the same command goes on."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from conf.schema import StorageConfig
from jobs.entry import ExitCode
from jobs.report.console import Console
from jobs.stores import object_store, usable_store
from storage import upload
from storage.bucket import Bucket
from storage.manifest import Run
from storage.store import ObjectStore


def move(folder: Path, config: StorageConfig, console: Console, *, is_down: bool) -> int:
    """Send what the other side lacks: to the bucket, or with ``is_down`` to the folder.

    Raises:
        UserError: No bucket is named, or it is not usable.
    """
    store = _named(object_store(config) if is_down else usable_store(config))
    with Run.open(folder) as run:
        moved = upload.sync(run, store, "from_bucket" if is_down else "to_bucket")
        num_tasks = len(run.commits())
    source, target = (store.name, folder) if is_down else (folder, store.name)
    console.note(
        f"{source} to {target}: {moved.num_tasks} tasks, {moved.num_files} files, "
        f"{moved.size_bytes} bytes moved; {num_tasks} tasks are on both sides"
    )
    if moved.num_replaced:
        console.note(
            f"{moved.num_replaced} tasks had other results on both sides: the bucket's count, "
            f"and {folder} holds them now"
        )
    return ExitCode.DONE


def verify_bucket(config: StorageConfig, console: Console) -> int:
    """Read every committed object back and hash it; 1 when one is not as committed."""
    store = _named(object_store(config))
    report = Bucket(store).verify()
    console.note(f"{store.name}: {report.summary()}")
    return ExitCode.DONE if report.is_whole else ExitCode.SOME_FAILED


def _named(store: ObjectStore | None) -> ObjectStore:
    if store is None:
        raise UserError("storage=local has no bucket; add storage=r2 and storage.bucket=NAME.")
    return store
