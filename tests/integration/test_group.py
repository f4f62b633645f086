"""Groups of real processes: they answer in order, and every failure is named and cleaned up."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from actors.errors import (
    GroupClosed,
    GroupStartFailed,
    RankDied,
    RankHung,
    RankRaised,
    RanksDiverged,
    RequestRefused,
    ResourcesMissing,
)
from actors.group import ModelGroup
from actors.group_spec import GroupSpec, GroupState
from actors.request import Bundle, EngineSpec, Request, Sampling
from conf.errors import UserError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CLUSTER = GroupSpec(
    name="faults",
    engine="tests.fakes:FakeEngine.load",
    straggler_timeout_s=2.0,
    stall_timeout_s=2.0,
    collective_timeout_s=600.0,
)


def spec(size=2, seed=0):
    return EngineSpec(model_path="/nowhere", tensor_parallel_size=size, random_seed=seed)


def bundle(name, *, num_tokens=8, others=0):
    ids = [name, *(f"neighbour{i}" for i in range(others))]
    return Bundle(
        id=name,
        requests=tuple(
            Request(id=one, token_ids=(1, 2, 3), sampling=Sampling(max_new_tokens=num_tokens))
            for one in ids
        ),
    )


@pytest.fixture(scope="module")
def healthy():
    """One group that no test here breaks before the last."""
    with ModelGroup.start(spec(), dataclasses.replace(CLUSTER, name="healthy")) as group:
        yield group


@pytest.fixture
def group():
    """A group for the test to break; its processes must be gone afterwards."""
    with ModelGroup.start(spec(), CLUSTER) as group:
        pids = [one.pid for one in group.processes]
        yield group
    wait_until_gone(pids)


def wait_until_gone(pids, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"processes {pids} outlived their group"
        time.sleep(0.05)


def is_alive(pid):
    with suppress(FileNotFoundError, ProcessLookupError):
        return "(ray::" in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return False


def free_cpus():
    return ray.available_resources().get("CPU", 0.0)


def test_a_group_answers_and_knows_its_model(healthy):
    reply = healthy.run(bundle("b", others=1))
    assert [one.completion_ids for one in reply.results] == [tuple(range(6, 14))] * 2
    assert healthy.info.num_layers == 6
    assert healthy.state is GroupState.READY
    assert list(healthy.start_seconds) == ["placing", "starting", "joining", "loading"]


def test_rank_actors_are_named_after_their_group(healthy):
    names = {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}
    assert {"traitmill/healthy/rank0", "traitmill/healthy/rank1"} <= names


def test_bundles_finish_in_the_order_they_were_submitted(healthy):
    pendings = [healthy.submit(bundle(f"b{i}")) for i in range(20)]
    finished = []
    while len(finished) < 20:
        done = healthy.wait([one for one in pendings if one not in finished])
        finished.extend(done)
    assert [one.bundle_id for one in finished] == [f"b{i}" for i in range(20)]
    assert all(one.engine_s > 0 for one in finished)


def test_a_wait_with_a_time_limit_returns_without_a_result(healthy):
    slow = healthy.submit(bundle("slow:0"))
    assert healthy.wait([slow], timeout_s=0.05) == []
    assert healthy.wait([slow]) == [slow]
    assert slow.reply().results[0].completion_ids == tuple(range(6, 14))


def test_the_groups_time_is_booked_to_a_use(healthy):
    before = healthy.clock.seconds()
    healthy.run(bundle("slow:0"))
    after = healthy.clock.seconds()
    assert healthy.clock.use == "queue"
    assert after["busy"] - before["busy"] >= 0.9
    assert after["starting"] > 0


def test_threads_may_share_a_group(healthy):
    def ask(who):
        return [healthy.run(bundle(f"{who}{i}")).bundle_id for i in range(10)]

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, "xyz"))
    assert answers == [[f"{who}{i}" for i in range(10)] for who in "xyz"]


def test_a_stream_gives_every_token_in_order(healthy):
    tokens = list(healthy.stream(bundle("s")))
    assert [one.token_id for one in tokens] == list(range(6, 14))
    assert healthy.run(bundle("after")).bundle_id == "after"


def test_a_large_bundle_reaches_every_rank(healthy):
    requests = tuple(
        Request(id=f"r{i}", token_ids=(1,) * 300, sampling=Sampling(max_new_tokens=1))
        for i in range(100)
    )
    reply = healthy.run(Bundle(id="large", requests=requests))
    assert [one.completion_ids for one in reply.results] == [(300,)] * 100


def test_a_refused_bundle_leaves_the_group_usable(healthy):
    with pytest.raises(RequestRefused, match=r"steering layer 99 of request refuse:0"):
        healthy.run(bundle("refuse:0"))
    assert healthy.run(bundle("after")).bundle_id == "after"


def test_a_rank_that_is_slow_for_a_second_is_waited_for(healthy):
    assert healthy.run(bundle("slow:1")).bundle_id == "slow:1"


def test_a_killed_rank_is_named_and_the_bundles_behind_it_are_not_blamed(group):
    pendings = [group.submit(bundle("kill:1", num_tokens=40)), group.submit(bundle("innocent"))]
    began = time.monotonic()
    assert group.wait(pendings) == pendings
    assert time.monotonic() - began < 5
    with pytest.raises(RankDied, match=r"rank 1 on node .* died during run bundle kill:1"):
        pendings[0].reply()
    assert [one.blamed for one in pendings] == [True, False]
    assert group.state is GroupState.FAILED
    with pytest.raises(GroupClosed):
        group.submit(bundle("late"))


@pytest.mark.long
def test_a_rank_that_exits_is_named_although_its_peer_complains_first(group):
    with pytest.raises(RankDied) as caught:
        group.run(bundle("exit:0", num_tokens=40))
    assert caught.value.rank == 0


def test_a_rank_that_raises_is_named_while_its_peer_is_stuck(group):
    with pytest.raises(RankRaised) as caught:
        group.run(bundle("raise:1", num_tokens=40))
    assert (caught.value.rank, caught.value.cause_type) == (1, "FakeOutOfMemoryError")
    assert caught.value.cause == "tried to allocate 16.0 GiB, 2.5 GiB are free"
    assert "_misbehave" in caught.value.details


def test_a_rank_that_skips_a_collective_is_named_within_10_seconds(group):
    began = time.monotonic()
    with pytest.raises(RankHung, match=r"left out 1 collective") as caught:
        group.run(bundle("skip:1", num_tokens=40))
    assert time.monotonic() - began < 10
    assert caught.value.rank == 1
    assert "all_reduce" in caught.value.details


def test_a_rank_stuck_in_its_own_code_is_named_with_its_stack(group):
    began = time.monotonic()
    with pytest.raises(RankHung, match=r"does not reach the collective") as caught:
        group.run(bundle("hang:0", num_tokens=40))
    assert time.monotonic() - began < 10
    assert caught.value.rank == 0
    assert "_misbehave" in caught.value.details


def test_a_stopped_process_is_named_as_silent(group):
    with pytest.raises(RankHung, match=r"its process does not answer") as caught:
        group.run(bundle("stop:1", num_tokens=40))
    assert caught.value.rank == 1


def test_ranks_that_answer_differently_fail_the_bundle(group):
    with pytest.raises(RanksDiverged, match=r"rank 1 on node .* diverged") as caught:
        group.run(bundle("diverge:1"))
    assert len(set(caught.value.digests)) == 2
    assert group.state is GroupState.FAILED


def test_closing_ends_open_bundles_and_is_repeatable():
    group = ModelGroup.start(spec(1), CLUSTER)
    pending = group.submit(bundle("b"))
    group.close()
    group.close()
    with pytest.raises(GroupClosed):
        pending.reply()
    assert group.state is GroupState.CLOSED


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (1001, r"rank 1 on node .* failed to load: its process ended without a word"),
        pytest.param(
            *(2001, r"rank 1 on node .* failed to load: FakeOutOfMemoryError: tried to allocate"),
            marks=pytest.mark.long,  # short: test_group_resident.py
        ),
    ],
)
def test_a_start_that_fails_half_way_leaves_nothing_behind(seed, message):
    with pytest.raises(GroupStartFailed, match=message) as caught:
        ModelGroup.start(spec(seed=seed), CLUSTER)
    assert caught.value.rank == 1
    names = {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}
    assert "traitmill/faults/rank0" not in names


def test_a_load_that_takes_too_long_is_ended():
    hurried = dataclasses.replace(CLUSTER, load_timeout_s=1.0)
    with pytest.raises(GroupStartFailed, match=r"rank 1 on node .* failed to load"):
        ModelGroup.start(spec(seed=4001), hurried)


def test_a_start_that_nobody_wants_any_more_ends_in_seconds():
    cancelled = threading.Event()
    timer = threading.Timer(0.5, cancelled.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(GroupStartFailed, match="it was cancelled"):
        ModelGroup.start(spec(seed=4001), CLUSTER, cancelled=cancelled)  # rank 1 loads for minutes
    assert time.monotonic() - began < 30
    names = {one["name"] for one in ray.util.list_named_actors(all_namespaces=True)}
    assert "traitmill/faults/rank0" not in names


def test_a_model_that_every_rank_refuses_is_the_users_mistake():
    with pytest.raises(UserError, match=r"^model\.path=/nowhere has no config\.json"):
        ModelGroup.start(spec(seed=3000), CLUSTER)


def test_a_group_that_cannot_fit_is_refused_at_once_with_the_numbers():
    with pytest.raises(ResourcesMissing, match=r"64 ranks ask for 6.4 CPUs on one node"):
        ModelGroup.start(spec(size=64), CLUSTER)
    with pytest.raises(ResourcesMissing, match=r"8 ranks ask for 8 GPUs .* the largest .* has 0"):
        ModelGroup.start(spec(size=8), dataclasses.replace(CLUSTER, gpus_per_rank=1))


def test_a_group_whose_resources_are_taken_hears_by_whom(healthy):
    hungry = dataclasses.replace(CLUSTER, cpus_per_rank=0.99, place_timeout_s=0.5)
    with pytest.raises(ResourcesMissing, match=r"not free within 0.5 s .held by traitmill/healthy"):
        ModelGroup.start(spec(), hungry)


def test_two_groups_of_one_name_cannot_be_up_at_once(healthy, monkeypatch):
    monkeypatch.setattr("actors.gang.NAME_TIMEOUT_S", 0.2)
    with pytest.raises(GroupStartFailed, match=r"a group named 'healthy' is already up"):
        ModelGroup.start(spec(), healthy.cluster)
    assert healthy.run(bundle("unharmed")).bundle_id == "unharmed"


def test_a_rank_that_dies_while_idle_is_noticed_within_a_second(healthy):
    healthy.check()
    os.kill(healthy.processes[1].pid, 9)
    killed = time.monotonic()
    with pytest.raises(RankDied, match=r"rank 1 .* during the wait for work"):  # noqa: PT012
        while time.monotonic() < killed + 1:
            healthy.check()
            time.sleep(0.01)
    assert healthy.state is GroupState.FAILED


def test_failed_groups_give_their_resources_back(healthy):
    assert healthy.state is GroupState.FAILED  # the last one: nothing is held any more
    whole, deadline = ray.cluster_resources()["CPU"], time.monotonic() + 5
    while free_cpus() < whole - 0.01 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free_cpus() == pytest.approx(whole, abs=0.01)
