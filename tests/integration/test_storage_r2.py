"""A real R2 bucket settles what no local server can. Needs credentials in the environment.

Set R2_ENDPOINT, R2_BUCKET_NAME, R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY; everything is written
under one prefix of its own and deleted again. ``pytest -m remote tests/integration`` ends with what
was settled, as JSON. A test fails only where the store breaks something that a run relies on; what
R2 is free to do either way is settled and not demanded.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import json
import os
import sys
import time
import uuid
import zlib

import botocore.exceptions
import pytest

from storage.bucket import Bucket
from storage.manifest import Run
from storage.objects import S3Store, settings_from_environment
from storage.preflight import preflight
from storage.upload import sync
from tests.faults.worker import write_task

NEEDED = ("R2_ENDPOINT", "R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
MISSING = [name for name in NEEDED if not os.environ.get(name)]
pytestmark = [
    pytest.mark.remote,
    pytest.mark.skipif(bool(MISSING), reason=f"a real bucket needs {', '.join(MISSING)} to be set"),
]
NUM_RACES, NUM_RACERS = 10, 16


@pytest.fixture(scope="module")
def settled(request):
    """What this store does, by question; printed past pytest's capture at the end."""
    answers: dict[str, object] = {}
    yield answers
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        sys.stdout.write(f"\nsettled: {json.dumps(answers, sort_keys=True)}\n")
        sys.stdout.flush()


@pytest.fixture
def store():
    made = S3Store(settings_from_environment(f"traitmill-test/{uuid.uuid4().hex}"))
    yield made
    for info in list(made.list("")):
        made.delete(info.key)


def place(store, key):
    return {"Bucket": store.settings.bucket, "Key": f"{store.settings.prefix}/{key}"}


def answer_to(call, **wanted) -> str:
    """``200``, or status and code of the refusal."""
    try:
        call(**wanted)
    except botocore.exceptions.ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return f"{status} {error.response['Error']['Code']}"
    return "200"


def parts_of(store, key, sizes):
    upload_id = store._client.create_multipart_upload(**place(store, key))["UploadId"]
    parts = []
    for number, size in enumerate(sizes, start=1):
        etag = store._client.upload_part(
            **place(store, key), UploadId=upload_id, PartNumber=number, Body=b"x" * size
        )["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    return {**place(store, key), "UploadId": upload_id, "MultipartUpload": {"Parts": parts}}


def test_the_preflight_passes(store):
    assert preflight(store)[-1] == "gone"


def test_racing_writers_of_a_task_leave_one_commit_that_all_agree_on(store, settled, tmp_path):
    runs = []
    for i in range(4):
        with Run.open(tmp_path / f"w{i}") as run:
            write_task(run, "t1", salt=i)
            runs.append(run.commits()["t1"])
            sync_data_only(run, store)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda commit: Bucket(store).commit(commit), runs))
    final = Bucket(store).commits()["t1"]
    assert final in runs
    assert Bucket(store).verify().is_whole

    most = 0
    for race in range(NUM_RACES):
        key = f"_meta/race/{race}"
        with concurrent.futures.ThreadPoolExecutor(NUM_RACERS) as pool:
            won = list(
                pool.map(lambda i, k=key: store.put_if_absent(k, b"%d" % i), range(NUM_RACERS))
            )
        assert won.count(True) >= 1
        assert won[int(store.get(key))]
        most = max(most, won.count(True))
    settled["winners of a race of conditional puts, at most"] = most


def sync_data_only(run, store):
    """The data of a run without its commits, as a writer has it just before it commits."""
    for commit in run.commits().values():
        for file in commit.files:
            store.put_file(file.key, run.root / file.key, file.sha256)


def test_a_conditional_completion_does_one_of_two_things(store, settled):
    store.put("data/taken", b"first")
    finished = parts_of(store, "data/taken", [5 << 20, 1 << 20])
    answer = answer_to(store._client.complete_multipart_upload, **finished, IfNoneMatch="*")
    settled["completion with If-None-Match of a taken key"] = answer
    assert answer.startswith(("200", "412"))
    assert (store.get("data/taken") == b"first") == answer.startswith("412")


def test_uneven_parts_are_settled_and_ours_are_always_taken(store, settled, tmp_path):
    finished = parts_of(store, "data/uneven", [6 << 20, 5 << 20, 6 << 20])
    settled["completion of uneven parts"] = answer_to(
        store._client.complete_multipart_upload, **finished
    )
    path = tmp_path / "large"
    path.write_bytes(os.urandom(store.settings.part_bytes + 12_345))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.put_file("data/even", path, sha256, tmp_path / "journal")
    assert store.sha256("data/even") == sha256


def test_the_write_rate_of_one_key_is_settled_and_survived(store, settled):
    refused = 0
    started = time.monotonic()
    for i in range(20):
        answer = answer_to(store._client.put_object, **place(store, "data/hot"), Body=b"%d" % i)
        refused += answer.startswith("429")
    seconds = time.monotonic() - started
    settled["puts to one key"] = f"{20 / seconds:.1f} a second, {refused} of 20 refused with 429"
    for i in range(5):
        store.put("data/hot", b"%d" % i)
    assert store.get("data/hot") == b"4"


@pytest.mark.parametrize("header", ["ChecksumSHA256", "ContentMD5", "ChecksumCRC32"])
def test_a_checksum_header_is_settled(store, settled, header):
    body = b"checked"
    made = {
        "ChecksumSHA256": lambda b: hashlib.sha256(b).digest(),
        "ContentMD5": lambda b: hashlib.md5(b).digest(),
        "ChecksumCRC32": lambda b: zlib.crc32(b).to_bytes(4, "big"),
    }[header]
    for name, of in (("right", body), ("wrong", b"other")):
        value = base64.b64encode(made(of)).decode()
        answer = answer_to(
            store._client.put_object, **place(store, "data/sum"), Body=body, **{header: value}
        )
        settled[f"{header}, {name}"] = answer
        assert name == "wrong" or answer == "200"


def test_a_run_goes_up_and_comes_back(store, tmp_path):
    with Run.open(tmp_path / "a") as run:
        write_task(run, "t4", 0)
        sync(run, store, "to_bucket")
    with Run.open(tmp_path / "b") as run:
        assert sync(run, store, "from_bucket").num_tasks == 1
        assert run.verify().is_whole
