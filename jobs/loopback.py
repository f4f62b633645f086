"""A Ray that a job starts for itself listens on this machine alone and asks for a token.

Ray reads these variables when it is imported, so they are set before that.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

TOKEN_FILE = Path(".ray") / "auth_token"
"""Under the home folder; where Ray's own commands look for a token."""


def prepare_environment() -> None:
    """Set what Ray reads on import, unless the user set it or a cluster is to be joined."""
    # Nothing that still runs while the job ends may start a Ray of its own by a late call.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if os.environ.get("RAY_ADDRESS"):
        return
    for name, value in (
        ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"),  # keeps the node on the loopback address
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_AUTH_MODE", "token"),
        ("RAY_DEDUP_LOGS", "0"),  # lines that differ only in numbers would be merged
    ):
        os.environ.setdefault(name, value)
    if os.environ["RAY_AUTH_MODE"] == "token" and not _has_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / TOKEN_FILE).is_file()
