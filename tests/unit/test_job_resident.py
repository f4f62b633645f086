"""A resident group is refused in one sentence where it cannot be, before anything starts."""

from __future__ import annotations

import io

import pytest

from conf.errors import UserError
from jobs.report.console import Console
from jobs.resident import describe, run_group_command


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.delenv("RAY_ADDRESS")


def refusal(command: str, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        run_group_command(command, list(arguments), Console(io.StringIO(), io.StringIO()))
    return str(caught.value)


@pytest.mark.parametrize("command", ["start", "", "UP", "restart"])
def test_an_unknown_command_names_the_three_there_are(command: str) -> None:
    assert refusal(command) == f"group {command}: no such command; use up, status or down."


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_without_a_cluster_the_way_to_one_is_told(command: str) -> None:
    sentence = refusal(command)

    assert sentence.startswith("RAY_ADDRESS is not set: a resident group lives on a running")
    assert "ray start --head" in sentence
    assert "\n" not in sentence


def test_a_typo_is_refused_before_the_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address leads nowhere, so joining would fail in another way."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")

    assert refusal("up", "model=toy_mlb") == (
        "model=toy_mlb is not in conf/model; did you mean toy_mla?"
    )


def test_asking_for_help_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    out = io.StringIO()

    assert run_group_command("up", ["--help"], Console(out)) == 0
    assert "cluster.tensor_parallel_size" in out.getvalue()


RESIDENT = {
    "name": "toy_mla",
    "state": "ready",
    "up_s": 75.0,
    "ranks": 2,
    "fingerprint": "0123456789ab",
    "generation": 1,
    "model": {
        "model_type": "deepseek_v3",
        "num_layers": 6,
        "hidden_size": 128,
        "dtype": "float32",
        "weight_bytes": 6_046_464,
        "num_pages": 2048,
        "page_size": 16,
    },
    "error": None,
    "tokens_per_s": None,
    "idle_s": 12.0,
    "idle_timeout_s": 1800.0,
    "running": [],
    "queue": [],
}
BUSY = {
    "tokens_per_s": 3438.0,
    "running": [{"job": "steer-1", "bundle": "b0", "for_s": 2.0}],
    "queue": [
        {"job": "steer-2", "bundle": "b7", "priority": 9, "position": 0, "eta_s": 65.0},
        {"job": "steer-1", "bundle": "b1", "priority": 0, "position": 1, "eta_s": None},
    ],
}


def described(**changes: object) -> list[str]:
    out = io.StringIO()
    describe(RESIDENT | changes, Console(out))
    return out.getvalue().splitlines()


def test_an_idle_group_says_who_it_is_and_when_it_ends() -> None:
    assert described() == [
        "toy_mla: ready, up 1 min 15 s, 2 rank(s), fingerprint 0123456789ab",
        "  model: deepseek_v3, 6 layers of 128, float32, 0.006 GB of weights per rank, "
        "2,048 KV pages of 16 tokens",
        "  idle for 12 s; ends by itself in 29 min 48 s",
    ]


def test_a_busy_group_shows_who_runs_and_who_waits_how_long() -> None:
    lines = described(**BUSY)

    assert lines[2] == "  busy: 1 bundles running at 3,438 tokens/s, 2 waiting"
    assert [line.split() for line in lines[5:]] == [
        ["position", "job", "bundle", "priority", "answered"],
        ["running", "steer-1", "b0", "-", "for", "2", "s"],
        ["1", "steer-2", "b7", "9", "in", "1", "min", "05", "s"],
        ["2", "steer-1", "b1", "0", "not", "known", "yet"],
    ]


def test_a_group_that_came_back_says_how_often_and_one_that_failed_says_why() -> None:
    assert described(generation=3)[0].endswith("0123456789ab, started 3 times")
    assert described(state="failed", error="rank 1 died")[2] == "  error: rank 1 died"
    assert described(state="starting", model=None, idle_s=0.0)[1] == "  loading"
