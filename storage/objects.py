"""One vocabulary over a folder, S3 and R2: what was put is there whole, or the call raises.

This is the only module that holds the S3 client. Credentials come from the environment alone and
are never part of a setting, a log line or an error. The client is set up for R2: region ``auto``,
no checksum trailers (R2 refuses them), signed payloads (so a changed body is refused), one part
size for a whole upload.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import boto3
from botocore.config import Config

from storage.errors import (
    ObjectCorruptError,
    ObjectMissingError,
    ObjectStoreError,
    TransientStoreError,
    UploadVanishedError,
)
from storage.journal import Journal
from storage.retries import AlreadyThereError, Answer, repeat
from storage.slices import FileSlice
from storage.store import (
    ObjectInfo,
    ObjectStore,
    S3Settings,
    credentials_from_environment,
    settings_from_environment,
)

__all__ = ["ObjectInfo", "ObjectStore", "S3Settings", "S3Store", "settings_from_environment"]

Client: TypeAlias = Any
"""The S3 client; boto3 makes its class at run time."""

READ_BYTES = 16 * 1024**2
"""Objects are read in ranges of this size, so that a cut answer repeats only its range."""

_NUM_TRIES = 3
"""Whole uploads of one file, each with its own deadline, before the store is not trusted."""


class S3Store:
    """A bucket behind the S3 protocol."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.name = f"s3://{settings.bucket}/{settings.prefix}".rstrip("/")
        self._client = _client(settings)
        self._deadline = math.inf

    def get(self, key: str) -> bytes:
        """A whole small object; raises ObjectMissingError."""
        ask = partial(self._client.get_object, **self._at(key))
        body: bytes = self._repeat(lambda: ask()["Body"].read(), "get", key)
        return body

    def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        """Exactly these bytes, by one request."""
        if size_bytes == 0:
            return b""
        wanted = f"bytes={offset}-{offset + size_bytes - 1}"
        ask = partial(self._client.get_object, **self._at(key), Range=wanted)
        body: bytes = self._repeat(lambda: ask()["Body"].read(), "get range", key)
        if len(body) != size_bytes:
            raise ObjectCorruptError("get range", key, f"{len(body)} bytes, not {size_bytes}")
        return body

    def head(self, key: str) -> ObjectInfo | None:
        """Size and digest, or None when there is no such object."""
        try:
            found = self._repeat(lambda: self._client.head_object(**self._at(key)), "head", key)
        except ObjectMissingError:
            return None
        except TransientStoreError:
            raise
        except ObjectStoreError:
            # A refused HEAD has no body, so it cannot say why: the same question as a GET can.
            self.get_range(key, 0, 1)
            raise
        return ObjectInfo(key, found["ContentLength"], found.get("Metadata", {}).get("sha256"))

    def put(self, key: str, body: bytes) -> None:
        """Store a small object, replacing what is there."""
        facts = {"sha256": hashlib.sha256(body).hexdigest()}
        self._repeat(
            lambda: self._client.put_object(**self._at(key), Body=body, Metadata=facts), "put", key
        )

    def put_file(self, key: str, path: Path, sha256: str, journal: Path | None = None) -> bool:
        """Store a file; False when it is there already. Resumes from ``journal``.

        All requests for it together have the time of the settings' patience.
        """
        hurried = copy.copy(self)
        hurried._deadline = time.monotonic() + self.settings.patience.deadline_s
        return hurried._put_file(key, path, sha256, journal)

    def _put_file(self, key: str, path: Path, sha256: str, journal: Path | None) -> bool:
        size_bytes = path.stat().st_size
        if self._holds(key, size_bytes, sha256):
            return False
        for _ in range(_NUM_TRIES):
            if size_bytes <= self.settings.part_bytes:
                self._put_whole(key, path, sha256)
            else:
                self._put_parts(key, path, sha256, Journal(journal))
            # Some stores keep what arrived of a cut body and still answer 200.
            if self._holds(key, size_bytes, sha256):
                return True
        raise ObjectCorruptError("put", key, f"not {size_bytes} bytes with sha256 {sha256}")

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Store only if the key is free; False when other bytes have it."""
        facts = {"sha256": hashlib.sha256(body).hexdigest()}

        def call() -> object:
            return self._client.put_object(
                **self._at(key), Body=body, Metadata=facts, IfNoneMatch="*"
            )

        try:
            self._repeat(call, "put if absent", key)
        except AlreadyThereError:
            # The answer to an earlier try may have been lost: then the bytes there are these.
            return self.get(key) == body
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects under a prefix, however many, in key order."""
        skip = len(self._full(""))
        token: dict[str, str] = {}
        while True:
            ask = partial(
                self._client.list_objects_v2,
                Bucket=self.settings.bucket,
                Prefix=self._full(prefix),
                **token,
            )
            page = self._repeat(ask, "list", prefix)
            for each in page.get("Contents", []):
                yield ObjectInfo(each["Key"][skip:], each["Size"], None)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""
        self._repeat(lambda: self._client.delete_object(**self._at(key)), "delete", key)

    def download(self, key: str, path: Path) -> None:
        """Write a whole object to a new local file."""
        with path.open("xb") as handle:
            for block in self._blocks(key):
                handle.write(block)
            handle.flush()
            os.fsync(handle.fileno())

    def sha256(self, key: str) -> str | None:
        """Digest of the stored bytes, read back; None when there is no such object."""
        digest = hashlib.sha256()
        try:
            for block in self._blocks(key):
                digest.update(block)
        except ObjectMissingError:
            return None
        return digest.hexdigest()

    def _blocks(self, key: str) -> Iterator[bytes]:
        info = self.head(key)
        if info is None:
            raise ObjectMissingError("get", key, "404")
        for offset in range(0, info.size_bytes, READ_BYTES):
            yield self.get_range(key, offset, min(READ_BYTES, info.size_bytes - offset))

    def _holds(self, key: str, size_bytes: int, sha256: str) -> bool:
        return self.head(key) == ObjectInfo(key, size_bytes, sha256)

    def _put_whole(self, key: str, path: Path, sha256: str) -> None:
        def call() -> object:
            with FileSlice(path, 0, path.stat().st_size) as body:
                return self._client.put_object(
                    **self._at(key), Body=body, Metadata={"sha256": sha256}
                )

        self._repeat(call, "put", key)

    def _put_parts(self, key: str, path: Path, sha256: str, journal: Journal) -> None:
        """Multipart upload, continued from the journal when an earlier attempt was cut off."""
        size_bytes = path.stat().st_size
        for _ in range(_NUM_TRIES):
            if not journal.fits(self.name, key, sha256, size_bytes):
                started = self._repeat(
                    lambda: self._client.create_multipart_upload(
                        **self._at(key), Metadata={"sha256": sha256}
                    ),
                    "start upload",
                    key,
                )
                journal.start(
                    self.name,
                    key,
                    sha256,
                    size_bytes,
                    upload_id=started["UploadId"],
                    part_bytes=self.settings.part_bytes,
                )
            try:
                self._send_parts(key, path, journal)
                self._complete(key, journal)
            except UploadVanishedError:
                # Completed by a request whose answer was lost, or dropped by the store.
                journal.forget()
                if self._holds(key, size_bytes, sha256):
                    return
                continue
            journal.forget()
            return
        raise TransientStoreError("upload", key, f"the store forgot the upload {_NUM_TRIES} times")

    def _send_parts(self, key: str, path: Path, journal: Journal) -> None:
        def send(number: int, offset: int, length: int) -> None:
            def call() -> dict[str, str]:
                with FileSlice(path, offset, length) as body:
                    stored: dict[str, str] = self._client.upload_part(
                        **self._at(key),
                        UploadId=journal.upload_id,
                        PartNumber=number,
                        Body=body,
                    )
                return stored

            journal.add(number, self._repeat(call, f"put part {number}", key)["ETag"])

        with ThreadPoolExecutor(self.settings.num_parallel_parts) as pool:
            waiting = [pool.submit(send, *part) for part in journal.missing()]
            try:
                for each in waiting:
                    each.result()
            except ObjectStoreError:
                pool.shutdown(cancel_futures=True)
                raise

    def _complete(self, key: str, journal: Journal) -> None:
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in sorted(journal.parts.items())]
        self._repeat(
            lambda: self._client.complete_multipart_upload(
                **self._at(key), UploadId=journal.upload_id, MultipartUpload={"Parts": parts}
            ),
            "complete upload",
            key,
        )

    def _full(self, key: str) -> str:
        return f"{self.settings.prefix}/{key}" if self.settings.prefix else key

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.settings.bucket, "Key": self._full(key)}

    def _repeat(self, call: Callable[[], Answer], operation: str, key: str) -> Answer:
        patience = self.settings.patience
        left_s = max(0.0, self._deadline - time.monotonic())
        return repeat(call, operation, key, patience._replace(deadline_s=min(patience[0], left_s)))


def _client(settings: S3Settings) -> Client:
    config = Config(
        s3={
            "addressing_style": "path",
            "payload_signing_enabled": True,
        },
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=max(10, 2 * settings.num_parallel_parts),
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint or None,
        region_name=settings.region,
        **credentials_from_environment(),
        verify=settings.ca_bundle,
        config=config,
    )
