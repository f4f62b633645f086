"""The rank that failed first is named, not the ones that failed because of it.

When a rank dies, its neighbours in a collective raise connection errors at once and often reach
the driver before the death does; ranks further away wait for the time limit. So the first error
is evidence, not the answer. Everything here is a pure function of what was observed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.errors import (
    GroupError,
    RankDied,
    RankHung,
    RankRaised,
    RanksDiverged,
    RequestRefused,
)
from actors.rank_report import RankAnswer, RankStatus

Kind = Literal["answered", "raised", "died"]

COLLATERAL_WORDS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "timed out waiting",
    "wait timeout",
    "socket timeout",
    "socketexception",
    "gloo",
    "enforce fail",
    "nccl",
    "process group",
    "failed to recv",
)
"""How torch.distributed reports that some *other* rank is missing or out of step."""
DISAGREEMENT_TYPE = "RanksDisagree"
"""What the engine raises when its own comparison of the ranks' schedules fails."""
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
"""Of a stack as Python prints it."""
COLLATERAL_TYPES = ("DistBackendError", "DistNetworkError", "DistStoreError")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the driver saw of one rank."""

    rank: int
    kind: Kind
    at_s: float
    """When it was seen; any clock that only moves forward."""
    value: object = None
    """``answered``: what the rank returned."""
    cause_type: str = ""
    cause: str = ""
    details: str = ""
    is_user_error: bool = False

    @property
    def is_collateral(self) -> bool:
        """True for an error that another rank's failure explains."""
        if self.kind != "raised":
            return False
        text = f"{self.cause} {self.details}".lower()
        is_network = any(word in text for word in COLLATERAL_WORDS)
        return self.cause_type in COLLATERAL_TYPES or (
            is_network and self.cause_type in ("RuntimeError", "ConnectionError", "TimeoutError")
        )


def has_root_cause(outcomes: Sequence[Outcome]) -> bool:
    """True once a failure was seen that no other rank's failure would explain."""
    return any(one.kind != "answered" and not one.is_collateral for one in outcomes)


def find_root_cause(
    outcomes: Sequence[Outcome],
    *,
    doing: str,
    nodes: Sequence[str],
    statuses: Mapping[int, RankStatus],
    waited_s: float,
) -> GroupError:
    """Name the first rank that failed of itself.

    Args:
        outcomes: At least one failure; at most one per rank.
        doing: What the group was asked to do.
        nodes: Address of each rank's node.
        statuses: Of the ranks that still answered.
        waited_s: Seconds since the call was made.
    """
    failures = [one for one in outcomes if one.kind != "answered"]
    own = [one for one in failures if not one.is_collateral]
    if not own:
        missing = find_missing_rank(
            answered=[one.rank for one in outcomes],
            statuses=statuses,
            world_size=len(nodes),
        )
        if missing is not None:
            rank, cause = missing
            return RankHung(
                doing=doing,
                cause=f"{cause} (rank {failures[0].rank} reported: {failures[0].cause})",
                rank=rank,
                node=nodes[rank],
                details=join_stacks(statuses) + failures[0].details,
                waited_s=waited_s,
            )
    first = min(own or failures, key=lambda one: (one.at_s, one.kind != "died"))
    alike = {(one.cause_type, one.cause) for one in own}
    everywhere = len(own) == len(nodes) > 1 and len(alike) == 1
    return _name_first(first, doing=doing, node=nodes[first.rank], everywhere=everywhere)


def _name_first(first: Outcome, *, doing: str, node: str, everywhere: bool) -> GroupError:
    """The error class that fits the first failure."""
    if first.kind == "died":
        return RankDied(
            doing=doing, cause=first.cause, rank=first.rank, node=node, details=first.details
        )
    if first.cause_type == DISAGREEMENT_TYPE:
        return RanksDiverged(doing=doing, cause=first.cause, details=first.details)
    return RankRaised(
        doing=doing,
        cause=first.cause,
        rank=first.rank,
        node=node,
        details=first.details,
        cause_type=first.cause_type,
        on_every_rank=everywhere,
        user_message=first.cause if first.is_user_error else "",
    )


def find_hung_rank(
    *,
    doing: str,
    nodes: Sequence[str],
    answered: Sequence[int],
    statuses: Mapping[int, RankStatus],
    waited_s: float,
    why: str,
) -> RankHung:
    """Name the rank that keeps the others waiting, once a clock has run out.

    Args:
        doing: What the group was asked to do.
        nodes: Address of each rank's node.
        answered: Ranks that came back, with an answer or an error.
        statuses: Of the ranks that still answered.
        waited_s: Seconds since the call was made.
        why: Which clock ran out; used when no rank can be told apart from the others.
    """
    missing = find_missing_rank(answered=answered, statuses=statuses, world_size=len(nodes))
    rank, cause = missing if missing is not None else (None, why + in_places(statuses))
    return RankHung(
        doing=doing,
        cause=cause,
        rank=rank,
        node="" if rank is None else nodes[rank],
        details=join_stacks(statuses),
        waited_s=waited_s,
    )


