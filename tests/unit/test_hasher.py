"""The digest of a growing file is that of the finished one, and what goes wrong is the writer's."""

from __future__ import annotations

import errno
import hashlib
import os
import threading

import numpy as np
import pytest

from storage import hasher
from storage.errors import CorruptFileError
from storage.hasher import MAX_BEHIND, FollowingHash


def test_the_following_hash_is_the_hash_of_the_file(tmp_path):
    path = tmp_path / "growing"
    with path.open("wb", buffering=0) as handle:
        follower = FollowingHash(path)
        for i in range(50):
            handle.write(bytes([i]) * 70_001)
            assert follower.grown() == 70_001 * (i + 1)
    assert follower.finish() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_values_in_memory_are_hashed_there_and_what_stands_before_them_from_the_file(tmp_path):
    path = tmp_path / "growing"
    draw = np.random.default_rng(0)
    with path.open("wb", buffering=0) as handle:
        follower = FollowingHash(path)
        for i in range(20):
            rows_ND = draw.integers(0, 65_535, (100 + i, 64), dtype=np.uint16)
            handle.write(b"keys of group %d" % i)
            handle.write(rows_ND.data)
            follower.grown(rows_ND.data)
        handle.write(b"footer")
    assert follower.finish() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_body_in_memory_is_not_read_back(tmp_path, monkeypatch):
    path = tmp_path / "growing"
    asked = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda h, n, at: (asked.append((at, n)), pread(h, n, at))[1])
    path.write_bytes(b"head" + b"v" * 1000)
    follower = FollowingHash(path)
    follower.grown(b"v" * 1000)
    follower.finish()
    assert asked == [(0, 4)]


def test_an_empty_file_has_the_digest_of_nothing(tmp_path):
    (tmp_path / "empty").touch()
    assert FollowingHash(tmp_path / "empty").finish() == hashlib.sha256().hexdigest()


def test_the_disk_is_asked_while_the_file_grows_and_once_at_its_end(tmp_path, monkeypatch):
    calls = []
    for name in ("fdatasync", "fsync"):
        plain = getattr(os, name)
        monkeypatch.setattr(os, name, lambda h, n=name, p=plain: (calls.append(n), p(h))[1])
    monkeypatch.setattr(hasher, "SYNC_BYTES", 1000)
    path = tmp_path / "growing"
    with path.open("wb", buffering=0) as handle:
        follower = FollowingHash(path)
        for _ in range(10):
            handle.write(b"x" * 500)
            follower.grown()
    follower.finish()
    assert calls == ["fdatasync"] * 5 + ["fsync"]


def test_what_the_disk_has_taken_leaves_the_memory(tmp_path, monkeypatch):
    """A capture larger than the memory must not push the model's files out of it."""
    dropped = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda h, at, n, advice: dropped.append((at, n, advice))
    )
    monkeypatch.setattr(hasher, "SYNC_BYTES", 1000)
    path = tmp_path / "growing"
    with path.open("wb", buffering=0) as handle:
        follower = FollowingHash(path)
        for _ in range(5):
            handle.write(b"x" * 700)
            follower.grown()
    assert follower.finish() == hashlib.sha256(b"x" * 3500).hexdigest()
    assert dropped == [(at, 1400, os.POSIX_FADV_DONTNEED) for at in (0, 1400)]


def test_a_disk_that_is_full_when_it_is_forced_is_the_writers_error(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="No space left"):
        FollowingHash(path).finish()


def test_a_file_that_somebody_cut_is_refused(tmp_path):
    path = tmp_path / "growing"
    path.write_bytes(b"x" * 100)
    follower = FollowingHash(path)
    follower._to_hash.put(hasher._Grown(200, memoryview(b"")))
    with pytest.raises(CorruptFileError, match="it ends at byte 100, not 200"):
        follower.finish()


def test_a_missing_file_is_the_followers_error_and_leaves_no_thread(tmp_path):
    before = threading.active_count()
    with pytest.raises(FileNotFoundError):
        FollowingHash(tmp_path / "none").finish()
    assert threading.active_count() == before


def test_a_follower_that_failed_does_not_stop_the_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    path = tmp_path / "growing"
    with path.open("wb", buffering=0) as handle:
        follower = FollowingHash(path)
        for _ in range(5 * MAX_BEHIND):
            handle.write(b"x")
            follower.grown()
    with pytest.raises(CorruptFileError):
        follower.finish()


def test_a_given_up_file_ends_both_threads(tmp_path):
    before = threading.active_count()
    (tmp_path / "f").write_bytes(b"x")
    follower = FollowingHash(tmp_path / "f")
    follower.grown()
    follower.stop()
    assert threading.active_count() == before
