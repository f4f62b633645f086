"""Every failure of a model group says which rank, where, doing what, and why.

These cross processes: each pickles with its fields (``__reduce__``), so that an error raised in
a supervisor reaches the driver with the same type and the same numbers. ``jobs/failure.py``
decides by type alone what happens next, so a new way to fail needs a new class here.
"""

# ruff: noqa: N818 - the names say what happened: RankDied reads better than RankDiedError.

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class GroupError(Exception):
    """A model group cannot answer; its ranks are gone and its placement group is released.

    Attributes:
        doing: What the group was doing, such as ``run bundle b7``.
        cause: One line, from the process or the library that failed.
        rank: The rank that failed first; None when no single rank is to blame.
        node: Address of that rank's node; empty when unknown.
        details: Stacks or a remote traceback, for the log; never part of the sentence.
    """

    def __init__(
        self,
        *,
        doing: str,
        cause: str,
        rank: int | None = None,
        node: str = "",
        details: str = "",
    ) -> None:
        self.doing = doing
        self.cause = cause
        self.rank = rank
        self.node = node
        self.details = details
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"{self.where()} failed during {self.doing}: {self.cause}"

    def where(self) -> str:
        """The rank and its node, in words."""
        if self.rank is None:
            return "the model group"
        return f"rank {self.rank} on node {self.node}" if self.node else f"rank {self.rank}"

    def fields(self) -> dict[str, object]:
        """Keyword arguments that make this error again."""
        return {
            "doing": self.doing,
            "cause": self.cause,
            "rank": self.rank,
            "node": self.node,
            "details": self.details,
        }

    def __reduce__(self) -> tuple[Callable[[], GroupError], tuple[()]]:
        """Keep the type and fields when the error is pickled between processes."""
        return partial(type(self), **self.fields()), ()  # type: ignore[arg-type]


class GroupStartFailed(GroupError):
    """The group never became ready; whatever had been started is gone again.

    Example: the second of two ranks dies while it loads its weights.
    """

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"the model group did not start: {self.where()} failed to {self.doing}: {self.cause}"


class ResourcesMissing(GroupStartFailed):
    """The cluster cannot hold the group: too few GPUs or CPUs on one node, or none free in time.

    Example: eight GPUs on one node are asked for and the largest node has four.
    """

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"the model group did not start: {self.cause}"


class RankDied(GroupError):
    """A rank's process is gone: killed, out of memory, a crash in native code, or a lost node.

    Example: the kernel's out-of-memory killer ends rank 3 in the middle of an all-reduce.
    """

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"{self.where()} died during {self.doing}: {self.cause}"


class RankRaised(GroupError):
    """A rank's code raised; the others were left waiting for it.

    Example: the allocator of rank 1 is out of memory while the others have enough.
    ``user_message`` is set when what it raised was a ``UserError``.
    """

    def __init__(
        self,
        *,
        doing: str,
        cause: str,
        rank: int | None = None,
        node: str = "",
        details: str = "",
        cause_type: str = "",
        on_every_rank: bool = False,
        user_message: str = "",
    ) -> None:
        self.user_message = user_message
        self.cause_type = cause_type
        self.on_every_rank = on_every_rank
        super().__init__(doing=doing, cause=cause, rank=rank, node=node, details=details)

    def sentence(self) -> str:
        """One sentence for the user."""
        who = "every rank" if self.on_every_rank else self.where()
        return f"{who} raised {self.cause_type or 'an error'} during {self.doing}: {self.cause}"

    def fields(self) -> dict[str, object]:
        """Keyword arguments that make this error again."""
        return super().fields() | {
            "cause_type": self.cause_type,
            "on_every_rank": self.on_every_rank,
            "user_message": self.user_message,
        }


class RankHung(GroupError):
    """A rank stopped taking part: it is stuck, or it went past a collective the others wait in.

    Example: rank 1 takes a branch of its own and leaves an all-reduce out. ``cause`` tells the two
    apart; ``details`` holds the Python stacks of every rank that answered.
    """

    def __init__(
        self,
        *,
        doing: str,
        cause: str,
        rank: int | None = None,
        node: str = "",
        details: str = "",
        waited_s: float = 0.0,
    ) -> None:
        self.waited_s = waited_s
        super().__init__(doing=doing, cause=cause, rank=rank, node=node, details=details)

    def sentence(self) -> str:
        """One sentence for the user."""
        return (
            f"{self.where()} hung during {self.doing}: {self.cause}; "
            f"the group was ended after {self.waited_s:.1f} s"
        )

    def fields(self) -> dict[str, object]:
        """Keyword arguments that make this error again."""
        return super().fields() | {"waited_s": self.waited_s}


class RanksDiverged(GroupError):
    """The ranks answered one bundle with different token ids or schedules.

    Example: one rank's memory limit made it split a batch that the others kept whole.
    """

    def __init__(
        self,
        *,
        doing: str,
        cause: str,
        rank: int | None = None,
        node: str = "",
        details: str = "",
        digests: tuple[str, ...] = (),
    ) -> None:
        self.digests = digests
        super().__init__(doing=doing, cause=cause, rank=rank, node=node, details=details)

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"{self.where()} diverged during {self.doing}: {self.cause}"

    def fields(self) -> dict[str, object]:
        """Keyword arguments that make this error again."""
        return super().fields() | {"digests": self.digests}


class GroupClosed(GroupError):
    """Work was sent to a group that was already closed."""

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"the model group is closed, so it cannot {self.doing}: {self.cause}"


class RequestRefused(GroupError):
    """Every rank refused the work before its first collective; the group is still usable.

    Example: a bundle steers a layer that the model does not have.
    """

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"the model group refused to {self.doing}: {self.cause}"


class ObjectStoreFull(RequestRefused):
    """The work did not fit into Ray's object store beside what is there; the group is usable.

    Example: a bundle carries many vectors while captured rows of the last one wait to be written.
    """

    def sentence(self) -> str:
        """One sentence for the user."""
        return (
            f"Ray's object store had no room to {self.doing}: {self.cause}; lower "
            "schedule.bundle_requests, or give Ray more memory (ray start --object-store-memory)"
        )


class EngineOutOfDate(GroupError):
    """A resident group runs other engine code than the caller expects.

    Example: the engine changed on disk after ``traitmill group up``.
    """

    def __init__(
        self,
        *,
        doing: str,
        cause: str,
        rank: int | None = None,
        node: str = "",
        details: str = "",
        expected: str = "",
        found: str = "",
    ) -> None:
        self.expected = expected
        self.found = found
        super().__init__(doing=doing, cause=cause, rank=rank, node=node, details=details)

    def sentence(self) -> str:
        """One sentence for the user."""
        return f"the resident group runs engine {self.found}, not {self.expected}: {self.cause}"

    def fields(self) -> dict[str, object]:
        """Keyword arguments that make this error again."""
        return super().fields() | {"expected": self.expected, "found": self.found}
