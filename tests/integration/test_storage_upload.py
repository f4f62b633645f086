"""A run and its bucket: resume on a fresh machine, sync either way, back-pressure, first wins."""

from __future__ import annotations

import threading

import pytest

from storage import upload
from storage.errors import CorruptFileError, ObjectStoreError, UploadError
from storage.folder import FolderStore
from storage.manifest import Run
from storage.upload import Uploader, sync
from tests.faults.worker import write_task

TASKS = ["t1", "t2", "t4"]


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "bucket")


def filled(root, store=None, salt=0):
    run = Run.open(root, store=store)
    for task_id in TASKS:
        write_task(run, task_id, salt)
    return run


def files(root):
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for folder in ("data", "_meta/commits")
        for p in sorted((root / folder).rglob("*"))
        if p.is_file()
    }


def test_a_fresh_machine_goes_on_from_the_bucket_alone(tmp_path, store):
    filled(tmp_path / "first", store).close()
    with Run.open(tmp_path / "second", store=store) as run:
        assert [run.is_done(task) for task in [*TASKS, "t9"]] == [True, True, True, False]
        assert run.read("vetting").num_rows == 60
        write_task(run, "t9", 0)
    with Run.open(tmp_path / "third", store=store) as run:
        assert sorted(run.commits()) == ["t1", "t2", "t4", "t9"]


def test_sync_there_and_back_gives_the_same_bytes(tmp_path, store):
    with filled(tmp_path / "a") as run:
        run.write_readme()
        moved = sync(run, store, "to_bucket")
        assert (moved.num_tasks, moved.num_files, moved.num_replaced) == (3, 4, 0)
        assert sync(run, store, "to_bucket").num_tasks == 0
    with Run.open(tmp_path / "b") as run:
        assert sync(run, store, "from_bucket").num_tasks == 3
        assert sync(run, store, "from_bucket").num_tasks == 0
        assert run.verify().is_whole
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert store.head("README.md") is not None


def test_the_record_goes_up_after_its_data(tmp_path, store, monkeypatch):
    order = []
    put_file, put_if_absent = store.put_file, store.put_if_absent
    monkeypatch.setattr(store, "put_file", lambda k, *a: (order.append(k), put_file(k, *a))[1])
    monkeypatch.setattr(
        store, "put_if_absent", lambda k, b: (order.append(k), put_if_absent(k, b))[1]
    )
    with Run.open(tmp_path / "a", store=store) as run:
        write_task(run, "t4", 0)
        run.flush()
    assert [key.split("/")[1] for key in order] == ["vetting", "activations", "commits"]


def test_the_bucket_decides_between_two_results_of_one_task(tmp_path, store):
    filled(tmp_path / "first", store, salt=1).close()
    late = filled(tmp_path / "late", salt=2)
    moved = sync(late, store, "to_bucket")
    assert moved.num_replaced == 3
    assert set(late.read("vetting", ["score"])["score"].to_pylist()) == {2.0, 3.0, 5.0}
    late.gc()
    assert files(tmp_path / "first") == files(tmp_path / "late")
    late.close()


def test_a_sync_from_the_bucket_takes_its_results(tmp_path, store):
    filled(tmp_path / "first", store, salt=1).close()
    with filled(tmp_path / "late", salt=2) as run:
        assert sync(run, store, "from_bucket").num_replaced == 3
        run.gc()
        assert run.verify().is_whole
    assert files(tmp_path / "first") == files(tmp_path / "late")


def test_a_spoilt_object_is_not_taken_for_a_result(tmp_path, store):
    filled(tmp_path / "first", store).close()
    key = next(info.key for info in store.list("data/vetting"))
    path = store.root / key
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with Run.open(tmp_path / "second", store=store) as run:
        with pytest.raises(CorruptFileError, match="sha256"):
            run.read("vetting")
        assert [p.key for p in run.verify().problems] == [key]
    with Run.open(tmp_path / "third") as run, pytest.raises(CorruptFileError):
        sync(run, store, "from_bucket")


def test_what_failed_is_sent_by_the_next_open(tmp_path, store, monkeypatch):
    put_file = store.put_file

    def refuse(key, *rest):
        raise ObjectStoreError("put", key, "no")

    monkeypatch.setattr(store, "put_file", refuse)
    run = filled(tmp_path / "a", store)
    with pytest.raises(UploadError, match="3 tasks are safe on this disk"):
        run.close()
    monkeypatch.setattr(store, "put_file", put_file)
    Run.open(tmp_path / "a", store=store).close()
    assert len(list(store.list("_meta/commits/"))) == 3


def test_above_the_byte_limit_the_committer_waits(tmp_path, store, monkeypatch):
    gate = threading.Event()
    push = upload.push
    monkeypatch.setattr(upload, "push", lambda *a: (gate.wait(10), push(*a))[1])
    with filled(tmp_path / "a") as run:
        commits = list(run.commits().values())
        told = []
        uploader = Uploader(
            run.root, store, wip=run.wip, max_pending_bytes=1, on_pending=told.append
        )
        uploader.submit(commits[0])
        blocked = threading.Thread(target=uploader.submit, args=(commits[1],))
        blocked.start()
        blocked.join(0.2)
        assert blocked.is_alive()
        assert uploader.pending_bytes == commits[0].files[0].size_bytes
        gate.set()
        blocked.join(10)
        uploader.close(wait=True)
        sizes = [one.files[0].size_bytes for one in commits[:2]]
        assert told == [sizes[0], 0, sizes[1], 0]
    assert len(list(store.list("_meta/commits/"))) == 2


def test_the_manifest_of_the_bucket_opens_the_run_with_one_read(tmp_path, store):
    with filled(tmp_path / "a", store) as run:
        run.write_manifest()
    reads = []
    get = store.get
    store.get = lambda key: (reads.append(key), get(key))[1]
    with Run.open(tmp_path / "b", store=store) as run:
        assert len(run.commits()) == 3
    assert reads == ["_meta/manifests/000001.json"]
