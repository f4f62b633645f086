"""Each right and property that a run needs of its bucket is proved, and its lack is named."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from storage.errors import CredentialsError, ObjectStoreError, PreflightError
from storage.folder import FolderStore
from storage.preflight import preflight

STEPS = [
    "put",
    "get",
    "get range",
    "head",
    "list",
    "conditional put",
    "conditional put refused",
    "delete",
    "gone",
]


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "bucket")


def test_a_good_store_passes_every_step_and_is_left_empty(store):
    assert preflight(store) == STEPS
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("call", "answer", "step"),
    [
        ("get", lambda key: b"other", "get"),
        ("get_range", lambda key, offset, size_bytes: b"traitmil", "get range"),
        ("head", lambda key: None, "head"),
        ("list", lambda prefix: iter(()), "list"),
        ("put_if_absent", lambda key, body: False, "conditional put"),
        ("put_if_absent", lambda key, body: True, "conditional put refused"),
        ("delete", lambda key: None, "gone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_store_that_answers_but_wrongly_is_refused_at_that_step(
    store, monkeypatch, call, answer, step
):
    monkeypatch.setattr(store, call, answer)
    with pytest.raises(PreflightError, match=f"is not usable: {step} failed") as refused:
        preflight(store)
    assert refused.value.fields[1] == step
    assert store.name in refused.value.message


@pytest.mark.parametrize(
    ("call", "step"), [("put", "put"), ("get", "get"), ("list", "list"), ("delete", "delete")]
)
def test_a_missing_right_is_named_with_its_cause_and_is_the_users(store, monkeypatch, call, step):
    def refuse(*_):
        raise CredentialsError(call, "key", "403 AccessDenied: the token needs Object Read & Write")

    monkeypatch.setattr(store, call, refuse)
    with pytest.raises(UserError, match=f"{step} failed .*Object Read & Write"):
        preflight(store)


def test_the_first_failure_ends_it(store, monkeypatch):
    asked = []

    def fail(key, body):
        asked.append(key)
        raise ObjectStoreError("put", key, "no")

    monkeypatch.setattr(store, "put", fail)
    monkeypatch.setattr(store, "put_if_absent", fail)
    with pytest.raises(PreflightError):
        preflight(store)
    assert len(asked) == 1


def test_two_runs_at_once_do_not_meet(store, monkeypatch):
    keys = []
    put = store.put
    monkeypatch.setattr(store, "put", lambda key, body: (keys.append(key), put(key, body))[1])
    preflight(store)
    preflight(store)
    assert len(set(keys)) == 2
    assert all(key.startswith("_meta/preflight/") for key in keys)
