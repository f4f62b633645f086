"""A group that cannot fit is refused in one sentence with the numbers in it.

Pure functions over the node table, so they hold without a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.group_spec import GroupSpec


def bundles(spec: GroupSpec, num_ranks: int) -> list[dict[str, float]]:
    """One slot of the placement group for each rank."""
    slot: dict[str, float] = {"CPU": spec.cpus_per_rank}
    if spec.gpus_per_rank:
        slot["GPU"] = spec.gpus_per_rank
    return [dict(slot) for _ in range(num_ranks)]


def why_it_cannot_fit(
    spec: GroupSpec, num_ranks: int, nodes: Sequence[Mapping[str, float]]
) -> str | None:
    """Why the cluster could not hold the group even if it were idle; None when it could.

    Args:
        spec: The group.
        num_ranks: Ranks of the group.
        nodes: Total resources of each live node.
    """
    needs = {"GPU": float(spec.gpus_per_rank), "CPU": spec.cpus_per_rank}
    for kind, each in needs.items():
        if each == 0:
            continue
        wanted = round(each * num_ranks, 4)
        if spec.one_node:
            largest = max((node.get(kind, 0.0) for node in nodes), default=0.0)
            if largest < wanted:
                return (
                    f"{num_ranks} ranks ask for {wanted:g} {kind}s on one node and the largest "
                    f"of {len(nodes)} node(s) has {largest:g}; {way_out(kind)}"
                )
        else:
            total = sum(int(node.get(kind, 0.0) / each) for node in nodes)
            if total < num_ranks:
                return (
                    f"{num_ranks} ranks ask for {each:g} {kind} each and {len(nodes)} node(s) "
                    f"have room for {total}; {way_out(kind)}"
                )
    return None


def how_many_fit(spec: GroupSpec, num_ranks: int, nodes: Sequence[Mapping[str, float]]) -> int:
    """Groups like this that the cluster could hold at once if it were idle.

    Args:
        spec: One group.
        num_ranks: Ranks of one group.
        nodes: Total resources of each live node.
    """
    needs = {"GPU": float(spec.gpus_per_rank), "CPU": spec.cpus_per_rank}
    slots = [
        min(
            (int(round(node.get(kind, 0.0) / each, 6)) for kind, each in needs.items() if each),
            default=num_ranks,
        )
        for node in nodes
    ]
    if spec.one_node:
        return sum(slot // num_ranks for slot in slots)
    return sum(slots) // num_ranks


def why_it_waits(spec: GroupSpec, num_ranks: int, holders: Sequence[str], waited_s: float) -> str:
    """Why a group that would fit did not get its resources in time.

    Args:
        spec: The group.
        num_ranks: Ranks of the group.
        holders: Names of other groups that hold resources now.
        waited_s: Seconds waited.
    """
    kind = "GPUs" if spec.gpus_per_rank else "CPUs"
    each = spec.gpus_per_rank or spec.cpus_per_rank
    held = f"held by {', '.join(sorted(holders))}" if holders else "in use by other work"
    return (
        f"{each * num_ranks:g} {kind} for {num_ranks} ranks were not free within {waited_s:g} s "
        f"({held}); end that work or raise cluster.place_timeout_s"
    )


def way_out(kind: str) -> str:
    """What to change when a kind of resource is short."""
    if kind == "GPU":
        return "lower cluster.tensor_parallel_size or add a node with more GPUs"
    return "lower cluster.cpus_per_rank or cluster.tensor_parallel_size"
