"""One group over two nodes answers as on one; when a node goes, a group over two others goes on."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import ray
from ray.cluster_utils import Cluster

import jobs.driver
from jobs.entry import ExitCode, main
from storage.manifest import Run
from tests.chaos.trial import digests

pytestmark = [pytest.mark.ray, pytest.mark.long]

SMALL = (
    "prompts=everyday",
    "layer=[1,4]",
    "capture.num_prompts=4",
    "capture.max_new_tokens=8",
    "schedule.bundle_requests=1",
    "cluster.kv_cache_bytes=33554432",
    "cluster.dashboard=false",
)
SPANNING = (
    "cluster=multi_node",  # as it is shipped, but for what a machine without GPUs lacks
    "cluster.tensor_parallel_size=2",
    "cluster.device=cpu",
    "cluster.backend=gloo",
    "cluster.gpus_per_rank=0",
    "cluster.threads_per_rank=1",
    "cluster.max_batch_tokens=4096",
)


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and three nodes that hold one rank each."""
    small = {"object_store_memory": 80 << 20}
    head = {"num_cpus": 0, "include_dashboard": False, **small}
    made = Cluster(initialize_head=True, head_node_args=head)
    nodes = [made.add_node(num_cpus=1, **small) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", made.address)
        yield SimpleNamespace(ray=made, nodes=nodes)
    made.shutdown()


@pytest.fixture
def watched(monkeypatch):
    """Notes where the ranks of every group run."""
    found = SimpleNamespace(places=[], on_submit=lambda group: None)
    plain = jobs.driver.start_group

    def start(spec, group, number, **life):
        made = plain(spec, group, number, **life)
        found.places.append([one.node_id for one in made.processes])
        submit = made.submit

        def noted(bundle, **options):
            found.on_submit(made)
            return submit(bundle, **options)

        made.submit = noted
        return made

    monkeypatch.setattr(jobs.driver, "start_group", start)
    return found


@pytest.fixture(scope="module")
def packed(cluster, tmp_path_factory):
    """What two ranks on one node leave."""
    run_dir = tmp_path_factory.mktemp("runs") / "packed"
    assert main("capture", [f"run_dir={run_dir}", *SMALL]) == ExitCode.DONE
    return run_dir


def test_ranks_that_need_two_nodes_are_refused_on_one(cluster, tmp_path, capsys):
    whole = ("cluster.cpus_per_rank=1", f"run_dir={tmp_path}")
    assert main("capture", [*whole, *SMALL]) == ExitCode.NO_CLUSTER
    said = capsys.readouterr().err
    assert "2 ranks ask for 2 CPUs on one node and the largest of 4 node(s) has 1" in said


def test_a_group_over_two_nodes_leaves_the_bytes_of_one_on_a_single_node_also_when_one_goes(
    packed, cluster, watched, tmp_path
):
    lost: list[str] = []
    lost_at: list[float] = []

    def lose_a_node(group):
        """A node goes under the group's next bundle, not the driver's own."""
        if lost:
            return
        here = ray.get_runtime_context().get_node_id()
        places = {one.node_id for one in group.processes} - {here}
        victim = next(one for one in cluster.nodes if one.node_id in places)
        lost.append(victim.node_id)

        lost_at.append(time.time())
        cluster.ray.remove_node(victim, allow_graceful=False)
        while any(one["Alive"] for one in ray.nodes() if one["NodeID"] == victim.node_id):
            time.sleep(0.1)

    watched.on_submit = lose_a_node
    assert main("capture", [*SPANNING, f"run_dir={tmp_path}", *SMALL]) == ExitCode.DONE

    assert digests(tmp_path) == digests(packed)
    first, second = watched.places
    assert len(set(first)) == len(set(second)) == 2  # every rank on a node of its own
    assert lost[0] in first
    assert lost[0] not in second
    with Run.open(tmp_path) as run:
        rows = run.read("attempts").to_pylist()
    died = next(row for row in rows if row["error_type"] == "RankDied")
    assert died["outcome"] == "retry"
    assert died["started_at"].timestamp() + died["duration_s"] - lost_at[0] < 20
