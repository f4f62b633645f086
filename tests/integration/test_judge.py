"""A chat server that misbehaves in every way, over real sockets; and judges as Ray actors."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from actors.judge import (
    EndpointJudge,
    JudgePool,
    JudgeQuery,
    JudgeSpec,
    JudgeUnavailable,
    make_judge,
)
from conf.errors import UserError

KEY = "sk-a-very-secret-key"


def good_answer(number="80", *, second=None):
    """What a well-behaved server sends: 80 with 0.9, another word with 0.1."""
    top = [
        {"token": number, "logprob": math.log(0.9)},
        {"token": "Sure", "logprob": math.log(0.1)},
    ]
    content = [{"token": number, "logprob": math.log(0.9), "top_logprobs": top}]
    if second is not None:
        content.append({"token": second, "logprob": -0.1, "top_logprobs": []})
    return {
        "choices": [{"finish_reason": "stop", "logprobs": {"content": content}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10},
    }


class Server(ThreadingHTTPServer):
    """Answers from a script: one entry per call, the last one for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = [good_answer()]
        self.poison = ""
        self.calls = []
        self.lock = threading.Lock()
        self.most_at_once = 0
        self.at_once = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.calls.append((self.path, dict(self.headers), body))
            action = server.script[min(len(server.calls), len(server.script)) - 1]
            if server.poison and server.poison in json.dumps(body):
                action = (500, "oops")
        self.act(action)

    def act(self, action):
        if action == "drop":
            self.connection.close()
        elif action == "slow":
            time.sleep(0.6)
            self.send(200, json.dumps(good_answer()).encode())
        elif action == "pause":
            self.count(1)
            time.sleep(0.05)
            self.count(-1)  # before the answer: once it has that, the client may ask again
            self.send(200, json.dumps(good_answer()).encode())
        elif action == "redirect":
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
        elif isinstance(action, bytes):
            self.send(200, action)
        elif isinstance(action, tuple):
            self.send(action[0], action[1].encode(), action[2] if len(action) > 2 else {})
        else:
            self.send(200, json.dumps(action).encode())

    def count(self, change):
        with self.server.lock:
            self.server.at_once += change
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)

    def send(self, status, body, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TRAITMILL_JUDGE_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def spec(server, **changes):
    fields = {
        "name": "endpoint",
        "kind": "endpoint",
        "url": server.url,
        "model": "judge-model",
        "timeout_s": 5.0,
        "backoff_scale": 0.01,
        "usd_per_million_prompt_tokens": 0.4,
        "usd_per_million_completion_tokens": 1.6,
    }
    return JudgeSpec(**(fields | changes))


def query(answer="I worry.", query_id="q"):
    return JudgeQuery(
        id=query_id,
        kind="trait",
        trait="anxiety",
        definition="worry",
        question="How are you?",
        answer=answer,
    )


def score_one(server, *script, **changes):
    server.script = list(script)
    return EndpointJudge(spec(server, **changes)).score([query()])[0]


def test_a_score_is_weighted_and_its_cost_counted(server):
    judge = EndpointJudge(spec(server))
    score = judge.score([query()])[0]
    assert score.score == pytest.approx(80.0)
    assert score.cost_usd == pytest.approx((1000 * 0.4 + 10 * 1.6) / 1e6)
    assert score.latency_s > 0
    assert (judge.totals.num_calls, judge.totals.num_retries) == (1, 0)


def test_the_request_asks_for_probabilities_deterministically_and_carries_the_key(server):
    EndpointJudge(spec(server)).score([query()])
    path, headers, body = server.calls[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "judge-model"
    assert (body["temperature"], body["logprobs"], body["top_logprobs"]) == (0, True, 20)
    assert [one["role"] for one in body["messages"]] == ["system", "user"]


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("TRAITMILL_JUDGE_API_KEY")
    EndpointJudge(spec(server)).score([query()])
    assert "Authorization" not in server.calls[0][1]


def test_scores_come_in_the_order_of_the_queries_within_the_allowed_concurrency(server):
    server.script = ["pause"]
    judge = EndpointJudge(spec(server, max_concurrency=3))
    scores = judge.score([query(query_id=str(i)) for i in range(12)])
    assert [one.id for one in scores] == [str(i) for i in range(12)]
    assert 1 < server.most_at_once <= 3


@pytest.mark.parametrize(
    "failure", [(500, "oops"), (503, "busy"), (429, "slow down"), "drop", b"<html>", b"[1"]
)
def test_a_passing_failure_is_tried_again(server, failure):
    score = score_one(server, failure, failure, good_answer())
    assert score.score == pytest.approx(80.0)
    assert len(server.calls) == 3


def test_a_call_that_takes_too_long_is_tried_again(server):
    score = score_one(server, "slow", good_answer(), timeout_s=0.3)
    assert score.score == pytest.approx(80.0)


def test_a_server_that_stays_away_is_an_outage_and_no_zero(server):
    with pytest.raises(JudgeUnavailable, match=r"left 1 of 1 without a score: HTTP 500 .*: oops"):
        score_one(server, (500, "oops"), max_attempts=3)
    assert len(server.calls) == 3


def test_nobody_listening_is_an_outage():
    judge = EndpointJudge(
        JudgeSpec(
            kind="endpoint",
            url="http://127.0.0.1:9/v1",
            model="m",
            max_attempts=2,
            backoff_scale=0.01,
        )
    )
    with pytest.raises(JudgeUnavailable, match="refused"):
        judge.score([query()])


def test_a_query_that_fails_while_the_server_answers_others_is_null_with_its_reason(server):
    server.poison = "poison"
    judge = EndpointJudge(spec(server, max_attempts=2))
    lost, found = judge.score([query("poison", query_id="a"), query(query_id="b")])
    assert (lost.score, lost.is_final) == (None, False)
    assert lost.reason.startswith("HTTP 500")
    assert found.score == pytest.approx(80.0)
    assert judge.totals.num_null == 1


def test_a_query_lost_in_a_short_outage_is_asked_again_when_the_server_is_back(server):
    server.script = [(500, "oops"), (500, "oops"), good_answer()]
    judge = EndpointJudge(spec(server, max_attempts=2, max_concurrency=1))
    scores = judge.score([query(query_id="a"), query(query_id="b")])
    assert [one.score for one in scores] == [pytest.approx(80.0)] * 2


def test_an_outage_in_the_middle_of_a_batch_gives_no_null_and_loses_no_score(server, tmp_path):
    server.script = [good_answer(), (503, "gone")]
    asked = [query(f"text {i}", query_id=str(i)) for i in range(3)]
    outage = spec(server, max_attempts=2, max_concurrency=1)
    with pytest.raises(JudgeUnavailable, match="left 2 of 3 without a score: HTTP 503"):
        make_judge(outage, cache=tmp_path / "scores.sqlite").score(asked)
    server.script = [good_answer()]
    scores = make_judge(outage, cache=tmp_path / "scores.sqlite").score(asked)
    assert [one.cached for one in scores] == [True, False, False]
    assert [one.score for one in scores] == [pytest.approx(80.0)] * 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_address_is_the_users_to_mend_and_the_key_stays_secret(server, status):
    with pytest.raises(UserError) as caught:
        score_one(server, (status, f"Incorrect API key provided: {KEY}"))
    assert f"HTTP {status}" in caught.value.message
    assert "$TRAITMILL_JUDGE_API_KEY" in caught.value.message
    assert KEY not in caught.value.message
    assert len(server.calls) == 1


def test_a_refused_text_is_null_without_another_try(server):
    score = score_one(server, (400, "content filter"))
    assert (score.score, len(server.calls)) == (None, 1)
    assert "content filter" in score.reason


def test_a_redirect_is_not_followed_with_the_key(server):
    with pytest.raises(UserError, match="HTTP 307"):
        score_one(server, "redirect")
    assert len(server.calls) == 1


def test_a_server_that_asks_for_a_pause_gets_it(server):
    began = time.monotonic()
    score_one(server, (429, "later", {"Retry-After": "1"}), good_answer())
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"choices": []}, "unknown form"),
        ({"error": "x"}, "unknown form"),
        ([], "unknown form"),
        ({"choices": [{"logprobs": {"content": [{"token": "8"}]}}]}, "unknown form"),
        (
            {"choices": [{"logprobs": {"content": [{"token": "8", "top_logprobs": [7]}]}}]},
            "unknown",
        ),
        ({"choices": [{"logprobs": None}]}, "no log-probabilities"),
        ({"choices": [{"message": {"content": "80"}}]}, "no log-probabilities"),
        (good_answer("I cannot"), "numbers have 0.00 of the probability"),
        (good_answer("8", second="0"), "splits numbers into digits"),
    ],
)
def test_an_answer_that_gives_no_score_is_null_with_the_reason(server, answer, reason):
    server.script = [answer, good_answer()]
    judge = EndpointJudge(spec(server, max_concurrency=1))
    null, fine = judge.score([query(), query()])
    assert null.score is None
    assert reason in null.reason
    assert fine.score == pytest.approx(80.0)


