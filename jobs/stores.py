"""The run folder with the bucket that the configuration names; keys come from the environment.

A bucket is used only after it has shown what a run needs of it: better to learn in the first
second that a token may not delete than after a night of captures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from conf.schema import StorageConfig
from storage.manifest import Run
from storage.preflight import preflight
from storage.store import ObjectStore, S3Settings

PREFLIGHT_S = 30.0
"""A bucket that does not answer for so long is refused; an upload waits longer, as configured."""


def object_store(config: StorageConfig, *, patience_s: float | None = None) -> ObjectStore | None:
    """The bucket behind the run folder, or None when results stay on this machine.

    Args:
        config: Which, and ``upload_timeout_s``.
        patience_s: How long a request is repeated; by default as long as an upload may take.
    """
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
            patience=Patience(deadline_s=patience_s or config.upload_timeout_s),
        )
    )


def usable_store(config: StorageConfig) -> ObjectStore | None:
    """The bucket, once it has shown that it can be used; None when there is none.

    Raises:
        PreflightError: The bucket lacks a right or a property, or does not answer.
    """
    impatient = object_store(config, patience_s=min(PREFLIGHT_S, config.upload_timeout_s))
    if impatient is not None:
        preflight(impatient)
    return object_store(config)


def open_run(config: StorageConfig, folder: Path) -> Run:
    """Open the run folder, with its bucket behind it when there is one.

    Raises:
        PreflightError: The bucket lacks a right or a property; nothing was opened.
    """
    store = usable_store(config)
    return Run.open(
        folder,
        store=store,
        max_pending_bytes=config.max_pending_bytes,
        on_pending=note_backlog,
    )


def note_backlog(num_bytes: int) -> None:
    """Tell Ray's metrics what waits for the bucket, once the driver has loaded them.

    Ray reads its settings when it is imported, which is not for a run folder to decide.
    """
    metrics = sys.modules.get("actors.metrics")
    if metrics is not None:
        metrics.METER.set("traitmill_upload_backlog_bytes", num_bytes)
