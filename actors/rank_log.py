"""Of a group's ranks only the first one speaks in the job's log; each other has a file of its own.

Ray forwards what its workers print, so eight ranks would say everything eight times. The files lie
beside Ray's own logs, where the dashboard's page of logs lists them.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

LOGGERS = ("actors", "storage")
"""Packages whose lines a rank writes."""


def open_log(name: str, rank: int) -> Path | None:
    """Send this process's lines where they belong; returns the file, None for the first rank.

    Args:
        name: Of the rank actor; names the file.
        rank: Position in the group.
    """
    for package in LOGGERS:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(handler)
            logger.propagate = False
    if rank == 0:
        return None
    folder = _log_folder()
    if folder is None:
        return None
    path = folder / f"{name.replace('/', '-')}-{os.getpid()}.log"
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):  # libraries print there without asking Python
        os.dup2(file, stream)
    os.close(file)
    return path


def _log_folder() -> Path | None:
    """Where Ray keeps this process's log; None when it does not write one."""
    try:
        target = Path("/proc/self/fd/2").readlink()
    except OSError:
        return None
    return target.parent if target.is_absolute() and target.is_file() else None
