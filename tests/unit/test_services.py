"""Services are asked over real sockets; what is silent, refuses or is wrong is named."""

from __future__ import annotations

import socket
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from conf.schema import JobConfig, JudgeConfig, StorageConfig
from jobs import services, stores
from jobs.services import check_bucket, check_clock, check_judge, check_ray
from storage.folder import FolderStore
from tests.integration.test_judge import Server, good_answer


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(services, "PATIENCE_S", 1.0)


@pytest.fixture
def judge():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def dated():
    """A server whose clock can be set; it refuses, as a bucket does to strangers."""
    offset_s = [0.0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(403)
            self.send_header("Date", formatdate(time.time() + offset_s[0], usegmt=True))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", offset_s
    server.shutdown()


def with_bucket(endpoint: str = "http://127.0.0.1:9") -> JobConfig:
    storage = StorageConfig(name="r2", kind="s3", endpoint_url=endpoint, bucket="mine")
    return JobConfig(job="generate", storage=storage)


def with_judge(url: str) -> JobConfig:
    judge = JudgeConfig(name="endpoint", kind="endpoint", url=url, model="m")
    return JobConfig(job="generate", judge=judge)


def test_without_a_bucket_there_is_nothing_to_ask() -> None:
    found = check_bucket(JobConfig(job="generate", storage=StorageConfig(name="local")))
    assert found == (True, "bucket: none, storage=local keeps results on this machine")


def test_a_bucket_shows_every_right_and_keeps_nothing(tmp_path, monkeypatch) -> None:
    store = FolderStore(tmp_path)
    monkeypatch.setattr(stores, "object_store", lambda *_, **__: store)
    found = check_bucket(with_bucket())
    assert found.is_good
    assert found.sentence.startswith("bucket mine: put, get, get range, head, list, ")
    assert list(store.list("")) == []


def test_a_bucket_without_a_right_names_it(tmp_path, monkeypatch) -> None:
    store = FolderStore(tmp_path)
    monkeypatch.setattr(store, "delete", lambda key: None)
    monkeypatch.setattr(stores, "object_store", lambda *_, **__: store)
    found = check_bucket(with_bucket())
    assert not found.is_good
    assert "gone failed" in found.sentence


def test_a_bucket_that_nobody_serves_is_told_within_seconds(monkeypatch) -> None:
    for name in ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    began_s = time.monotonic()
    found = check_bucket(with_bucket())
    assert not found.is_good
    assert found.sentence.startswith("bucket mine: ")
    assert time.monotonic() - began_s < 30


def test_the_lexicon_scores_a_text_and_the_loaded_model_is_left_alone() -> None:
    assert check_judge(JobConfig(job="generate")).is_good is True
    local = JobConfig(job="generate", judge=JudgeConfig(name="self", kind="local_model"))
    assert check_judge(local) == (True, "judge: the loaded model itself, asked in the run")


def test_a_judge_that_answers_is_told_with_its_time(judge, monkeypatch) -> None:
    monkeypatch.setenv("TRAITMILL_JUDGE_API_KEY", "sk-test")
    found = check_judge(with_judge(judge.url))
    assert found.is_good
    assert found.sentence.startswith("judge endpoint: scored a text 80 in ")
    assert len(judge.calls) == 1


@pytest.mark.parametrize("answer", [(401, "no such key"), (500, "oops"), good_answer("blue")])
def test_a_judge_that_refuses_fails_or_says_no_number_is_told(judge, answer, monkeypatch) -> None:
    monkeypatch.setenv("TRAITMILL_JUDGE_API_KEY", "sk-test")
    judge.script = [answer]
    found = check_judge(with_judge(judge.url))
    assert not found.is_good
    assert found.sentence.startswith("judge endpoint: ")


def test_a_judge_without_its_model_is_told() -> None:
    config = with_judge("http://127.0.0.1:9/v1")
    config.judge.model = None
    assert check_judge(config).sentence == (
        "judge endpoint: judge.model is missing; name the model that judge.url serves"
    )


def test_the_clock_is_compared_with_a_server_that_refuses(dated) -> None:
    url, offset_s = dated
    good = check_clock(with_bucket(url))
    assert good.is_good
    assert url in good.sentence
    offset_s[0] = -1200.0
    bad = check_clock(with_bucket(url))
    assert not bad.is_good
    assert bad.sentence.startswith("clock: 1200 s ahead of ") or "1201 s" in bad.sentence
    offset_s[0] = 1200.0
    assert " s behind " in check_clock(with_judge(url)).sentence


def test_a_clock_with_nothing_to_compare_is_no_fault() -> None:
    nothing = "clock: no server is configured to compare it with"
    assert check_clock(JobConfig(job="generate")) == (True, nothing)
    assert check_clock(with_bucket("http://127.0.0.1:9")) == (True, nothing)


def ray_says(monkeypatch, **environment: str) -> tuple[bool, str]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return check_ray(JobConfig(job="generate"))


def test_a_cluster_must_answer_and_ask_for_a_token_that_is_here(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_says(monkeypatch) == (
        True,
        "Ray: the job starts its own, on the loopback interface",
    )
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        open_to_all = ray_says(monkeypatch, RAY_ADDRESS=address)
        assert open_to_all == (
            False,
            f"Ray: joins {address} without a token; set RAY_AUTH_MODE=token",
        )
        missing = ray_says(monkeypatch, RAY_ADDRESS=address, RAY_AUTH_MODE="token")
        assert missing == (
            False,
            f"Ray: {address} wants a token and none is here; set RAY_AUTH_TOKEN",
        )
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}
        assert ray_says(monkeypatch, RAY_ADDRESS=address, **token) == (
            True,
            f"Ray: {address} answers, joined with a token",
        )
    silent, sentence = ray_says(monkeypatch, RAY_ADDRESS=address, **token)
    assert not silent
    assert sentence.startswith(f"Ray: {address} does not answer (")


def test_a_token_file_counts_as_a_token(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    found = ray_says(monkeypatch, RAY_ADDRESS="127.0.0.1:9", RAY_AUTH_MODE="token")
    assert "does not answer" in found[1]
