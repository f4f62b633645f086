"""What results need of a place to lie in, whatever the place is.

A store either holds an object whole or not at all. Credentials come from the environment alone and
are never part of a setting, a log line or an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from storage.errors import StoreConfigError
from storage.retries import Patience

PART_BYTES = 64 * 1024**2
"""Size of every part but the last. R2 refuses an upload whose parts differ."""


class ObjectInfo(NamedTuple):
    """What the store says about an object."""

    key: str
    size_bytes: int
    sha256: str | None
    """As put beside the object; None for objects of others and in listings."""


class ObjectStore(Protocol):
    """What results need of a place to lie in. Keys are relative to the run's prefix."""

    name: str

    def get(self, key: str) -> bytes:
        """A whole small object; raises ObjectMissingError."""

    def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes, by one request."""

    def head(self, key: str) -> ObjectInfo | None:
        """Size and digest, or None when there is no such object."""

    def put(self, key: str, body: bytes) -> None:
        """Store a small object, replacing what is there."""

    def put_file(self, key: str, path: Path, sha256: str, journal: Path | None = None) -> bool:
        """Store a file; False when it is there already. Resumes from ``journal``."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Store only if the key is free; False when other bytes have it."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects under a prefix, however many, in key order."""

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""

    def download(self, key: str, path: Path) -> None:
        """Write a whole object to a new local file."""

    def sha256(self, key: str) -> str | None:
        """Digest of the stored bytes, read back; None when there is no such object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Where a bucket is and how patiently it is used. Holds no secret."""

    endpoint: str
    """For R2 ``https://<account>.r2.cloudflarestorage.com``."""
    bucket: str
    prefix: str = ""
    """Put before every key, without a slash at its end; empty uses the bucket's root."""
    region: str = "auto"
    part_bytes: int = PART_BYTES
    """Parts of one upload are equal; at least 5 MiB, the last part excepted."""
    num_parallel_parts: int = 4
    patience: Patience = field(default_factory=Patience)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    ca_bundle: str | None = None
    """PEM file of the authority that signed the endpoint's certificate; None: the system's."""


def credentials_from_environment() -> dict[str, str | None]:
    """Key id, secret and, for temporary credentials, session token, as the client takes them.

    Raises:
        StoreConfigError: The key id or the secret is not set. The client would look elsewhere on
            the machine then, and might find somebody else's.
    """
    names = ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise StoreConfigError(f"a bucket needs {' and '.join(missing)} in the environment.")
    return {
        "aws_access_key_id": os.environ["R2_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["R2_SECRET_ACCESS_KEY"],
        "aws_session_token": os.environ.get("R2_SESSION_TOKEN"),
    }


def settings_from_environment(prefix: str = "") -> S3Settings:
    """Settings of the bucket that R2_ENDPOINT and R2_BUCKET_NAME name.

    Raises:
        StoreConfigError: One of them, or of the two credentials, is not set.
    """
    names = ("R2_ENDPOINT", "R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise StoreConfigError(
            f"storage=r2 needs {', '.join(missing)} in the environment; storage=local needs none."
        )
    return S3Settings(
        endpoint=os.environ["R2_ENDPOINT"], bucket=os.environ["R2_BUCKET_NAME"], prefix=prefix
    )
