"""A model group lives and dies whole: every bundle ends in one reply or one named failure.

Ray restarts no rank (a restarted one would answer without its peers). The driver sends a bundle to
all ranks at once and waits on the answers and on one sentinel per rank. On the first failure it
finds the root cause, ends every process and releases the placement group.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, cast

from actors.calls import call_all, explain, observe, start_failures, step
from actors.diagnosis import compare_digests, find_refusal
from actors.errors import GroupClosed, GroupError
from actors.gang import Gang
from actors.group_spec import GroupSpec, GroupState
from actors.idle import GroupClock
from actors.metrics import METER
from actors.parcel import pack
from actors.pending import Pending
from actors.rank_report import RankAnswer, RankFacts, RankStatus
from actors.request import Bundle, EngineSpec, ModelInfo, Reply, Token
from actors.watch import Limits, Watch

logger = logging.getLogger(__name__)

TURN_S = 0.1
"""One thread's turn to wait on the ranks."""


class ModelGroup:
    """The ranks around one copy of a model.

    Several threads may submit and wait: bundles run in the order of ``submit``, and whichever
    thread waits takes the next step for all. ``start`` and ``close`` belong to one owner.
    """

    info: ModelInfo

    def __init__(self, spec: EngineSpec, cluster: GroupSpec, *, generation: int = 1) -> None:
        self.spec = spec
        self.cluster = cluster
        self.state = GroupState.PLACING
        self.start_seconds: dict[str, float] = {}
        """Seconds of each stage of the start."""
        self._generation = generation
        self.clock = GroupClock()
        """What the group's seconds went to; whoever holds work back may switch it."""
        self._gang = Gang(cluster, spec.tensor_parallel_size)
        self._queue: deque[Pending] = deque()
        self._sequence = 0
        self._lock = threading.RLock()

    @classmethod
    def start(
        cls,
        spec: EngineSpec,
        cluster: GroupSpec,
        *,
        generation: int = 1,
        cancelled: threading.Event | None = None,
    ) -> ModelGroup:
        """Reserve, start, join and load; whatever was started is gone again when this raises.

        Setting ``cancelled`` from another thread ends the start within about a second.

        Raises:
            ResourcesMissing: The cluster cannot hold the group, now or at all.
            GroupStartFailed: A rank failed on the way.
            UserError: Every rank found the same fault in the request.
        """
        group = cls(spec, cluster, generation=generation)
        group._gang.cancelled = cancelled
        with ExitStack() as undo:
            undo.callback(group._end, GroupState.FAILED)
            for state, stage in (
                (GroupState.PLACING, group._gang.reserve),
                (GroupState.STARTING, group._start_ranks),
                (GroupState.JOINING, group._join),
                (GroupState.LOADING, group._load),
            ):
                group.state, began = state, time.monotonic()
                with start_failures():
                    stage()
                group.start_seconds[state.value] = round(time.monotonic() - began, 3)
            group.state = GroupState.READY
            undo.pop_all()
        METER.note_use(cluster.name, group.clock, "queue")
        METER.set("traitmill_ranks", group._gang.size, group=cluster.name)
        logger.info("model group %s is ready: %s", cluster.name, group.start_seconds)
        return group

    @property
    def processes(self) -> list[RankFacts]:
        """Where each rank runs, in rank order."""
        return self._gang.facts

    def run(self, bundle: Bundle) -> Reply:
        """Answer one bundle, after those submitted before it.

        Raises:
            GroupError: The group failed (and is gone), or it refused the bundle (and is not).
        """
        pending = self.submit(bundle)
        self.wait([pending])
        return pending.reply()

    def submit(self, bundle: Bundle, *, stream: bool = False, hold_rows: bool = False) -> Pending:
        """Queue a bundle. Its result comes through ``wait``; bundles run in this order.

        With ``hold_rows`` captured rows stay in the ranks until ``rows`` takes them. Raises
        ``ObjectStoreFull`` when it cannot be sent; the group goes on without it.
        """
        whole_s, straggler_s = self.cluster.run_timeout_s, self.cluster.straggler_timeout_s
        stall_s = self.cluster.stall_timeout_s
        limits = Limits(whole_s=whole_s, straggler_s=straggler_s, stall_s=stall_s)
        watch = self._new_watch(f"run bundle {bundle.id}", limits)
        pending = Pending(bundle, watch=watch, stream=stream, hold_rows=hold_rows)
        pending.payload = pack(bundle)
        with self._lock:
            if self.state is not GroupState.READY:
                raise GroupClosed(doing=watch.doing, cause=f"it is {self.state.value}")
            self._queue.append(pending)
            self._send()
            METER.note_use(self.cluster.name, self.clock, "busy")
        return pending

    def stream(self, bundle: Bundle) -> Iterator[Token]:
        """Answer one bundle token by token, in the order the engine made them."""
        pending = self.submit(bundle, stream=True)
        while not pending.is_done:
            self._advance(timeout_s=None)
            yield from pending.take_tokens()
        pending.reply()

    def wait(self, pendings: Sequence[Pending], timeout_s: float | None = None) -> list[Pending]:
        """Supervise until one of these is done or time is up; returns those that are done.

        A failure of the group is not raised here: it ends every bundle, and each raises it from
        its own ``reply()``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        done: list[Pending] = []
        while pendings and not (done := [one for one in pendings if one.is_done]):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._advance(timeout_s=left)
        return done

    def rows(self, pending: Pending) -> list[Any]:
        """Streams of ``CapturedPart`` refs, one from each rank, of an answered bundle."""
        return self._gang.rows(pending.sequence)

    def check(self) -> None:
        """Look for ranks that died while the group was idle.

        Raises:
            RankDied: One did; the group is gone.
        """
        if self.state is not GroupState.READY:
            return
        watch = self._new_watch("the wait for work", Limits())
        with self._lock:
            if not observe(self._gang, watch, {}, timeout_s=0):
                return
            error = explain(self._gang, watch, {})
            self._end(GroupState.FAILED, error)
        raise error

    def statuses(self, *, with_stack: bool = False) -> dict[int, RankStatus]:
        """What every rank that answers in time is doing."""
        return self._gang.statuses(with_stack=with_stack)

    def close(self) -> None:
        """End every rank and release the placement group. Safe to call twice."""
        if not self.state.is_terminal:
            self._end(GroupState.CLOSED)

    def __enter__(self) -> ModelGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_ranks(self) -> None:
        """Start the processes and number them by where they came up."""
        self._gang.start()
        limit_s = self.cluster.start_timeout_s
        facts = call_all(self._gang, "start", lambda rank, _: rank.hello.remote(), limit_s=limit_s)
        self._gang.order(cast("list[RankFacts]", facts))

    def _join(self) -> None:
        """Form the process group around a port that rank 0 holds."""
        from actors.rendezvous import store_address

        gang, cluster = self._gang, self.cluster
        host = store_address(is_single_node=gang.is_single_node, node_ip=gang.nodes[0])
        (port,) = call_all(
            gang,
            "bind the store",
            lambda rank, _: rank.host_store.remote(host, cluster.start_timeout_s),
            limit_s=cluster.start_timeout_s,
            first_only=True,
        )

        def join(rank: Any, number: int) -> Any:  # noqa: ANN401 - Ray's handles are untyped
            assignment = gang.assign(
                number, host=host, port=cast("int", port), generation=self._generation
            )
            return rank.join.remote(assignment)

        call_all(gang, "join", join, limit_s=cluster.start_timeout_s)

    def _load(self) -> None:
        """Make the engines."""
        spec, engine, limit_s = self.spec, self.cluster.engine, self.cluster.load_timeout_s
        infos = call_all(
            self._gang, "load", lambda rank, _: rank.load.remote(spec, engine), limit_s=limit_s
        )
        self.info = cast("ModelInfo", infos[0])

    def _new_watch(self, doing: str, limits: Limits) -> Watch:
        """The clocks of one call to all ranks."""
        return Watch(doing, world_size=self._gang.size, limits=limits, now_s=time.monotonic())

    def _send(self) -> None:
        """Keep the ranks supplied: the next bundle waits at the ranks, not at the driver."""
        for pending in islice(self._queue, self.cluster.max_in_flight):
            if not pending.is_sent:
                self._sequence += 1
                pending.sequence = self._sequence
                pending.refs = self._gang.send(pending)

    def _advance(self, *, timeout_s: float | None) -> None:
        """Take one step with the bundle that is running, short enough for others to get a turn."""
        turn_s = TURN_S if timeout_s is None else min(TURN_S, timeout_s)
        if self._lock.acquire(timeout=turn_s):
            try:
                if self._queue:
                    self._step(turn_s)
            finally:
                self._lock.release()

    def _step(self, timeout_s: float) -> None:
        """Wait for the running bundle, and settle it when it is done."""
        head = self._queue[0]
        try:
            step(self._gang, head.watch, head.refs, timeout_s=timeout_s, on_token=head.add_token)
            if not head.watch.is_complete:
                return
            answers = cast("list[RankAnswer]", head.watch.values())
            compare_digests(head.watch.doing, answers, self._gang.nodes)
        except GroupError as error:
            refusal = find_refusal(
                list(head.watch.outcomes.values()), doing=head.watch.doing, size=self._gang.size
            )
            if refusal is None:
                self._end(GroupState.FAILED, error)
                return
            head.fail(refusal, blamed=True)
        else:
            head.finish(answers[0])
            METER.note_reply(self.cluster.name, head.bundle, head.reply(), self.info)
        self._queue.popleft()
        if self._queue:
            self._queue[0].watch.begin(time.monotonic())
        else:
            METER.note_use(self.cluster.name, self.clock, "queue")
        self._send()

    def _end(self, state: GroupState, error: GroupError | None = None) -> None:
        """End every process, and every open bundle with the reason."""
        with self._lock:
            self.state = state
            self._gang.end()
            METER.note_failure(self.cluster.name, error)
            self._fail_queue(error)

    def _fail_queue(self, error: GroupError | None) -> None:
        """End every open bundle; only the one that was running is to blame."""
        if error is not None:
            logger.error("model group %s ended: %s", self.cluster.name, error)
            logger.info("%s", error.details)
        for place, pending in enumerate(self._queue):
            reason = error or GroupClosed(doing=pending.watch.doing, cause="it was closed")
            pending.fail(reason, blamed=error is not None and place == 0)
        self._queue.clear()
