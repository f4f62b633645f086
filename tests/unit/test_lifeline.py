"""A port without a listener ends the run in seconds; a slow or distant one never does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest

from jobs import lifeline


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(lifeline, "LOOK_S", 0.01)


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_only_host_and_port_can_be_watched():
    assert lifeline.address_of("127.0.0.1:6379") == ("127.0.0.1", 6379)
    assert lifeline.address_of("head-node:6379") == ("head-node", 6379)
    for other in ("auto", "local", "ray://127.0.0.1:10001", ""):
        assert lifeline.address_of(other) is None


def test_a_listener_that_never_answers_still_listens(server):
    assert lifeline.listens(server.getsockname())


def test_the_end_of_the_listener_is_told_once(server):
    address, told = server.getsockname(), threading.Event()
    lifeline.watch(address, threading.Event(), told.set)
    assert not told.wait(0.1)
    server.close()
    assert told.wait(5)


def test_nothing_is_told_after_the_end(server):
    ended, told = threading.Event(), threading.Event()
    lifeline.watch(server.getsockname(), ended, told.set)
    ended.set()
    server.close()
    assert not told.wait(0.2)


def test_a_cluster_that_comes_up_late_is_waited_for(server):
    address = server.getsockname()
    server.close()
    assert not lifeline.wait_for(address, 0.05)
    came: list[socket.socket] = []
    late = threading.Timer(0.1, lambda: came.append(socket.create_server(address)))
    late.start()
    assert lifeline.wait_for(address, 5.0)
    late.join()
    came[0].close()


def test_a_run_that_hangs_in_ray_is_ended_with_one_sentence():
    code = """
import threading, time, signal
from jobs import lifeline
lifeline.LAST_WORDS_S = 0.1
signal.signal(signal.SIGTERM, lambda *_: None)  # as if Python never got its turn
lost = threading.Event()
threading.Thread(target=lifeline.end_run, args=(threading.Event(), lost)).start()
time.sleep(30)
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=False
    )
    assert time.monotonic() - began < 20
    assert done.returncode == 1
    assert done.stderr.startswith("failed: Ray on this node is gone; what is committed is safe")
