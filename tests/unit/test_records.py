"""A commit record holds all there is to know of a task, in the same bytes every time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storage.errors import CorruptFileError, NewerSchemaError, UnsafeNameError
from storage.records import FORMAT_VERSION, Commit, FileRecord, Manifest

SHA = "ab" * 32


def file_record(**changes: Any) -> FileRecord:
    values: dict[str, Any] = {
        "table": "vectors",
        "key": "data/vectors/toy_mla/fit-1-abababababab.parquet",
        "num_rows": 12,
        "size_bytes": 3456,
        "sha256": SHA,
    }
    return FileRecord(**(values | changes))


def commit(**changes: Any) -> Commit:
    values: dict[str, Any] = {
        "task_id": "fit-1",
        "model": "toy_mla",
        "files": (file_record(),),
        "provenance": {"seed": 0, "numerics": {"fit": 1}},
    }
    return Commit(**(values | changes))


def changed(**values: Any) -> bytes:
    return json.dumps(json.loads(commit().to_bytes()) | values).encode()


def test_a_record_comes_back_as_it_was() -> None:
    assert Commit.from_bytes(commit().to_bytes(), where="x") == commit()


def test_an_index_of_a_flat_file_comes_back() -> None:
    flat = commit(files=(file_record(index={"layers": {"3": [0, 40]}}),))

    assert Commit.from_bytes(flat.to_bytes(), where="x") == flat


def test_files_without_an_index_do_not_mention_one() -> None:
    assert b"index" not in commit().to_bytes()


def test_equal_commits_have_equal_bytes_whatever_the_order_of_their_facts() -> None:
    one = commit(provenance={"a": 1, "b": {"x": 1, "y": 2}})
    other = commit(provenance={"b": {"y": 2, "x": 1}, "a": 1})

    assert one.to_bytes() == other.to_bytes()


def test_a_record_is_one_line_of_plain_ascii() -> None:
    body = commit(provenance={"trait": "Ängstlich 你"}).to_bytes()

    assert body.endswith(b"}\n")
    assert body.count(b"\n") == 1
    assert body.isascii()


def test_a_record_says_what_it_is() -> None:
    found = json.loads(commit().to_bytes())

    assert (found["format"], found["version"]) == ("traitmill.commit", FORMAT_VERSION)
    assert set(found) == {"format", "version", "task_id", "model", "provenance", "files"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b'{"format": "traitmill.com', "not JSON"),
        (b"[]", "it is no traitmill.commit"),
        (b"{}", "it is no traitmill.commit"),
        (b"\xff\xfe", "not JSON"),
        (changed(format="traitmill.manifest"), "it is no traitmill.commit"),
        (changed(files=None), "not a commit record"),
        (changed(files=[{"table": "x"}]), "not a commit record"),
        (changed(files=["x"]), "not a commit record"),
        (changed(provenance=[]), "not a commit record"),
    ],
)
def test_what_is_no_record_is_called_corrupt_by_its_place(body: bytes, why: str) -> None:
    with pytest.raises(CorruptFileError) as caught:
        Commit.from_bytes(body, where="_meta/commits/fit-1.json")

    assert str(caught.value).startswith("_meta/commits/fit-1.json is not what was committed: ")
    assert why in str(caught.value)


@pytest.mark.parametrize("missing", ["task_id", "model", "files", "provenance"])
def test_a_record_without_one_of_its_facts_is_corrupt(missing: str) -> None:
    found = json.loads(commit().to_bytes())
    del found[missing]

    with pytest.raises(CorruptFileError):
        Commit.from_bytes(json.dumps(found).encode(), where="x")


def test_a_newer_record_asks_for_an_upgrade() -> None:
    with pytest.raises(NewerSchemaError, match=r"version 99.*upgrade traitmill"):
        Commit.from_bytes(changed(version=99), where="x")


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "data/../../x"])
def test_a_record_cannot_name_a_file_outside_the_run(key: str) -> None:
    found = json.loads(commit().to_bytes())
    found["files"][0]["key"] = key

    with pytest.raises(UnsafeNameError, match="cannot name a file"):
        Commit.from_bytes(json.dumps(found).encode(), where="x")


def test_a_manifest_comes_back_as_it_was() -> None:
    manifest = Manifest(commits={"fit-1": commit(), "fit-2": commit(task_id="fit-2")})

    assert Manifest.from_bytes(manifest.to_bytes(), where="x") == manifest


def test_equal_runs_have_equal_manifests() -> None:
    one = Manifest(commits={"a": commit(task_id="a"), "b": commit(task_id="b")})
    other = Manifest(commits={"b": commit(task_id="b"), "a": commit(task_id="a")})

    assert one.to_bytes() == other.to_bytes()


def test_an_empty_run_has_a_manifest_too() -> None:
    assert Manifest.from_bytes(Manifest(commits={}).to_bytes(), where="x").commits == {}


@pytest.mark.parametrize("commits", [None, [], "x"])
def test_a_manifest_without_a_list_of_commits_is_corrupt(commits: object) -> None:
    body = json.dumps({"format": "traitmill.manifest", "version": 1, "commits": commits})

    with pytest.raises(CorruptFileError, match="it lists no commits"):
        Manifest.from_bytes(body.encode(), where="x")


def test_a_record_is_no_manifest() -> None:
    with pytest.raises(CorruptFileError, match=r"it is no traitmill\.manifest"):
        Manifest.from_bytes(commit().to_bytes(), where="x")


@pytest.mark.parametrize("version", [None, "1", 1.5])
def test_a_record_without_a_whole_version_is_corrupt_and_not_a_crash(version):
    body = {"format": "traitmill.commit", "version": version}
    with pytest.raises(CorruptFileError, match="its version is"):
        Commit.from_bytes(json.dumps(body).encode(), where="x")
    del body["version"]
    with pytest.raises(CorruptFileError, match="its version is None"):
        Commit.from_bytes(json.dumps(body).encode(), where="x")