def test_the_digit_scale_reads_a_digit(server):
    assert score_one(server, good_answer("9"), scale="digit").score == pytest.approx(100.0)


def test_long_texts_are_cut_before_they_are_sent(server):
    judge = EndpointJudge(spec(server, max_answer_chars=50))
    judge.score([query("x" * 10_000)])
    user = server.calls[0][2]["messages"][1]["content"]
    assert "x" * 50 in user
    assert "x" * 51 not in user


def test_answers_without_token_counts_cost_nothing(server):
    answer = good_answer() | {"usage": None}
    assert score_one(server, answer).cost_usd == 0.0


def test_a_cache_saves_the_second_call(server, tmp_path):
    for _ in range(2):
        judge = make_judge(spec(server), cache=tmp_path / "scores.sqlite")
        assert judge.score([query()])[0].score == pytest.approx(80.0)
    assert len(server.calls) == 1


@pytest.mark.ray
def test_judge_actors_share_the_work_and_outlive_a_kill(server, local_ray, tmp_path):
    pool = JudgePool(
        dataclasses.replace(spec(server), max_concurrency=2),
        size=2,
        cache=tmp_path / "scores.sqlite",
        cpus_each=0.2,
    )
    queries = [query(f"text {i}", query_id=str(i)) for i in range(80)]
    scores = pool.score(queries)
    assert [one.id for one in scores] == [str(i) for i in range(80)]
    assert all(one.score == pytest.approx(80.0) for one in scores)
    assert len(server.calls) == 80
    names = {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}
    assert {"traitmill/judge/endpoint0", "traitmill/judge/endpoint1"} <= names

    os.kill(pool._fetch([pool._actors[0].pid.remote()])[0], 9)
    assert all(one.cached for one in pool.score(queries))
    assert len(server.calls) == 80
    assert (pool.name, pool.totals.num_queries) == ("endpoint", 160)
    server.script = [(401, "bad key")]
    with pytest.raises(UserError, match="HTTP 401"):
        pool.score([query("new")])
    pool.close()
