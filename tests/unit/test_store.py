"""Where a bucket is comes from the environment; what opens it is in no setting, name or error."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from conf.errors import UserError
from storage.errors import StoreConfigError
from storage.folder import FolderStore
from storage.objects import S3Store
from storage.store import PART_BYTES, ObjectStore, S3Settings, settings_from_environment

PLACE = {
    "R2_ENDPOINT": "https://account.r2.cloudflarestorage.com",
    "R2_BUCKET_NAME": "results",
    "R2_ACCESS_KEY_ID": "an-id",
    "R2_SECRET_ACCESS_KEY": "hush-hush",
}


@pytest.fixture
def environment(monkeypatch):
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_four_names_are_all_that_is_needed():
    found = settings_from_environment("a/run")
    assert (found.endpoint, found.bucket) == (PLACE["R2_ENDPOINT"], "results")
    assert (found.prefix, found.region) == ("a/run", "auto")


@pytest.mark.parametrize("name", sorted(PLACE))
@pytest.mark.parametrize("value", ["", None])
def test_each_missing_name_is_named_and_the_way_round_it_too(environment, name, value):
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)
    with pytest.raises(StoreConfigError, match=f"needs {name} in the environment") as refused:
        settings_from_environment()
    assert isinstance(refused.value, UserError)
    assert "storage=local needs none" in refused.value.message
    assert PLACE["R2_SECRET_ACCESS_KEY"] not in refused.value.message


@pytest.mark.usefixtures("environment")
def test_no_setting_holds_or_shows_a_secret():
    found = settings_from_environment()
    assert not {"access_key", "secret"} & {f.name for f in dataclasses.fields(S3Settings)}
    for secret in (PLACE["R2_ACCESS_KEY_ID"], PLACE["R2_SECRET_ACCESS_KEY"]):
        assert secret not in repr(found)


def test_parts_are_equal_and_64_mib_unless_said_otherwise():
    settings = S3Settings(endpoint="http://127.0.0.1:9", bucket="b")
    assert settings.part_bytes == PART_BYTES == 67_108_864
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.part_bytes = 1


@pytest.mark.parametrize("kind", [S3Store, FolderStore])
def test_every_kind_of_store_answers_all_that_results_need(kind):
    needed = {
        name: inspect.signature(call)
        for name, call in vars(ObjectStore).items()
        if inspect.isfunction(call) and not name.startswith("_")
    }
    assert len(needed) == 10
    for name, signature in needed.items():
        found = inspect.signature(getattr(kind, name))
        assert list(found.parameters) == list(signature.parameters), name
