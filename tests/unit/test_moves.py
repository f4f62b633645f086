"""A run's folder and bucket come to one state by one command, either way, as often as wanted."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from conf.schema import StorageConfig
from jobs import moves, stores
from jobs.report.console import Console
from storage.errors import CorruptFileError, PreflightError
from storage.folder import FolderStore
from storage.manifest import Run
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
