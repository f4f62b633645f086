"""What Ray says of dead processes becomes one clause; everything else here needs Ray."""

from __future__ import annotations

import dataclasses

import pytest

from actors.diagnosis import first_line, why_it_died
from actors.gang import Gang
from actors.group_spec import GroupSpec
from actors.rank_report import RankFacts


def facts(node, gpu_id, *, pid=1, device_index=0):
    return RankFacts(
        node_id=f"node{node}",
        node_ip=f"10.0.0.{node}",
        pid=pid,
        gpu_id=gpu_id,
        device_index=device_index,
    )


def gang_of(*all_facts, **cluster):
    gang = Gang(GroupSpec(**cluster), len(all_facts))
    gang.ranks = [f"actor{i}" for i in range(len(all_facts))]
    gang._sentinels = {f"sentinel{i}": i for i in range(len(all_facts))}
    gang.order(list(all_facts))
    return gang


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: RankActor\n"
            "The actor is dead because its worker process has died. Worker exit type: "
            "SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error "
            "code 2. End of file. Some common causes include: (1) the process was killed by ...",
            "its process ended without a word: killed, out of memory or crashed",
        ),
        (
            "The actor is dead because its node has died. Node Id: 1234",
            "its node has died. Node Id: 1234",
        ),
        (
            "x\nThe actor is dead because its worker process has died. Worker exit type: "
            "USER_ERROR Worker exit detail: Task was killed due to the node running low on memory.",
            "Task was killed due to the node running low on memory.",
        ),
        (
            "The actor 1234 is unavailable: The actor is temporarily unavailable: RpcError",
            "its process, or the whole node, cannot be reached any more",
        ),
        ("The actor 1234 was lost", "The actor 1234 was lost"),
        ("", "no message"),
    ],
)
def test_rays_paragraph_about_a_death_becomes_a_clause(text, clause):
    assert why_it_died(text) == clause


def test_the_first_line_that_says_something_is_kept_and_cut():
    assert first_line("\n  \n out of memory \n second") == "out of memory"
    assert first_line("x" * 301) == "x" * 297 + "..."
    assert len(first_line("x" * 300)) == 300


def test_ranks_handles_and_sentinels_are_renumbered_together():
    gang = gang_of(facts(1, "3"), facts(1, "10"), facts(1, "2"))
    assert gang.ranks == ["actor2", "actor0", "actor1"]
    assert [one.gpu_id for one in gang.facts] == ["2", "3", "10"]
    assert gang._sentinels == {"sentinel0": 1, "sentinel1": 2, "sentinel2": 0}
    assert gang.is_single_node


def test_a_gang_on_two_nodes_knows_it():
    gang = gang_of(facts(2, "0"), facts(1, "0"), facts(1, "1"), facts(2, "1"))
    assert not gang.is_single_node
    assert gang.nodes == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]


def test_an_assignment_counts_local_ranks_per_node():
    gang = gang_of(
        facts(2, "0", device_index=0),
        facts(1, "0", device_index=0),
        facts(1, "1", device_index=1),
        facts(2, "1", device_index=1),
        backend="nccl",
        collective_timeout_s=120.0,
        threads_per_rank=4,
    )
    places = [gang.assign(i, host="10.0.0.1", port=4711, generation=3) for i in range(4)]
    assert [one.local_rank for one in places] == [0, 1, 0, 1]
    assert [one.device_index for one in places] == [0, 1, 0, 1]
    assert [one.node_ip for one in places] == gang.nodes
    assert {one.world_size for one in places} == {4}
    last = dataclasses.asdict(places[3])
    assert (last["rank"], last["generation"], last["backend"]) == (3, 3, "nccl")
    assert (last["store_host"], last["store_port"]) == ("10.0.0.1", 4711)
    assert (last["timeout_s"], last["threads"], last["is_single_node"]) == (120.0, 4, False)


def test_every_rank_is_called_with_its_number():
    gang = gang_of(facts(1, ""), facts(1, ""))
    refs = gang.each(lambda handle, number: f"{handle}-{number}")
    assert refs == {"actor0-0": 0, "actor1-1": 1}


def test_a_gang_that_was_never_started_ends_quietly():
    gang = Gang(GroupSpec(), 2)
    gang.end()
    gang.end()
    assert gang.statuses() == {}
    assert gang.look({}, timeout_s=0) == []
