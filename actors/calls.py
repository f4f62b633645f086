"""A call to all ranks ends in every rank's answer or in one named failure, and always ends.

One step waits a little, takes in what was seen, asks the ranks how they are when nothing was, and
says so when a clock has run out or a rank has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from actors.diagnosis import find_hung_rank, find_root_cause, has_root_cause
from actors.errors import GroupError, GroupStartFailed, RankRaised
from actors.gang import Gang
from actors.request import Token
from actors.watch import Limits, Watch
from conf.errors import UserError

GRACE_S = 0.3
"""After the first error, for the error that explains it to arrive."""
LOOK_UP_S = 1.0
"""A call during the start looks up this often, to see that it was cancelled."""
LONG_GRACE_S = 2.0
"""The same, while all that was seen are complaints about another rank."""
QUICK_STATUS_S = 0.3
"""For a routine question to the ranks; silence here is no verdict yet."""


def call_all(
    gang: Gang,
    doing: str,
    call: Callable[[Any, int], Any],
    *,
    limit_s: float,
    first_only: bool = False,
) -> list[object]:
    """Call every rank (or rank 0 alone) and return the answers in rank order.

    Raises:
        GroupError: A rank died, raised or took longer than ``limit_s``, or the start was cancelled.
    """
    refs = {call(gang.ranks[0], 0): 0} if first_only else gang.each(call)
    watch = Watch(
        doing, world_size=len(refs), limits=Limits(whole_s=limit_s), now_s=time.monotonic()
    )
    while not watch.is_complete:
        gang.refuse_cancelled()
        step(gang, watch, refs, timeout_s=min(limit_s, LOOK_UP_S))
    return watch.values()


def step(
    gang: Gang,
    watch: Watch,
    refs: Mapping[Any, int],
    *,
    timeout_s: float | None,
    on_token: Callable[[Token], None] | None = None,
) -> None:
    """Wait for something to happen, at most ``timeout_s`` and never much past the next clock.

    Raises:
        GroupError: The root cause, once a rank failed or a clock ran out. The ranks still run.
    """
    pause_s = watch.check_every_s()
    seen = observe(
        gang,
        watch,
        refs,
        timeout_s=pause_s if timeout_s is None else min(pause_s, timeout_s),
        on_token=on_token,
    )
    if watch.is_failed:
        raise explain(gang, watch, refs)
    if watch.is_complete:
        return
    if not seen and watch.is_look_due(time.monotonic()):
        watch.note(gang.statuses(timeout_s=QUICK_STATUS_S), time.monotonic())
    if watch.overdue(time.monotonic()):
        _judge_overdue(gang, watch)


def observe(
    gang: Gang,
    watch: Watch,
    refs: Mapping[Any, int],
    *,
    timeout_s: float,
    on_token: Callable[[Token], None] | None = None,
) -> int:
    """Take in the next thing that happens; returns how many things did."""
    waiting = {ref: rank for ref, rank in refs.items() if rank not in watch.outcomes}
    outcomes = gang.look(waiting, timeout_s=max(0.0, timeout_s))
    for outcome in outcomes:
        if isinstance(outcome.value, Token):
            if on_token is not None:
                on_token(outcome.value)
        else:
            watch.record(outcome)
    return len(outcomes)


def explain(gang: Gang, watch: Watch, refs: Mapping[Any, int]) -> GroupError:
    """Wait for the error that explains the first one seen, then name the root cause."""
    began = time.monotonic()
    while refs and len(watch.outcomes) < gang.size:
        known = has_root_cause(list(watch.outcomes.values()))
        left_s = began + (GRACE_S if known else LONG_GRACE_S) - time.monotonic()
        # A dead rank's sentinel stays ready, so a look can return at once with nothing new.
        if left_s <= 0:
            break
        observe(gang, watch, refs, timeout_s=min(left_s, 0.1))
        time.sleep(0.01)
    outcomes = list(watch.outcomes.values())
    return find_root_cause(
        outcomes,
        doing=watch.doing,
        nodes=gang.nodes,
        statuses={} if has_root_cause(outcomes) else gang.statuses(with_stack=True),
        waited_s=watch.waited_s(time.monotonic()),
    )


def _judge_overdue(gang: Gang, watch: Watch) -> None:
    """Raise ``RankHung`` unless the late ranks turn out to be only sending results home."""
    statuses = gang.statuses(with_stack=True)
    now_s = time.monotonic()
    watch.note(statuses, now_s)
    if watch.forgive_returning(statuses, now_s) and watch.overdue(now_s) is None:
        return
    why = watch.overdue(now_s)
    if why is None:
        return
    raise find_hung_rank(
        doing=watch.doing,
        nodes=gang.nodes,
        answered=watch.answered,
        statuses=statuses,
        waited_s=watch.waited_s(now_s),
        why=why,
    )


@contextmanager
def start_failures() -> Iterator[None]:
    """Turn a rank's failure during the start into ``GroupStartFailed``, or the user's mistake."""
    try:
        yield
    except GroupStartFailed:
        raise
    except RankRaised as error:
        if error.user_message:
            raise UserError(error.user_message) from error
        raise GroupStartFailed(
            doing=error.doing,
            cause=f"{error.cause_type}: {error.cause}",
            rank=error.rank,
            node=error.node,
            details=error.details,
        ) from error
    except GroupError as error:
        raise GroupStartFailed(
            doing=error.doing,
            cause=error.cause,
            rank=error.rank,
            node=error.node,
            details=error.details,
        ) from error
