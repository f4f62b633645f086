"""Faults that have one right outcome each: credentials, clock, parts, zombies."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import botocore.auth
import botocore.exceptions

from storage import upload
from storage.errors import ClockSkewError, CredentialsError, UploadError
from storage.manifest import Run
from storage.objects import S3Store
from tests.faults.chaos import Outcome
from tests.faults.midway import server_dies, writer_dies
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.worker import store_for, write_task

GOOD = {"R2_ACCESS_KEY_ID": "testkey", "R2_SECRET_ACCESS_KEY": "testsecret"}


@contextlib.contextmanager
def credentials(**changes: str) -> Iterator[None]:
    """Credentials in the environment, for as long as the block lasts."""
    with mock.patch.dict(os.environ, {**GOOD, **changes}):
        yield


def run_scenarios(server, folder: Path) -> Outcome:
    """Every scenario once; an outcome that is not the right one counts as lost."""
    endpoint = f"http://127.0.0.1:{server.port}{server.path}"
    out = Outcome()
    for name, scenario in (
        ("wrong key id", _wrong_key_id),
        ("wrong secret", _wrong_secret),
        ("clock skew", _clock_skew),
        ("rotated secret in mid-run", _rotated_in_mid_run),
        ("expired credentials", partial(_expired, server)),
        ("uneven parts", partial(_uneven_parts, server.wants_equal_parts)),
        ("zombie writer", _zombie),
        ("duplicate commit", _duplicate),
        ("upload aborted by the store", _aborted_upload),
        ("kill -9 of the server in mid-upload", partial(server_dies, server)),
        ("kill -9 of the writer in mid-upload", partial(writer_dies, server)),
    ):
        out.injected[name] += 1
        out.num_lost += not scenario(endpoint, folder / name.replace(" ", "-"))
    return out


def _refused(endpoint: str, root: Path, kind: type[Exception]) -> bool:
    """The bucket refuses by name, the result is safe here, and goes up when all is well again."""
    with Run.open(root) as run:
        write_task(run, "t1", salt=0)
        try:
            upload.sync(run, store_for(endpoint, root.name), "to_bucket")
        except kind:
            named = True
        else:
            named = False
        with credentials():
            moved = upload.sync(run, store_for(endpoint, root.name), "to_bucket")
        return named and run.verify().is_whole and moved.num_tasks == 1


def _wrong_key_id(endpoint: str, root: Path) -> bool:
    with credentials(R2_ACCESS_KEY_ID="nobody"):
        return _refused(endpoint, root, CredentialsError)


def _wrong_secret(endpoint: str, root: Path) -> bool:
    with credentials(R2_SECRET_ACCESS_KEY="wrong"):
        return _refused(endpoint, root, CredentialsError)


@contextlib.contextmanager
def _clock_off_by(minutes: int) -> Iterator[None]:
    def shifted(remove_tzinfo: bool = True) -> datetime.datetime:
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
        return now.replace(tzinfo=None) if remove_tzinfo else now

    with mock.patch.object(botocore.auth, "get_current_datetime", shifted):
        yield


def _clock_skew(endpoint: str, root: Path) -> bool:
    with credentials(), Run.open(root) as run:
        write_task(run, "t1", salt=0)
        named = False
        with _clock_off_by(20):
            try:
                upload.sync(run, store_for(endpoint, root.name), "to_bucket")
            except ClockSkewError:
                named = True
        moved = upload.sync(run, store_for(endpoint, root.name), "to_bucket")
        return named and moved.num_tasks == 1


def _rotated_in_mid_run(endpoint: str, root: Path) -> bool:
    with credentials():
        store = store_for(endpoint, root.name)
        run = Run.open(root, store=store)
        write_task(run, "t1", salt=0)
        run.flush()
    with credentials(R2_SECRET_ACCESS_KEY="rotated"):
        store._client = store_for(endpoint, root.name)._client
    write_task(run, "t2", salt=0)
    try:
        run.close()
    except UploadError as error:
        named = "R2_" in str(error) or "credentials" in str(error)
    else:
        named = False
    with credentials(), Run.open(root, store=store_for(endpoint, root.name)) as again:
        again.flush()
        return named and sorted(again.store.get("_meta/commits/t2.json"))[:1] != []


def _expired(server, _: str, root: Path) -> bool:
    """The store says of every request that the token has expired, until there is a new one."""
    is_expired = [True]
    fault = Fault("expired credentials", 400, "ExpiredToken")
    spoiler = FaultProxy(server.port, lambda _: fault if is_expired[0] else None)
    store = store_for(f"http://127.0.0.1:{spoiler.port}{server.path}", root.name)
    try:
        with credentials(), Run.open(root) as run:
            write_task(run, "t1", salt=0)
            try:
                upload.sync(run, store, "to_bucket")
            except CredentialsError as error:
                named = "expired" in str(error)
            else:
                named = False
            is_expired[0] = False
            moved = upload.sync(run, store, "to_bucket")
            return named and run.verify().is_whole and moved.num_tasks == 1
    finally:
        spoiler.close()


def _uneven_parts(is_refused: bool, endpoint: str, root: Path) -> bool:
    """A store that wants equal parts refuses unequal ones; ours are always equal."""
    refused = False
    with credentials():
        store: S3Store = store_for(endpoint, root.name)
        client, place = store._client, {"Bucket": "bucket", "Key": f"{root.name}/uneven"}
        started = client.create_multipart_upload(**place)["UploadId"]
        parts = []
        for number, size in enumerate((6 << 20, 5 << 20, 6 << 20), start=1):
            etag = client.upload_part(
                **place, UploadId=started, PartNumber=number, Body=b"x" * size
            )["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        try:
            client.complete_multipart_upload(
                **place, UploadId=started, MultipartUpload={"Parts": parts}
            )
        except botocore.exceptions.ClientError:
            refused = True
        with Run.open(root, store=store) as run:
            write_task(run, "t4", salt=0)
            run.flush()
        return store.get("_meta/commits/t4.json") != b"" and refused == is_refused


def _zombie(endpoint: str, root: Path) -> bool:
    """A writer that was thought dead comes back with other bytes after the task was redone."""
    with credentials():
        zombie = Run.open(root / "zombie", store=store_for(endpoint, root.name))
        with Run.open(root / "living", store=store_for(endpoint, root.name)) as living:
            write_task(living, "t1", salt=1)
        write_task(zombie, "t1", salt=2)
        zombie.close()
        with Run.open(root / "fresh", store=store_for(endpoint, root.name)) as fresh:
            scores = set(fresh.read("vetting", ["score"])["score"].to_pylist())
        with Run.open(root / "zombie") as adopted:
            same = set(adopted.read("vetting", ["score"])["score"].to_pylist())
        return scores == {2.0} and same == {2.0}


def _duplicate(endpoint: str, root: Path) -> bool:
    """Two writers with the same bytes: one commit, no litter."""
    with credentials():
        for name in ("one", "two"):
            with Run.open(root / name) as run:
                write_task(run, "t1", salt=0)
                upload.sync(run, store_for(endpoint, root.name), "to_bucket")
        store = store_for(endpoint, root.name)
        held = [info.key for info in store.list("")]
        return sum(key.startswith("data/") for key in held) == 1


def _aborted_upload(endpoint: str, root: Path) -> bool:
    """The journal names an upload that the store has dropped: it begins again."""
    with credentials():
        store = store_for(endpoint, root.name)
        with Run.open(root) as run:
            write_task(run, "t4", salt=0)
            file = next(f for f in run.commits()["t4"].files if f.table == "activations")
            journal = root / "journal" / f"{file.sha256[:32]}.json"
            started = store._client.create_multipart_upload(
                Bucket="bucket", Key=f"{root.name}/{file.key}"
            )["UploadId"]
            store._client.abort_multipart_upload(
                Bucket="bucket", Key=f"{root.name}/{file.key}", UploadId=started
            )
            from storage.journal import Journal

            Journal(journal).start(
                store.name,
                file.key,
                file.sha256,
                file.size_bytes,
                upload_id=started,
                part_bytes=5 << 20,
            )
            upload.sync(run, store, "to_bucket")
        return store.sha256(file.key) == file.sha256
