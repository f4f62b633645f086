"""All ranks' processes exist or none do, and their deaths are seen while nobody calls them.

The processes of one model group: a placement group, one rank actor in each of its slots, and one
sentinel call per actor that ends only when the process does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayActorError, RayError, RaySystemError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.diagnosis import Outcome, first_line, why_it_died
from actors.errors import GroupStartFailed, ResourcesMissing
from actors.group_spec import GroupSpec
from actors.placement import bundles, why_it_cannot_fit, why_it_waits
from actors.rank import CONCURRENCY_GROUPS, RankActor
from actors.rank_report import RankFacts, RankStatus
from conf.errors import UserError

if TYPE_CHECKING:
    from actors.pending import Pending
    from actors.rendezvous import RankAssignment

STATUS_TIMEOUT_S = 2.0
"""A rank that cannot say what it does within this is stopped, or holds the interpreter's lock."""
NAME_TIMEOUT_S = 10.0
"""For the names of a group that has just ended to become free."""
PLACE_SLICE_S = 1.0
"""Nodes may go while resources are waited for, so the wait looks up this often."""
EXIT_TIMEOUT_S = 10.0
"""For killed processes to be gone, so that the next group finds their memory free."""


class Gang:
    """The processes of one model group.

    Attributes:
        ranks: Actor handles, in rank order once ``order`` was called.
        nodes: Address of each rank's node.
        is_single_node: True when all ranks are on one node.
        cancelled: Set by anybody to end the start; None: nobody will.
    """

    def __init__(self, cluster: GroupSpec, size: int) -> None:
        self.cluster = cluster
        self.size = size
        self.ranks: list[Any] = []
        self.facts: list[RankFacts] = []
        self.nodes: list[str] = [""] * size
        self._sentinels: dict[Any, int] = {}
        self._placement: PlacementGroup | None = None
        self.cancelled: threading.Event | None = None

    @property
    def is_single_node(self) -> bool:
        """True when all ranks are on one node."""
        return len({one.node_id for one in self.facts}) == 1

    def reserve(self) -> None:
        """Reserve one slot per rank, all or nothing.

        Raises:
            ResourcesMissing: The cluster cannot hold them, now or at all.
        """
        cluster = self.cluster
        self._refuse_impossible()
        self._placement = self._once_name_is_free(
            lambda: placement_group(
                bundles(cluster, self.size),
                strategy="STRICT_PACK" if cluster.one_node else "PACK",
                name=f"traitmill/{cluster.name}",
            )
        )
        deadline = time.monotonic() + cluster.place_timeout_s
        while not self._placement.wait(max(0.0, min(PLACE_SLICE_S, deadline - time.monotonic()))):
            self.refuse_cancelled()
            self._refuse_impossible()
            if time.monotonic() >= deadline:
                table = placement_group_table().values()
                holders = {one["name"] or "unnamed" for one in table if one["state"] == "CREATED"}
                raise ResourcesMissing(
                    doing="reserve resources",
                    cause=why_it_waits(
                        cluster, self.size, sorted(holders), cluster.place_timeout_s
                    ),
                )

    def _refuse_impossible(self) -> None:
        """Raise if the nodes that are up could not hold the ranks even when idle."""
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        reason = why_it_cannot_fit(self.cluster, self.size, alive)
        if reason and not self.cluster.autoscaling:
            raise ResourcesMissing(doing="reserve resources", cause=reason)

    def refuse_cancelled(self) -> None:
        """Raise if nobody wants the group any more."""
        if self.cancelled is not None and self.cancelled.is_set():
            raise GroupStartFailed(doing="start", cause="it was cancelled")

    def start(self) -> None:
        """Create one rank actor per slot. Returns before they are up."""
        while len(self.ranks) < self.size:
            self.ranks.append(self._once_name_is_free(lambda: self._create(len(self.ranks))))
        self._sentinels = {rank.watch.remote(): i for i, rank in enumerate(self.ranks)}

    def order(self, facts: list[RankFacts]) -> None:
        """Number the ranks by node and GPU: which GPU a slot gets is Ray's choice."""
        slots = sorted(range(self.size), key=lambda slot: facts[slot].placement_key(slot))
        self.ranks = [self.ranks[slot] for slot in slots]
        self.facts = [facts[slot] for slot in slots]
        self.nodes = [one.node_ip for one in self.facts]
        self._sentinels = {ref: slots.index(slot) for ref, slot in self._sentinels.items()}

    def assign(self, number: int, *, host: str, port: int, generation: int) -> RankAssignment:
        """One rank's place in the process group."""
        # Imported here: the driver plans without torch, and only a starting group needs it.
        from actors.rendezvous import RankAssignment

        facts, cluster = self.facts[number], self.cluster
        return RankAssignment(
            rank=number,
            world_size=self.size,
            local_rank=sum(one.node_id == facts.node_id for one in self.facts[:number]),
            device_index=facts.device_index,
            generation=generation,
            backend=cluster.backend,
            store_host=host,
            store_port=port,
            is_single_node=self.is_single_node,
            node_ip=facts.node_ip,
            timeout_s=cluster.collective_timeout_s,
            threads=cluster.threads_per_rank,
        )

    def look(self, refs: Mapping[Any, int], *, timeout_s: float | None) -> list[Outcome]:
        """Wait for the first of these refs, or for a death, and say what it was."""
        watched = {**self._sentinels, **refs}
        if not watched:
            return []
        ready, _ = ray.wait(list(watched), num_returns=1, timeout=timeout_s)
        return [fetch(watched[ref], ref) for ref in ready]

    def send(self, pending: Pending) -> dict[Any, int]:
        """Give every rank a packed bundle; returns the refs of their answers with their ranks.

        The ref of a streaming rank 0 yields tokens first.
        """
        sequence, payload = pending.sequence, pending.payload

        def call(rank: Any, number: int) -> Any:  # noqa: ANN401 - Ray's handles are untyped
            name = f"run {pending.bundle_id} rank {number}"
            if pending.stream and number == 0:
                method = rank.stream.options(name=name, num_returns="streaming")
                return method.remote(sequence, payload)
            method = rank.run.options(name=name)
            return method.remote(sequence, payload, hold_rows=pending.hold_rows)

        return self.each(call)

    def rows(self, sequence: int) -> list[Any]:
        """One stream of held rows per rank, each a few parts ahead of its reader at most."""
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": 2}
        return [
            rank.rows.options(name=f"rows rank {number}", **options).remote(sequence)
            for number, rank in enumerate(self.ranks)
        ]

    def statuses(
        self, *, with_stack: bool = False, timeout_s: float = STATUS_TIMEOUT_S
    ) -> dict[int, RankStatus]:
        """What every rank that answers in time is doing."""
        refs = {rank.status.remote(with_stack=with_stack): i for i, rank in enumerate(self.ranks)}
        if not refs:
            return {}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=timeout_s)
        seen = {refs[ref]: fetch(refs[ref], ref).value for ref in ready}
        return {rank: one for rank, one in seen.items() if isinstance(one, RankStatus)}

    def each(self, call: Callable[[Any, int], Any]) -> dict[Any, int]:
        """Call every rank; returns the refs with their ranks."""
        return {call(handle, rank): rank for rank, handle in enumerate(self.ranks)}

    def end(self) -> None:
        """End every process and release the placement group. Safe to call twice."""
        for rank in self.ranks:
            ray.kill(rank, no_restart=True)
        if self._sentinels:
            refs = list(self._sentinels)
            ray.wait(refs, num_returns=len(refs), timeout=EXIT_TIMEOUT_S, fetch_local=False)
        if self._placement is not None:
            remove_placement_group(self._placement)
        self.ranks, self._sentinels, self._placement = [], {}, None

    def _once_name_is_free(self, create: Callable[[], Any]) -> Any:  # noqa: ANN401 - untyped handles
        """Create something named; Ray frees the names of a dead group a little after its death."""
        deadline = time.monotonic() + NAME_TIMEOUT_S
        while True:
            try:
                return create()
            except (ValueError, RaySystemError) as taken:
                if "already" not in str(taken):
                    raise
                if time.monotonic() > deadline:
                    raise GroupStartFailed(
                        doing="reserve its name",
                        cause=f"a group named {self.cluster.name!r} is already up",
                    ) from taken
            time.sleep(0.1)

    def _create(self, slot: int) -> Any:  # noqa: ANN401 - Ray's handles are untyped
        """Create one rank actor."""
        name = f"traitmill/{self.cluster.name}/rank{slot}"
        # A runtime environment costs a fresh process; without GPUs there is nothing to set.
        visible = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
        rank_class: Any = ray.remote(concurrency_groups=CONCURRENCY_GROUPS)  # type: ignore[call-overload]
        return (
            rank_class(RankActor)
            .options(
                name=name,
                num_cpus=self.cluster.cpus_per_rank,
                num_gpus=self.cluster.gpus_per_rank,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    cast("PlacementGroup", self._placement), placement_group_bundle_index=slot
                ),
                runtime_env=visible if self.cluster.gpus_per_rank else None,
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(name)
        )


def fetch(rank: int, ref: Any) -> Outcome:  # noqa: ANN401 - a ref, or a stream of refs
    """Turn a ready ref, or the next value of a stream, into what was seen of a rank."""
    is_stream = isinstance(ref, ray.ObjectRefGenerator)
    try:
        value = ray.get(next(ref) if is_stream else ref)  # noqa: TID251 - ready, and named below
    except RayTaskError as error:
        cause = error.cause
        return Outcome(
            rank=rank,
            kind="raised",
            at_s=time.monotonic(),
            value=cause,
            cause_type=type(cause).__name__,
            cause=str(cause) if isinstance(cause, UserError) else first_line(str(cause)),
            details=str(error),
            is_user_error=isinstance(cause, UserError),
        )
    except RayError as error:
        # A lost node shows as "unavailable": such a rank will not come back either.
        text = str(error) if isinstance(error, RayActorError) else f"{type(error).__name__} {error}"
        return Outcome(
            rank=rank,
            kind="died",
            at_s=time.monotonic(),
            cause_type=type(error).__name__,
            cause=why_it_died(text),
            details=text,
        )
    return Outcome(rank=rank, kind="answered", at_s=time.monotonic(), value=value)
