"""Ranks meet over a port that nobody else can take, and agree."""

from __future__ import annotations

import hashlib
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from actors import rendezvous
from actors.rendezvous import RankAssignment

A = hashlib.sha256(b"a").hexdigest()
B = hashlib.sha256(b"b").hexdigest()


def assignment(rank, port, **changes):
    fields = {
        "rank": rank,
        "world_size": 2,
        "local_rank": rank,
        "device_index": 0,
        "generation": 1,
        "backend": "gloo",
        "store_host": "127.0.0.1",
        "store_port": port,
        "is_single_node": True,
        "node_ip": "127.0.0.1",
        "timeout_s": 20.0,
        "threads": 1,
    }
    return RankAssignment(**(fields | changes))


def meet(rank, port, answers):
    """What each of two processes does: two generations, one after the other."""
    torch.set_num_threads(1)
    for generation in (1, 2):
        group = rendezvous.join(assignment(rank, port, generation=generation), None)
        before = rendezvous.count_collectives(group)
        smallest = rendezvous.agree_on_smallest(10 + rank + generation, group)
        equal = rendezvous.find_disagreement(A, group)
        different = rendezvous.find_disagreement(A if rank == 0 else B, group)
        made = rendezvous.count_collectives(group) - before
        answers.put((generation, rank, smallest, equal, different, made, os.environ["RANK"]))
        rendezvous.leave()


def test_two_processes_meet_twice_over_one_store_and_agree():
    store = rendezvous.host_store("127.0.0.1", timeout_s=20.0)
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["tests.tiny"])  # one server for all tests: it has torch already
    answers = context.Queue()
    processes = [context.Process(target=meet, args=(r, store.port, answers)) for r in range(2)]
    for process in processes:
        process.start()
    got = sorted(answers.get(timeout=60) for _ in range(4))
    for process in processes:
        process.join(20)
    assert got == [
        (1, 0, 11, None, [A, B], 3, "0"),
        (1, 1, 11, None, [A, B], 3, "1"),
        (2, 0, 12, None, [A, B], 3, "0"),
        (2, 1, 12, None, [A, B], 3, "1"),
    ]


def test_the_store_keeps_its_port():
    store = rendezvous.host_store("127.0.0.1", timeout_s=5.0)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", store.port))


def test_two_stores_never_share_a_port():
    stores = [rendezvous.host_store("127.0.0.1", timeout_s=5.0) for _ in range(8)]
    assert len({one.port for one in stores}) == 8


def test_a_group_on_one_node_meets_on_loopback():
    assert rendezvous.store_address(is_single_node=True, node_ip="10.0.0.5") == "127.0.0.1"
    assert rendezvous.store_address(is_single_node=False, node_ip="10.0.0.5") == "10.0.0.5"


def test_the_loopback_interface_is_found_by_its_address():
    assert rendezvous.interface_of("127.0.0.1") == "lo"
    assert rendezvous.interface_of("203.0.113.7") is None


def test_a_single_node_pins_gloo_and_leaves_nccl_alone(monkeypatch):
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "wrong")
    assert rendezvous.pin_interface(assignment(0, 1)) == "lo"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert "NCCL_SOCKET_IFNAME" not in os.environ


def test_many_nodes_pin_both_to_the_nodes_own_address(monkeypatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    assert rendezvous.pin_interface(assignment(0, 1, is_single_node=False)) == "lo"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "lo"


def test_an_unknown_address_leaves_the_libraries_their_choice(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "kept")
    one = assignment(0, 1, is_single_node=False, node_ip="203.0.113.7")
    assert rendezvous.pin_interface(one) is None
    assert os.environ["GLOO_SOCKET_IFNAME"] == "kept"


def test_leaving_without_a_group_is_allowed_and_counts_are_zero():
    assert not dist.is_initialized()
    rendezvous.leave()
    assert rendezvous.count_collectives(None) == 0
