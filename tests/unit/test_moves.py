"""A run's folder and bucket come to one state by one command, either way, as often as wanted."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from conf.schema import StorageConfig
from jobs import moves, stores
from jobs.report.console import Console
from storage.errors import CorruptFileError, PreflightError, TransientStoreError, UnsafeNameError
from storage.folder import FolderStore
from storage.manifest import Run
from storage.store import ObjectInfo
from tests.faults.worker import write_task

CONFIG = StorageConfig(name="test", kind="s3")


@pytest.fixture
def store(tmp_path, monkeypatch):
    made = FolderStore(tmp_path / "bucket")
    for module in (moves, stores):
        monkeypatch.setattr(module, "object_store", lambda *_, **__: made)
    return made


def run_with(root, *tasks, salt=0):
    with Run.open(root) as run:
        for task_id in tasks:
            write_task(run, task_id, salt)
    return root


def test_up_and_down_move_what_is_missing_and_say_how_much(tmp_path, store, capsys):
    here = run_with(tmp_path / "here", "t1", "t4")
    assert moves.move(here, CONFIG, Console(), is_down=False) == 0
    assert "2 tasks, 3 files" in capsys.readouterr().out
    assert moves.move(tmp_path / "there", CONFIG, Console(), is_down=True) == 0
    assert "2 tasks are on both sides" in capsys.readouterr().out
    with Run.open(tmp_path / "there") as run:
        assert run.verify().is_whole
        assert sorted(run.commits()) == ["t1", "t4"]


def test_the_second_time_nothing_moves(tmp_path, store, capsys):
    here = run_with(tmp_path / "here", "t1")
    for is_down in (False, True):
        moves.move(here, CONFIG, Console(), is_down=False)
        capsys.readouterr()
        moves.move(here, CONFIG, Console(), is_down=is_down)
        assert "0 tasks, 0 files, 0 bytes moved" in capsys.readouterr().out


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(tmp_path, store, monkeypatch):
    moves.move(run_with(tmp_path / "here", "t1", "t2", "t3"), CONFIG, Console(), is_down=False)
    asked = []
    download = store.download

    def once(key, path):
        asked.append(key)
        if len(asked) == 2:
            raise CorruptFileError(key, "cut")
        download(key, path)

    monkeypatch.setattr(store, "download", once)
    with pytest.raises(CorruptFileError):
        moves.move(tmp_path / "there", CONFIG, Console(), is_down=True)
    with Run.open(tmp_path / "there") as run:
        assert len(run.commits()) == 1
    moves.move(tmp_path / "there", CONFIG, Console(), is_down=True)
    assert len(asked) == 4
    with Run.open(tmp_path / "there") as run:
        assert len(run.commits()) == 3


def test_two_results_of_one_task_are_settled_by_the_bucket_and_said(tmp_path, store, capsys):
    moves.move(run_with(tmp_path / "first", "t1", salt=1), CONFIG, Console(), is_down=False)
    late = run_with(tmp_path / "late", "t1", salt=2)
    capsys.readouterr()
    moves.move(late, CONFIG, Console(), is_down=False)
    assert "1 tasks had other results on both sides" in capsys.readouterr().out
    with Run.open(late) as run:
        assert set(run.read("vetting", ["score"])["score"].to_pylist()) == {2.0}


def test_a_spoilt_object_is_found_in_the_bucket(tmp_path, store, capsys):
    moves.move(run_with(tmp_path / "here", "t1"), CONFIG, Console(), is_down=False)
    assert moves.verify_bucket(CONFIG, Console()) == 0
    key = next(info.key for info in store.list("data/"))
    store.put(key, b"spoilt")
    capsys.readouterr()
    assert moves.verify_bucket(CONFIG, Console()) == 1
    assert key in capsys.readouterr().out


def test_an_unusable_bucket_is_refused_before_anything_goes_up(tmp_path, store, monkeypatch):
    monkeypatch.setattr(store, "put_if_absent", lambda key, body: True)
    with pytest.raises(PreflightError, match="conditional put refused"):
        moves.move(run_with(tmp_path / "here", "t1"), CONFIG, Console(), is_down=False)
    assert list(store.list("data/")) == []


def test_without_a_bucket_there_is_nowhere_to_go(tmp_path):
    config = StorageConfig(name="local")
    with pytest.raises(UserError, match="storage=local has no bucket"):
        moves.move(tmp_path, config, Console(), is_down=False)
    with pytest.raises(UserError, match="add storage=r2"):
        moves.verify_bucket(config, Console())


def test_the_papers_of_a_run_come_with_its_results(tmp_path, store):
    here = run_with(tmp_path / "here", "t1", "t4")
    with Run.open(here) as run:
        run.write_readme()
    (here / "report.html").write_text("<p>report</p>")
    (here / "_meta/points/0").mkdir(parents=True)
    (here / "_meta/points/0/config.yaml").write_text("trait: anxiety")
    moves.move(here, CONFIG, Console(), is_down=False)
    there = tmp_path / "there"
    moves.move(there, CONFIG, Console(), is_down=True)
    for name in ("README.md", "report.html", "_meta/points/0/config.yaml"):
        assert (there / name).read_bytes() == (here / name).read_bytes()


def test_papers_from_a_bucket_cannot_leave_the_folder(tmp_path, store):
    moves.move(run_with(tmp_path / "here", "t1"), CONFIG, Console(), is_down=False)
    evil = ObjectInfo("_meta/points/../../../escaped", 3, None)
    plain = store.list
    store.list = lambda prefix: [*plain(prefix), *([evil] if "points" in prefix else [])]
    with pytest.raises(UnsafeNameError):
        moves.move(tmp_path / "there", CONFIG, Console(), is_down=True)
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize(
    "ask",
    [
        lambda folder: moves.move(folder, CONFIG, Console(), is_down=True),
        lambda _: moves.verify_bucket(CONFIG, Console()),
        lambda _: moves.collect_in_bucket(CONFIG, Console()),
    ],
    ids=["sync", "verify", "gc"],
)
def test_a_place_without_a_run_is_refused_and_makes_no_folder(tmp_path, store, ask):
    with pytest.raises(UserError, match=r"holds no committed task: check storage\.prefix"):
        ask(tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_bucket_that_does_not_answer_is_refused_in_seconds(tmp_path, store, monkeypatch):
    def silent(_):
        raise TransientStoreError("list", "_meta/manifests/", "no route")

    asked: list[float | None] = []

    def make(_, *, patience_s=None):
        asked.append(patience_s)
        return store

    monkeypatch.setattr(moves, "object_store", make)
    monkeypatch.setattr(store, "list", silent)
    with pytest.raises(UserError, match=r"does not answer: .*no route"):
        moves.verify_bucket(CONFIG, Console())
    assert asked == [stores.PREFLIGHT_S]


def test_gc_of_a_bucket_deletes_what_no_commit_names(tmp_path, store, capsys):
    moves.move(run_with(tmp_path / "here", "t1"), CONFIG, Console(), is_down=False)
    store.put("data/vetting/toy/t1-000000000000.parquet", b"of an attempt that did not count")
    assert moves.collect_in_bucket(CONFIG, Console()) == 0
    assert "1 objects that no commit names" in capsys.readouterr().out
    assert moves.verify_bucket(CONFIG, Console()) == 0
    assert "0 files of litter" in capsys.readouterr().out
