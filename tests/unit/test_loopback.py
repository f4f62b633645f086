"""A Ray that the job starts listens on this machine alone and asks for a token."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.loopback import TOKEN_FILE, prepare_environment

NAMES = (
    "RAY_ENABLE_AUTO_CONNECT",
    "RAY_ADDRESS",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_USAGE_STATS_ENABLED",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_DEDUP_LOGS",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No Ray variable is set, and the home folder is empty; all is as before afterwards."""
    for name in NAMES:
        # Set before it is removed, so that the value from before the test comes back after it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def found() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in NAMES}


def test_a_bare_machine_gets_loopback_token_and_no_usage_report() -> None:
    prepare_environment()

    got = found()
    assert got["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert got["RAY_USAGE_STATS_ENABLED"] == "0"
    assert got["RAY_AUTH_MODE"] == "token"
    assert got["RAY_DEDUP_LOGS"] == "0"


def test_a_token_is_made_when_there_is_none_and_never_twice_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare_environment()
    first = os.environ["RAY_AUTH_TOKEN"]
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    prepare_environment()

    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")
    assert os.environ["RAY_AUTH_TOKEN"] != first


def test_no_token_file_appears_in_the_home_folder(bare: Path) -> None:
    prepare_environment()

    assert list(bare.iterdir()) == []


def test_a_token_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    prepare_environment()

    assert os.environ["RAY_AUTH_TOKEN"] == "mine"


def test_a_token_file_of_the_user_is_left_to_ray(bare: Path) -> None:
    (bare / TOKEN_FILE).parent.mkdir()
    (bare / TOKEN_FILE).write_text("mine")
    prepare_environment()

    assert found()["RAY_AUTH_TOKEN"] is None


def test_a_named_token_path_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/etc/ray/token")
    prepare_environment()

    assert found()["RAY_AUTH_TOKEN"] is None


def test_what_the_user_set_is_not_overruled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_DEDUP_LOGS", "1")
    prepare_environment()

    got = found()
    assert (got["RAY_AUTH_MODE"], got["RAY_DEDUP_LOGS"]) == ("disabled", "1")
    assert got["RAY_AUTH_TOKEN"] is None


def test_a_cluster_to_be_joined_decides_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.4:6379")
    prepare_environment()

    assert {name for name, value in found().items() if value is not None} == {
        "RAY_ADDRESS",
        "RAY_ENABLE_AUTO_CONNECT",
    }


@pytest.mark.parametrize("address", ["", "127.0.0.1:6379"])
def test_a_late_call_never_starts_a_ray_of_its_own(monkeypatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    prepare_environment()
    assert os.environ["RAY_ENABLE_AUTO_CONNECT"] == "0"