def in_places(statuses: Mapping[int, RankStatus]) -> str:
    """Where the ranks are in our code, as a clause; empty when all are at the same place.

    Of two ranks at different places nobody can say which is right, so both are named.
    """
    ranks_at: dict[str, list[int]] = {}
    for rank, status in sorted(statuses.items()):
        frames = FRAME.findall(status.stack)
        own = [frame for frame in frames if "/torch/" not in frame[0]]
        if own:
            file, line, function = own[-1]
            ranks_at.setdefault(f"{function} ({file.rsplit('/', 1)[-1]}:{line})", []).append(rank)
    if len(ranks_at) < 2:
        return ""
    clauses = (f"rank {', '.join(map(str, ranks))} in {at}" for at, ranks in ranks_at.items())
    return f": {'; '.join(clauses)}"


def find_missing_rank(
    *, answered: Sequence[int], statuses: Mapping[int, RankStatus], world_size: int
) -> tuple[int, str] | None:
    """The rank that the others wait for, and how that shows; None when nothing tells them apart."""
    silent = [r for r in range(world_size) if r not in statuses and r not in answered]
    if silent:
        return silent[0], "its process does not answer"
    stuck = [s for s in statuses.values() if s.rank not in answered]
    if not stuck:
        return None
    ahead = max(stuck, key=lambda s: (s.num_collectives, -s.rank))
    behind = [s for s in statuses.values() if s.num_collectives < ahead.num_collectives]
    if behind:
        last = min(behind, key=lambda s: (s.num_collectives, s.rank))
        waits = f"rank {ahead.rank} waits in collective {ahead.num_collectives}, {describe(last)}"
        if last.rank in answered or last.in_collective:
            skipped = ahead.num_collectives - last.num_collectives
            return last.rank, f"it left out {skipped} collective(s): {waits}"
        return last.rank, f"it does not reach the collective: {waits}"
    return _tell_apart(stuck, answered=answered)


def _tell_apart(stuck: Sequence[RankStatus], *, answered: Sequence[int]) -> tuple[int, str] | None:
    """The odd one out among ranks whose counts of collectives agree, or are not kept."""
    outside = [s for s in stuck if not s.in_collective]
    if len(outside) == 1:
        return outside[0].rank, f"it is stuck outside any collective, {describe(outside[0])}"
    if answered and len(answered) < len(stuck):
        return answered[0], f"it returned while {len(stuck)} ranks wait for it"
    if len(stuck) < len(answered):
        return stuck[0].rank, "it waits for something that the others passed"
    places = [s.stack.strip().rsplit("\n", 2)[-2:] for s in stuck]
    odd = [s for s, place in zip(stuck, places, strict=True) if places.count(place) == 1]
    if len(odd) == 1 and len(stuck) > 2:
        return odd[0].rank, f"it is stuck at another place than the others, {describe(odd[0])}"
    return None


def describe(status: RankStatus) -> str:
    """Where a rank is, in a clause."""
    place = "in a collective" if status.in_collective else status.stage
    return f"it is {place} after {status.num_collectives} collectives"


def join_stacks(statuses: Mapping[int, RankStatus]) -> str:
    """All stacks, each under its rank."""
    return "".join(
        f"rank {rank} ({describe(status)}):\n{status.stack}\n"
        for rank, status in sorted(statuses.items())
    )


def compare_digests(doing: str, answers: Sequence[RankAnswer], nodes: Sequence[str]) -> None:
    """Check that every rank computed the same token ids by the same schedule.

    Raises:
        RanksDiverged: Names the first rank that differs from rank 0.
    """
    digests = tuple(one.digest for one in answers)
    odd = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
    if odd is not None:
        raise RanksDiverged(
            doing=doing,
            cause=f"its digest is {digests[odd][:12]}, rank 0 has {digests[0][:12]}",
            rank=odd,
            node=nodes[odd],
            digests=digests,
        )


def find_refusal(outcomes: Sequence[Outcome], *, doing: str, size: int) -> RequestRefused | None:
    """The user's mistake that every rank found; None when the failure was another."""
    if len(outcomes) == size and all(one.is_user_error for one in outcomes):
        return RequestRefused(doing=doing, cause=outcomes[0].cause)
    return None


def first_line(text: str) -> str:
    """First line that says something, at most 300 characters of it."""
    line = next((one.strip() for one in text.splitlines() if one.strip()), "no message")
    return line if len(line) <= 300 else line[:297] + "..."


def why_it_died(text: str) -> str:
    """Ray's paragraph about a dead actor, as one clause."""
    if "connection error code 2" in text:
        return "its process ended without a word: killed, out of memory or crashed"
    if "is unavailable" in text:
        return "its process, or the whole node, cannot be reached any more"
    for mark in ("Worker exit detail:", "The actor is dead because", "The actor died because"):
        _, found, rest = text.partition(mark)
        if found:
            return first_line(rest)
    return first_line(text)
