"""The real engine on a real toy model: jobs share batches and nobody's answer changes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from actors import supervisor
from actors.errors import RankDied, RankHung
from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.request import Bundle, Capture, EngineSpec, Request, Sampling, Steering
from actors.supervisor import ensure, residents

pytestmark = pytest.mark.ray

NUM_BUNDLES = 6


@pytest.fixture(scope="module", autouse=True)
def clean(local_ray):
    """Resident groups outlive who started them."""
    yield
    for one in residents():
        supervisor.stop(one["actor_name"])


@pytest.fixture
def spec(toy_mla_path):
    return EngineSpec(model_path=str(toy_mla_path), tensor_parallel_size=2)


def bundle(job, number, *, width):
    """Sampled, steered and captured requests, with a vector that is called the same in all jobs."""
    rng = np.random.default_rng(2 * number + (job == "a"))
    vector = np.random.default_rng(7 if job == "a" else 8).normal(size=width).astype(np.float32)
    requests = tuple(
        Request(
            id=f"{job}-{number}-{i}",
            token_ids=tuple(int(t) for t in rng.integers(5, 200, 6 + i)),
            sampling=Sampling(max_new_tokens=12, temperature=0.8, seed=number, ignore_eos=True),
            steering=(Steering(layer=2, vector="trait", coefficient=1.5),),
            capture=(
                Capture(layers=(1, 3), tokens="response[:]", reduction="mean"),
                Capture(layers=(3,), tokens="all", reduction="projection", bank=("trait",)),
            ),
        )
        for i in range(3)
    )
    return Bundle(id=f"{job}{number}", requests=requests, vectors={"trait": vector})


def run_job(group, job):
    """All bundles of a job, two in flight; answers by bundle and when each came."""
    waiting = [bundle(job, n, width=group.info.hidden_size) for n in range(NUM_BUNDLES)]
    flying, replies, times = [], {}, []
    while waiting or flying:
        while waiting and len(flying) < 2:
            flying.append(group.submit(waiting.pop(0)))
        for done in group.wait(flying):
            flying.remove(done)
            replies[done.bundle_id] = done.reply()
            times.append(time.monotonic())
    return replies, times


def assert_same_answers(shared, solo):
    assert shared.keys() == solo.keys()
    for name, reply in shared.items():
        for mine, alone in zip(reply.results, solo[name].results, strict=True):
            assert mine.error is None
            assert mine.completion_ids == alone.completion_ids
            assert [one.vector for one in mine.receipts] == ["trait"]
            assert mine.receipts == alone.receipts
            for got, wanted in zip(mine.captures, alone.captures, strict=True):
                for site, values in got.values.items():
                    # Sums that cancel are compared at the size of what was summed.
                    size = float(np.abs(wanted.values[site]).max())
                    np.testing.assert_allclose(
                        values, wanted.values[site], rtol=1e-5, atol=1e-5 * size
                    )


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.long)])
def test_two_jobs_at_once_get_their_solo_answers_and_neither_starves(spec, size):
    cluster = GroupSpec(name=f"toy{size}", stall_timeout_s=60.0)
    spec = dataclasses.replace(spec, tensor_parallel_size=size)
    solo = {job: run_job(ensure(spec, cluster), job)[0] for job in "ab"}
    groups = {job: ensure(spec, cluster) for job in "ab"}
    barrier = threading.Barrier(2)

    def run(job):
        barrier.wait()
        return run_job(groups[job], job)

    with ThreadPoolExecutor(2) as pool:
        shared = dict(zip("ab", pool.map(run, "ab"), strict=True))
    for job in "ab":
        assert_same_answers(shared[job][0], solo[job])
    first = {job: times[0] for job, (_, times) in shared.items()}
    last = {job: times[-1] for job, (_, times) in shared.items()}
    assert max(first.values()) < min(last.values())
    # Counts are of the shared run: bundles of both really were in one batch.
    assert any(
        reply.num_decode_tokens > solo[job][name].num_decode_tokens
        for job in "ab"
        for name, reply in shared[job][0].items()
    )
    # While both have work, neither waits for more than what the other has at the group already.
    both = min(last.values())
    order = sorted((at, job) for job, (_, times) in shared.items() for at in times if at <= both)
    longest = max(len(list(run)) for _, run in itertools.groupby(job for _, job in order))
    assert longest <= 3
    (mine,) = [one for one in residents() if one["name"] == cluster.name]
    assert mine["generation"] == 1
    supervisor.stop(mine["actor_name"])


def long_bundle():
    request = Request(
        id="long", token_ids=(5, 6, 7), sampling=Sampling(max_new_tokens=400, ignore_eos=True)
    )
    return Bundle(id="long", requests=(request,))


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGKILL, RankDied), (signal.SIGSTOP, RankHung)]
)
def test_a_rank_of_the_real_engine_that_stops_in_mid_answer_is_named(spec, number, error):
    cluster = GroupSpec(name="faulty", stall_timeout_s=3.0, straggler_timeout_s=2.0)
    with ModelGroup.start(spec, cluster) as group:
        stream = group.stream(long_bundle())
        assert [next(stream).index for _ in range(5)] == [0, 1, 2, 3, 4]
        os.kill(group.processes[1].pid, number)
        began = time.monotonic()
        with pytest.raises(error) as caught:
            list(stream)
        assert time.monotonic() - began < 10
        assert caught.value.rank == 1
        assert caught.value.doing == "run bundle long"


@pytest.mark.long
@pytest.mark.parametrize(("size", "named"), [(2, None), (4, 2)])
def test_a_rank_of_the_real_engine_that_leaves_a_collective_out_is_found_within_10_seconds(
    spec, faults, size, named
):
    """The others pair its next one with theirs until two do not match: no rank ever answers."""
    wide = dataclasses.replace(spec, tensor_parallel_size=size)
    cluster = GroupSpec(name="skips", engine="tests.faulty:load", collective_timeout_s=600.0)
    for used in faults.iterdir():
        used.unlink()
    (faults / f"0-skip-{size // 2}").touch()
    with ModelGroup.start(wide, cluster) as group:
        began = time.monotonic()
        with pytest.raises(RankHung) as caught:
            group.run(long_bundle())
        assert time.monotonic() - began < 10
        assert caught.value.rank == named
        if named is None:  # of two nobody can say which is right
            assert "they do not match: rank 0 in " in caught.value.cause
            assert "; rank 1 in " in caught.value.cause
