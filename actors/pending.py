"""A bundle on its way: it ends exactly once, in a reply or in an error."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from actors.errors import GroupError
from actors.rank_report import RankAnswer
from actors.request import Bundle, ModelInfo, Reply, Token
from actors.watch import Watch


class Answer(Protocol):
    """A bundle on its way, as those see it who only wait for it."""

    @property
    def is_done(self) -> bool:
        """True once there is a reply or an error."""
        ...

    @property
    def blamed(self) -> bool:
        """True when the group failed while this bundle was running."""
        ...

    @property
    def error(self) -> GroupError | None:
        """Why there is no reply."""
        ...

    def reply(self) -> Reply:
        """The answer; raises the error when there is none."""
        ...


class Group(Protocol):
    """What answers bundles: ``ModelGroup``, or a resident one through its supervisor."""

    info: ModelInfo

    def submit(self, bundle: Bundle) -> Any:  # noqa: ANN401 - the group's own kind of Answer
        """Queue a bundle."""
        ...

    def wait(self, pendings: Sequence[Any], timeout_s: float | None = None) -> Sequence[Any]:
        """Those that are done, or none when time is up."""
        ...

    def check(self) -> None:
        """Raise if a rank died while the group was idle."""
        ...

    def close(self) -> None:
        """Let go of the group."""
        ...


class Pending:
    """One submitted bundle.

    Attributes:
        bundle_id: Of the bundle.
        blamed: True when the group failed while this bundle was running. Those that only waited
            behind it are innocent: they failed with the group and may be sent again.
        sequence: Number of the bundle in the group's life; 0 before it is sent.
        payload: What is sent to the ranks; None before it is packed.
        engine_s: Seconds inside the engine, on rank 0.
        idle_s: Seconds rank 0 had nothing to do before this bundle.
    """

    def __init__(
        self, bundle: Bundle, *, watch: Watch, stream: bool = False, hold_rows: bool = False
    ) -> None:
        self.bundle_id = bundle.id
        self.bundle = bundle
        self.stream = stream
        self.hold_rows = hold_rows
        self.sequence = 0
        self.payload: Any = None
        self.watch = watch
        self.refs: dict[Any, int] = {}
        self.blamed = False
        self.engine_s = 0.0
        self.idle_s = 0.0
        self.submitted_s = time.monotonic()
        self.finished_s: float | None = None
        self._tokens: deque[Token] = deque()
        self._reply: Reply | None = None
        self._error: GroupError | None = None

    @property
    def is_done(self) -> bool:
        """True once there is a reply or an error."""
        return self._reply is not None or self._error is not None

    @property
    def is_sent(self) -> bool:
        """True once the ranks have it."""
        return bool(self.refs)

    @property
    def error(self) -> GroupError | None:
        """Why there is no reply; None while it is open or answered."""
        return self._error

    def reply(self) -> Reply:
        """The answer.

        Raises:
            GroupError: The group failed or refused the bundle.
            RuntimeError: The bundle is not done.
        """
        if self._error is not None:
            raise self._error
        if self._reply is None:
            raise RuntimeError(f"bundle {self.bundle_id} is not done; wait for it first")
        return self._reply

    def add_token(self, token: Token) -> None:
        """Keep a streamed token until it is taken."""
        self._tokens.append(token)

    def take_tokens(self) -> list[Token]:
        """Streamed tokens that came since the last call."""
        taken = list(self._tokens)
        self._tokens.clear()
        return taken

    def finish(self, answer: RankAnswer) -> None:
        """End with rank 0's answer."""
        self._reply = answer.reply
        self.engine_s, self.idle_s = answer.engine_s, answer.idle_s
        self._close()

    def fail(self, error: GroupError, *, blamed: bool) -> None:
        """End with an error."""
        self._error, self.blamed = error, blamed
        self._close()

    def _close(self) -> None:
        """Drop what Ray would otherwise keep in its object store."""
        self.finished_s = time.monotonic()
        self.refs, self.payload = {}, None
