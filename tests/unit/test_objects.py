"""The S3 client against moto: every call of the protocol, and every refusal by its name."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from botocore import exceptions as boto

from conf.errors import UserError
from storage import errors, retries
from storage.folder import FolderStore
from storage.objects import S3Settings, S3Store, settings_from_environment
from storage.preflight import preflight
from storage.retries import AlreadyThereError, named, repeat
from tests.s3_server import CREDENTIALS, QUICK, moto_endpoint, store_at


@pytest.fixture(scope="module")
def endpoint():
    with moto_endpoint() as address:
        yield address


@pytest.fixture(params=["s3", "folder"])
def store(request, endpoint, tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    return store_at(endpoint, prefix=request.node.name.replace("[", "-").replace("]", ""))


@pytest.fixture
def s3(endpoint, monkeypatch, request):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return store_at(endpoint, prefix=request.node.name)


def write(path, size):
    body = bytes(i % 251 for i in range(size))
    path.write_bytes(body)
    return hashlib.sha256(body).hexdigest()


def test_what_was_put_is_got(store):
    store.put("data/a", b"hello world")
    assert store.get("data/a") == b"hello world"
    assert store.get_range("data/a", 6, 5) == b"world"
    assert store.head("data/a").size_bytes == 11
    assert store.head("data/a").sha256 == hashlib.sha256(b"hello world").hexdigest()
    assert store.sha256("data/a") == hashlib.sha256(b"hello world").hexdigest()


def test_a_missing_object_is_none_or_named(store):
    assert store.head("data/none") is None
    assert store.sha256("data/none") is None
    with pytest.raises(errors.ObjectMissingError, match="data/none"):
        store.get("data/none")
    store.delete("data/none")


def test_the_first_conditional_put_wins(store):
    assert store.put_if_absent("_meta/commits/t.json", b"first")
    assert not store.put_if_absent("_meta/commits/t.json", b"second")
    assert store.get("_meta/commits/t.json") == b"first"


def test_the_same_bytes_again_count_as_mine(store):
    assert store.put_if_absent("_meta/commits/t.json", b"first")
    assert store.put_if_absent("_meta/commits/t.json", b"first")


def test_a_file_is_sent_once(store, tmp_path):
    digest = write(tmp_path / "f", 1000)
    assert store.put_file("data/f", tmp_path / "f", digest)
    assert not store.put_file("data/f", tmp_path / "f", digest)
    store.download("data/f", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "f").read_bytes()


def test_the_preflight_leaves_nothing(store):
    assert preflight(store)[-3:] == ["conditional put refused", "delete", "gone"]
    assert list(store.list("")) == []


def test_keys_are_listed_by_prefix_in_order(store):
    for key in ("data/b", "data/a", "_meta/commits/t.json"):
        store.put(key, b"x")
    assert [info.key for info in store.list("data/")] == ["data/a", "data/b"]


def test_more_keys_than_one_answer_holds_are_listed(s3):
    asked = []

    def ten_at_a_time(params, **_):
        asked.append(params)
        return {**params, "MaxKeys": 10}

    s3._client.meta.events.register("provide-client-params.s3.ListObjectsV2", ten_at_a_time)
    for i in range(25):
        s3.put(f"data/{i:05d}", b"")
    assert len({info.key for info in s3.list("data/")}) == 25
    assert len(asked) == 3


def test_a_large_file_goes_in_equal_parts(s3, tmp_path, monkeypatch):
    digest = write(tmp_path / "f", 11 * 1024**2)
    sizes = {}
    plain = s3._client.upload_part

    def spy(**call):
        sizes[call["PartNumber"]] = len(call["Body"])
        return plain(**call)

    monkeypatch.setattr(s3._client, "upload_part", spy)
    assert s3.put_file("data/f", tmp_path / "f", digest, tmp_path / "journal.json")
    assert sizes == {1: 5 * 1024**2, 2: 5 * 1024**2, 3: 1024**2}
    assert s3.sha256("data/f") == digest
    assert not (tmp_path / "journal.json").exists()


def test_a_cut_off_upload_goes_on_with_its_own_part_size(s3, endpoint, tmp_path, monkeypatch):
    digest = write(tmp_path / "f", 16 * 1024**2)
    plain = s3._client.upload_part
    sent = []

    def dies_at_three(**call):
        if call["PartNumber"] == 3:
            raise KeyboardInterrupt
        return plain(**call)

    monkeypatch.setattr(s3._client, "upload_part", dies_at_three)
    with pytest.raises(KeyboardInterrupt):
        s3.put_file("data/f", tmp_path / "f", digest, tmp_path / "journal.json")
    again = store_at(endpoint, prefix=s3.settings.prefix, part_bytes=6 * 1024**2)
    fresh = again._client.upload_part
    monkeypatch.setattr(
        again._client, "upload_part", lambda **c: (sent.append(len(c["Body"])), fresh(**c))[1]
    )
    assert again.put_file("data/f", tmp_path / "f", digest, tmp_path / "journal.json")
    assert set(sent) <= {5 * 1024**2, 1024**2}
    assert len(sent) < 4
    assert again.sha256("data/f") == digest


def test_a_lost_answer_to_the_completion_is_a_success(s3, tmp_path, monkeypatch):
    digest = write(tmp_path / "f", 6 * 1024**2)
    plain = s3._client.complete_multipart_upload
    calls = []

    def answer_lost(**call):
        calls.append(1)
        if len(calls) == 1:
            plain(**call)
            raise boto.ConnectionClosedError(endpoint_url="x")
        raise boto.ClientError(
            {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "C"
        )

    monkeypatch.setattr(s3._client, "complete_multipart_upload", answer_lost)
    assert s3.put_file("data/f", tmp_path / "f", digest)
    assert len(calls) == 2


def test_a_lost_answer_to_a_conditional_put_is_not_somebody_else(s3, monkeypatch):
    plain = s3._client.put_object
    calls = []

    def answer_lost(**call):
        calls.append(1)
        answer = plain(**call)
        if len(calls) == 1:
            raise boto.ReadTimeoutError(endpoint_url="x")
        return answer

    monkeypatch.setattr(s3._client, "put_object", answer_lost)
    assert s3.put_if_absent("_meta/commits/t.json", b"mine")
    assert len(calls) == 2


def test_a_store_that_keeps_a_cut_body_is_not_trusted(s3, tmp_path, monkeypatch):
    digest = write(tmp_path / "f", 1000)
    plain = s3._client.put_object
    monkeypatch.setattr(
        s3._client, "put_object", lambda **call: plain(**{**call, "Body": call["Body"].read(10)})
    )
    with pytest.raises(errors.ObjectCorruptError, match="not 1000 bytes"):
        s3.put_file("data/f", tmp_path / "f", digest)


def answer(status: int, code: str) -> boto.ClientError:
    return boto.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (answer(500, "InternalError"), errors.TransientStoreError, "500 InternalError"),
        (answer(503, "SlowDown"), errors.TransientStoreError, "503 SlowDown"),
        (answer(429, "TooManyRequests"), errors.TransientStoreError, "429"),
        (answer(409, "ConditionalRequestConflict"), errors.TransientStoreError, "409"),
        (answer(400, "IncompleteBody"), errors.TransientStoreError, "IncompleteBody"),
        (answer(400, "XAmzContentSHA256Mismatch"), errors.TransientStoreError, "SHA256"),
        (answer(400, "BadDigest"), errors.TransientStoreError, "BadDigest"),
        (answer(412, "PreconditionFailed"), AlreadyThereError, "412"),
        (answer(401, "Unauthorized"), errors.CredentialsError, "R2_ACCESS_KEY_ID"),
        (answer(403, "SignatureDoesNotMatch"), errors.CredentialsError, "R2_SECRET_ACCESS_KEY"),
        (answer(403, "AccessDenied"), errors.CredentialsError, "Object Read & Write"),
        (answer(400, "ExpiredToken"), errors.CredentialsError, "expired"),
        (answer(403, "RequestTimeTooSkewed"), errors.ClockSkewError, "clock"),
        (answer(400, "ExpiredRequest"), errors.ClockSkewError, "clock"),
        (answer(404, "NoSuchKey"), errors.ObjectMissingError, "404"),
        (answer(404, "NoSuchBucket"), errors.CredentialsError, "R2_BUCKET_NAME"),
        (answer(404, "NoSuchUpload"), errors.UploadVanishedError, "NoSuchUpload"),
        (answer(400, "InvalidPart"), errors.UploadVanishedError, "InvalidPart"),
        (answer(418, "Teapot"), errors.ObjectStoreError, "418 Teapot"),
        (boto.EndpointConnectionError(endpoint_url="x"), errors.TransientStoreError, "Endpoint"),
        (ConnectionResetError("reset"), errors.TransientStoreError, "reset"),
    ],
)
def test_every_refusal_has_a_type_and_names_its_cause(failure, kind, words):
    got = named(failure, "put", "data/x")
    assert type(got) is kind
    assert words in str(got)
    back = pickle.loads(pickle.dumps(got))
    assert (type(back), back.fields) == (type(got), got.fields)


def test_what_the_user_can_mend_is_a_user_error():
    assert issubclass(errors.CredentialsError, UserError)
    assert issubclass(errors.StoreConfigError, UserError)
    assert issubclass(errors.DiskFullError, UserError)


def test_a_passing_failure_is_repeated_until_it_passes(monkeypatch):
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    failures = [answer(503, "SlowDown"), answer(409, "Conflict"), answer(500, "InternalError")]

    def call():
        if failures:
            raise failures.pop()
        return "done"

    assert repeat(call, "put", "k", QUICK) == "done"


def test_wrong_credentials_are_not_repeated():
    calls = []

    def call():
        calls.append(1)
        raise answer(403, "SignatureDoesNotMatch")

    with pytest.raises(errors.CredentialsError):
        repeat(call, "put", "k", QUICK)
    assert len(calls) == 1


def test_the_deadline_ends_the_repeats_and_is_named(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(retries.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)

    def call():
        raise answer(500, "InternalError")

    with pytest.raises(errors.TransientStoreError, match="attempts in 5 s"):
        repeat(call, "put", "k", QUICK)


def test_missing_settings_are_listed(monkeypatch):
    for name in (*CREDENTIALS, "R2_ENDPOINT", "R2_BUCKET_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(errors.StoreConfigError, match="R2_ENDPOINT, R2_BUCKET_NAME, R2_ACCESS"):
        settings_from_environment()


def test_the_client_is_set_up_for_r2(endpoint, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    config = S3Store(S3Settings(endpoint=endpoint, bucket="b1"))._client.meta.config
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"
    assert config.region_name == "auto"
    assert config.retries["total_max_attempts"] == 1
    assert config.s3["payload_signing_enabled"] is True


def test_no_secret_is_in_settings_or_names(endpoint, monkeypatch):
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("R2_ACCESS_KEY_ID", "who")
    store = store_at(endpoint)
    assert "hush" not in repr(store.settings) + store.name + repr(vars(store))


def test_a_refused_head_says_why_by_asking_as_a_get(s3, monkeypatch):
    """The answer to a HEAD has no body, so its cause is a number alone."""
    asked = []

    def refuse(operation, status, code):
        def call(**_):
            asked.append(operation)
            raise answer(status, code)

        return call

    monkeypatch.setattr(s3._client, "head_object", refuse("head", 400, "400"))
    monkeypatch.setattr(s3._client, "get_object", refuse("get", 400, "ExpiredToken"))
    with pytest.raises(errors.CredentialsError, match="the credentials have expired"):
        s3.head("data/a")
    assert asked == ["head", "get"]


def test_one_files_requests_share_one_deadline(s3, tmp_path, monkeypatch):
    """Ten parts that each fail for a while must not take ten times as long."""
    path = tmp_path / "f"
    path.write_bytes(b"x" * (11 << 20))
    clock = [0.0]
    monkeypatch.setattr("storage.retries.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("storage.retries.time.sleep", lambda s: clock.__setitem__(0, clock[0] + 1))

    def fail(**_):
        raise answer(503, "SlowDown")

    monkeypatch.setattr(s3._client, "upload_part", fail)
    with pytest.raises(errors.TransientStoreError):
        s3.put_file("data/f", path, "0" * 64)
    assert clock[0] < 2 * s3.settings.patience.deadline_s + 2


def test_a_passed_deadline_of_one_file_does_not_hurry_the_next(s3, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    assert s3.put_file("data/f", path, digest)
    assert s3._deadline == float("inf")


@pytest.mark.parametrize("missing", ["R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"])
def test_without_credentials_no_others_on_the_machine_are_used(endpoint, monkeypatch, missing):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    monkeypatch.delenv(missing)
    with pytest.raises(errors.StoreConfigError, match=f"needs {missing} in the environment"):
        store_at(endpoint)


def test_temporary_credentials_bring_their_session_token(endpoint, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    assert store_at(endpoint)._client._request_signer._credentials.token is None
    monkeypatch.setenv("R2_SESSION_TOKEN", "short-lived")
    assert store_at(endpoint)._client._request_signer._credentials.token == "short-lived"
