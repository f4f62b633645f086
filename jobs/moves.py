"""A run goes to its bucket and comes back; stopped at any point, the same command goes on."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from conf.schema import StorageConfig
from jobs.entry import ExitCode
from jobs.report.console import Console
from jobs.stores import PREFLIGHT_S, object_store, usable_store
from storage import upload
from storage.bucket import Bucket
from storage.errors import TransientStoreError
from storage.manifest import Run
from storage.store import ObjectStore


def move(folder: Path, config: StorageConfig, console: Console, *, is_down: bool) -> int:
    """Send what the other side lacks: to the bucket, or with ``is_down`` to the folder.

    Raises:
        UserError: No bucket is named, it is not usable, or with ``is_down`` it holds no run.
    """
    store = _with_a_run(config) if is_down else _named(usable_store(config))
    with Run.open(folder) as run:
        moved = upload.sync(run, store, "from_bucket" if is_down else "to_bucket")
        num_tasks = len(Bucket(store).commits() if is_down else run.commits())
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
    """Read every committed object back and hash it; 1 when one is not as committed.

    Raises:
        UserError: No bucket is named, it does not answer, or it holds no run.
    """
    store = _with_a_run(config)
    report = Bucket(store).verify()
    console.note(f"{store.name}: {report.summary()}")
    return ExitCode.DONE if report.is_whole else ExitCode.SOME_FAILED


def collect(folder: Path, console: Console) -> int:
    """Delete the data files of a folder that no commit names."""
    with Run.open(folder) as run:
        gone = run.gc()
    console.note(f"{folder}: {len(gone)} files that no commit names were deleted")
    return ExitCode.DONE


def collect_in_bucket(config: StorageConfig, console: Console) -> int:
    """Delete the data objects of a bucket that no commit names; nobody may write to it meanwhile.

    Raises:
        UserError: No bucket is named, it does not answer, or it holds no run.
    """
    store = _with_a_run(config)
    gone = Bucket(store).collect_litter()
    console.note(f"{store.name}: {len(gone)} objects that no commit names were deleted")
    return ExitCode.DONE


def _named(store: ObjectStore | None) -> ObjectStore:
    if store is None:
        raise UserError("storage=local has no bucket; add storage=r2 and storage.bucket=NAME.")
    return store


def _with_a_run(config: StorageConfig) -> ObjectStore:
    """The bucket, once it has answered in seconds and shown that a run is there."""
    impatient = _named(object_store(config, patience_s=min(PREFLIGHT_S, config.upload_timeout_s)))
    try:
        commits = Bucket(impatient).commits()
    except TransientStoreError as error:
        raise UserError(f"bucket {impatient.name} does not answer: {error.message}") from error
    if not commits:
        raise UserError(f"{impatient.name} holds no committed task: check storage.prefix.")
    return _named(object_store(config))
