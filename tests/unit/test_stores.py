"""Results stay on this machine unless a bucket is named, and its keys come from the environment."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import pytest

from conf.schema import StorageConfig
from jobs import stores
from jobs.stores import object_store, open_run
from storage.errors import PreflightError
from storage.folder import FolderStore
from storage.objects import S3Store

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "testing")


def config(**changes: object) -> StorageConfig:
    return StorageConfig(name="test", **changes)  # type: ignore[arg-type]


def test_local_storage_has_no_bucket() -> None:
    assert object_store(config()) is None
    assert object_store(config(kind="local", bucket="ignored")) is None


@pytest.mark.usefixtures("credentials")
def test_a_bucket_is_opened_as_configured_without_a_request_being_sent() -> None:
    """The address leads nowhere, so any request would fail."""
    store = object_store(
        config(
            kind="s3", endpoint_url="http://127.0.0.1:9", bucket="results", prefix="a/b", region="x"
        )
    )

    assert isinstance(store, S3Store)


def test_no_setting_holds_a_key() -> None:
    names = {item.name for item in dataclasses.fields(StorageConfig)}

    assert not [name for name in names if "key" in name or "secret" in name or "token" in name]


@pytest.mark.usefixtures("credentials")
def test_the_configured_time_is_the_time_of_one_upload() -> None:
    store = object_store(
        config(kind="s3", endpoint_url="http://127.0.0.1:9", bucket="b", upload_timeout_s=7.5)
    )

    assert isinstance(store, S3Store)
    assert store.settings.patience.deadline_s == 7.5
    assert store.settings.region == "auto"


def test_a_run_without_a_bucket_needs_none(tmp_path) -> None:
    with open_run(config(), tmp_path / "run") as run:
        assert run.store is None


def test_a_bucket_that_may_not_be_deleted_from_is_found_before_anything_is_opened(
    tmp_path, monkeypatch
) -> None:
    store = FolderStore(tmp_path / "bucket")
    monkeypatch.setattr(store, "delete", lambda key: None)
    monkeypatch.setattr(stores, "object_store", lambda *_, **__: store)

    with pytest.raises(PreflightError, match="gone failed"):
        open_run(config(kind="s3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_byte_limit_of_the_configuration_reaches_the_uploader(tmp_path, monkeypatch) -> None:
    store = FolderStore(tmp_path / "bucket")
    monkeypatch.setattr(stores, "object_store", lambda *_, **__: store)

    with open_run(config(kind="s3", max_pending_bytes=12_345), tmp_path / "run") as run:
        assert run._uploader._max_pending_bytes == 12_345
        assert run.store is store
    assert list(store.list("_meta/preflight")) == []


def test_a_bucket_that_does_not_answer_is_refused_sooner_than_an_upload_gives_up(
    tmp_path, monkeypatch
) -> None:
    store = FolderStore(tmp_path / "bucket")
    asked: list[float | None] = []

    def note(_: StorageConfig, *, patience_s: float | None = None) -> FolderStore:
        asked.append(patience_s)
        return store

    monkeypatch.setattr(stores, "object_store", note)
    stores.usable_store(config(kind="s3", upload_timeout_s=600.0))
    stores.usable_store(config(kind="s3", upload_timeout_s=5.0))
    assert asked == [30.0, None, 5.0, None]


def test_what_waits_for_the_bucket_reaches_the_metrics_once_they_are_loaded(
    tmp_path, monkeypatch
) -> None:
    told = []
    loaded = SimpleNamespace(METER=SimpleNamespace(set=lambda *what: told.append(what)))
    store = FolderStore(tmp_path / "bucket")
    monkeypatch.setattr(stores, "object_store", lambda *_, **__: store)
    monkeypatch.delitem(sys.modules, "actors.metrics", raising=False)
    stores.note_backlog(1)  # too early: importing them here would import Ray
    assert "actors.metrics" not in sys.modules

    monkeypatch.setitem(sys.modules, "actors.metrics", loaded)
    with open_run(config(kind="s3"), tmp_path / "run") as run:
        run._uploader._on_pending(77)
    assert told[0] == ("traitmill_upload_backlog_bytes", 77)
