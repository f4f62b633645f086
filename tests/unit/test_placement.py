"""Impossible groups are refused with the numbers in the sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.group_spec import GroupSpec, GroupState
from actors.placement import bundles, how_many_fit, way_out, why_it_cannot_fit, why_it_waits

GPU = GroupSpec(gpus_per_rank=1, cpus_per_rank=4)
CPU = GroupSpec(cpus_per_rank=0.5)


def test_a_cpu_group_asks_for_no_gpus():
    assert bundles(CPU, 2) == [{"CPU": 0.5}, {"CPU": 0.5}]


def test_a_gpu_group_asks_for_one_gpu_per_rank():
    assert bundles(GPU, 2) == [{"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}]


def test_bundles_do_not_share_one_dictionary():
    first, second = bundles(CPU, 2)
    assert first is not second


def test_eight_gpus_on_one_node_do_not_fit_two_nodes_of_four():
    nodes = [{"CPU": 64.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 4.0}]
    assert why_it_cannot_fit(GPU, 8, nodes) == (
        "8 ranks ask for 8 GPUs on one node and the largest of 2 node(s) has 4; "
        "lower cluster.tensor_parallel_size or add a node with more GPUs"
    )


def test_the_same_eight_fit_when_the_group_may_span_nodes():
    spec = GroupSpec(gpus_per_rank=1, cpus_per_rank=4, one_node=False)
    nodes = [{"CPU": 64.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 4.0}]
    assert why_it_cannot_fit(spec, 8, nodes) is None
    assert why_it_cannot_fit(spec, 16, nodes) == (
        "16 ranks ask for 1 GPU each and 2 node(s) have room for 8; "
        "lower cluster.tensor_parallel_size or add a node with more GPUs"
    )


def test_too_few_cpus_are_named_even_when_gpus_suffice():
    reason = why_it_cannot_fit(GPU, 8, [{"CPU": 16.0, "GPU": 8.0}])
    assert reason == (
        "8 ranks ask for 32 CPUs on one node and the largest of 1 node(s) has 16; "
        "lower cluster.cpus_per_rank or cluster.tensor_parallel_size"
    )


def test_an_exact_fit_is_a_fit_despite_binary_fractions():
    assert why_it_cannot_fit(GroupSpec(cpus_per_rank=0.1), 3, [{"CPU": 0.3}]) is None


def test_a_cluster_without_nodes_has_none():
    assert "largest of 0 node(s) has 0" in str(why_it_cannot_fit(CPU, 1, []))


def test_a_group_that_waited_in_vain_hears_who_holds_the_gpus():
    assert why_it_waits(GPU, 8, ["traitmill/kimi", "traitmill/a"], 60) == (
        "8 GPUs for 8 ranks were not free within 60 s (held by traitmill/a, traitmill/kimi); "
        "end that work or raise cluster.place_timeout_s"
    )
    assert "in use by other work" in why_it_waits(CPU, 2, [], 60)
    assert why_it_waits(CPU, 2, [], 60).startswith("1 CPUs for 2 ranks")


@pytest.mark.parametrize(
    ("spec", "num_ranks", "nodes", "count"),
    [
        (GPU, 8, [{"CPU": 64.0, "GPU": 8.0}] * 3, 3),
        (GPU, 4, [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 6.0}], 3),
        (GPU, 8, [{"CPU": 64.0, "GPU": 4.0}] * 2, 0),
        (replace(GPU, one_node=False), 8, [{"CPU": 64.0, "GPU": 4.0}] * 3, 1),
        (GPU, 4, [{"CPU": 4.0, "GPU": 8.0}], 0),
        (GroupSpec(cpus_per_rank=0.1), 3, [{"CPU": 0.9}], 3),
        (GPU, 4, [], 0),
    ],
)
def test_groups_that_fit_at_once_are_counted_node_by_node(spec, num_ranks, nodes, count):
    assert how_many_fit(spec, num_ranks, nodes) == count


def test_the_way_out_depends_on_what_is_short():
    assert "GPU" in way_out("GPU")
    assert "cpus_per_rank" in way_out("CPU")


def test_only_failed_and_closed_groups_are_over():
    assert [one for one in GroupState if one.is_terminal] == [
        GroupState.FAILED,
        GroupState.CLOSED,
    ]
