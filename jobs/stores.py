"""The run folder with the bucket that the configuration names; keys come from the environment.

A bucket is used only after it has shown what a run needs of it: better to learn in the first
second that a token may not delete than after a night of captures.
"""

from __future__ import annotations

from pathlib import Path

from conf.schema import StorageConfig
from storage.manifest import Run
from storage.preflight import preflight
from storage.store import ObjectStore, S3Settings


def object_store(config: StorageConfig) -> ObjectStore | None:
    """The bucket behind the run folder, or None when results stay on this machine."""
    if config.kind == "local":
        return None
    # Only here: the S3 client takes a second to import, and most runs have no bucket.
    from storage.objects import S3Store
    from storage.retries import Patience

    return S3Store(
        S3Settings(
            endpoint=config.endpoint_url or "",
            bucket=config.bucket or "",
            prefix=config.prefix,
            region=config.region or "auto",
            patience=Patience(deadline_s=config.upload_timeout_s),
        )
    )


def open_run(config: StorageConfig, folder: Path) -> Run:
    """Open the run folder, with its bucket behind it when there is one.

    Raises:
        PreflightError: The bucket lacks a right or a property; nothing was opened.
    """
    store = object_store(config)
    if store is not None:
        preflight(store)
    return Run.open(folder, store=store, max_pending_bytes=config.max_pending_bytes)
