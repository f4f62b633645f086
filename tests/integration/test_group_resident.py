"""A resident group serves several jobs, outlives them, and is never an old one unnoticed."""

from __future__ import annotations

import dataclasses
import io
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray

from actors import supervisor
from actors.errors import EngineOutOfDate, GroupClosed, GroupStartFailed, RankDied
from actors.group_spec import GroupSpec
from actors.request import Bundle, EngineSpec, Request, Sampling
from actors.residence import ResidenceSpec
from actors.supervisor import ensure, find, residents
from jobs.report.console import Console
from jobs.resident import describe

pytestmark = pytest.mark.ray

SPEC = EngineSpec(model_path="/nowhere", tensor_parallel_size=2)
CLUSTER = GroupSpec(
    name="shared",
    engine="tests.fakes:FakeEngine.load",
    straggler_timeout_s=2.0,
    stall_timeout_s=2.0,
)
OTHER_JOB = """
import sys
import ray
from tests.integration.test_group_resident import CLUSTER, SPEC, bundle
from actors.supervisor import ensure
ray.init(address=sys.argv[1], namespace="anything", log_to_driver=False)
group = ensure(SPEC, CLUSTER)
print(group.run(bundle("from another process")).results[0].completion_ids)
"""


@pytest.fixture(scope="module", autouse=True)
def clean(local_ray):
    """Resident groups outlive who started them."""
    yield
    for one in residents():
        supervisor.stop(one["actor_name"])


def bundle(name, num_tokens=8):
    request = Request(id=name, token_ids=(1, 2, 3), sampling=Sampling(max_new_tokens=num_tokens))
    return Bundle(id=name, requests=(request,))


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_jobs_that_race_to_start_a_group_share_one():
    with ThreadPoolExecutor(3) as pool:
        groups = list(pool.map(lambda _: ensure(SPEC, CLUSTER), range(3)))
    assert [one["name"] for one in residents()] == ["shared"]
    assert {one.info.num_layers for one in groups} == {6}

    def ask(group):
        return [group.run(bundle("same")).results[0].completion_ids for _ in range(5)]

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, groups))
    assert answers == [[tuple(range(6, 14))] * 5] * 3
    for group in groups:
        group.close()
    assert residents()[0]["state"] == "ready"


def test_another_process_finds_the_group_and_leaves_it_up(local_ray):
    before = residents()[0]
    done = subprocess.run(
        [sys.executable, "-c", OTHER_JOB, local_ray.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert "(6, 7, 8, 9, 10, 11, 12, 13)" in done.stdout, done.stderr[-2000:]
    after = residents()[0]
    assert (after["actor_name"], after["generation"]) == (before["actor_name"], 1)


def test_status_shows_what_runs_who_waits_where_and_how_long():
    group = ensure(SPEC, CLUSTER, label="steer")
    group.run(bundle("first"))  # until an answer came, no rate is known
    pendings = [group.submit(bundle(f"slow:0/{i}")) for i in range(4)]
    wait_until(lambda: len(residents()[0]["running"]) == 2)
    out = io.StringIO()
    describe(residents()[0], Console(out))
    said = out.getvalue()
    assert "busy: " in said
    rows = [line.split() for line in said.split("answered\n")[1].splitlines()]
    assert all(row[1].startswith("steer-") for row in rows)
    assert [row[0] for row in rows] == ["running", "running", "1", "2"]
    assert [row[2] for row in rows] == [f"slow:0/{i}" for i in range(4)]
    assert all(row[4] == "in" for row in rows[2:])
    group.close()  # drops what waits
    assert pendings[0].ticket


def test_a_group_with_other_settings_is_not_used_in_silence():
    other = dataclasses.replace(SPEC, dtype="bfloat16")
    with pytest.raises(EngineOutOfDate, match="traitmill group down") as caught:
        ensure(other, CLUSTER)
    assert caught.value.found == residents()[0]["fingerprint"]
    assert caught.value.expected != caught.value.found


def test_a_dead_rank_costs_the_job_one_error_and_the_group_comes_back():
    group = ensure(SPEC, CLUSTER)
    poison, after = group.submit(bundle("kill:1", 40)), group.submit(bundle("after"))
    open_ones = [poison, after]
    while open_ones:
        done = group.wait(open_ones)
        open_ones = [one for one in open_ones if one not in done]
    assert isinstance(poison.error, RankDied)
    assert poison.blamed
    assert after.reply().results[0].completion_ids == tuple(range(6, 14))
    assert group.status()["generation"] == 2


def test_a_killed_supervisor_takes_its_ranks_along_and_the_next_job_starts_anew(local_ray):
    group = ensure(SPEC, CLUSTER)
    pids = [
        int(one.name)
        for one in Path("/proc").iterdir()
        if one.name.isdigit() and is_rank(one, local_ray.pid)
    ]
    assert len(pids) == 2
    name = residents()[0]["actor_name"]
    ray.kill(ray.get_actor(name, namespace=supervisor.NAMESPACE))
    with pytest.raises(GroupClosed, match="supervisor is gone"):
        group.run(bundle("lost"))
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    again = ensure(SPEC, CLUSTER)
    assert again.run(bundle("again")).bundle_id == "again"
    again.stop()
    wait_until(lambda: find(SPEC, CLUSTER) is None)
    assert residents() == []


def is_rank(process, root):
    """True for a rank actor of this test's Ray."""
    try:
        text = (process / "cmdline").read_text(encoding="utf-8", errors="replace")
        return "ray::RankActor" in text and _has_ancestor(process, root)
    except OSError:
        return False


def _has_ancestor(process, root):
    pid = int(process.name)
    while pid > 1:
        if pid == root:
            return True
        pid = int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1]
        )
    return False


def test_an_unused_group_ends_by_itself():
    brief = dataclasses.replace(CLUSTER, name="brief")
    alone = dataclasses.replace(SPEC, tensor_parallel_size=1)
    group = ensure(alone, brief, ResidenceSpec(idle_timeout_s=0.5))
    assert group.run(bundle("b")).bundle_id == "b"
    wait_until(lambda: find(alone, brief) is None)


def test_a_group_that_cannot_start_tells_the_job_and_ends():
    broken = dataclasses.replace(CLUSTER, name="broken")
    alone = dataclasses.replace(SPEC, tensor_parallel_size=1, random_seed=2000)
    with pytest.raises(GroupStartFailed, match="FakeOutOfMemoryError"):
        ensure(alone, broken, ResidenceSpec(max_starts=1))
    wait_until(lambda: not [one for one in residents() if one["name"] == "broken"])


def test_ranks_are_not_started_again_from_code_that_changed_on_disk():
    """What a new rank would import is no longer what the group's name says."""
    payload = {
        "spec": pickle.dumps(dataclasses.replace(SPEC, tensor_parallel_size=1)),
        "cluster": pickle.dumps(dataclasses.replace(CLUSTER, name="edited")),
        "residence": pickle.dumps(ResidenceSpec()),
        "fingerprint": "aaaaaaaaaaaa",
        "engine": "0123456789abcdef",
    }
    actor = ray.remote(supervisor.Supervisor).options(num_cpus=0, max_concurrency=4).remote(payload)
    said = supervisor._info(actor)
    while said["state"] == "starting":
        said = supervisor._info(actor)
    assert (said["state"], said["generation"]) == ("failed", 1)
    assert said["error"].startswith("the resident group runs engine 0123456789ab, not ")
    assert "the code on disk changed" in said["error"]
