"""A job talks to a resident group as to its own; if the supervisor is gone, every bundle says so.

How a call reaches the supervisor is passed in, so nothing here needs Ray.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from actors.errors import GroupClosed, GroupError, GroupStartFailed
from actors.group_spec import GroupState
from actors.request import Bundle, ModelInfo, Reply, Token
from actors.residence import Outcome
from conf.errors import UserError

LONG_POLL_S = 5.0
"""One question for results stays open so long."""
Call = Callable[..., dict[str, Any]]
"""``call(method, payload)``: the answer, or ``GroupClosed`` when the supervisor is gone."""


class RemotePending:
    """A bundle on its way at a supervisor."""

    def __init__(self, bundle_id: str, *, stream: bool = False) -> None:
        self.bundle_id = bundle_id
        self.ticket = ""
        self._tokens: list[Token] = []
        self._stream = stream
        self._outcome: Outcome | None = None

    @property
    def is_done(self) -> bool:
        """True once there is a reply or an error."""
        return self._outcome is not None

    @property
    def blamed(self) -> bool:
        """True when the group failed while this bundle was running alone."""
        return self._outcome is not None and self._outcome.blamed

    @property
    def error(self) -> GroupError | None:
        """Why there is no reply."""
        error = None if self._outcome is None else self._outcome.error
        if isinstance(error, UserError):
            return GroupStartFailed(doing="load", cause=error.message)
        return error if isinstance(error, GroupError) else None

    def reply(self) -> Reply:
        """The answer.

        Raises:
            GroupError: The group failed or refused the bundle.
            RuntimeError: The bundle is not done.
        """
        if self.error is not None:
            raise self.error
        if self._outcome is None or self._outcome.reply is None:
            raise RuntimeError(f"bundle {self.bundle_id} is not done; wait for it first")
        return self._outcome.reply

    def take_tokens(self) -> list[Token]:
        """Tokens that came since the last call."""
        taken, self._tokens = self._tokens, []
        return taken

    def end(self, outcome: Outcome) -> None:
        """Take the outcome."""
        self._outcome = outcome
        if self._stream and outcome.reply is not None:
            self._tokens = [
                Token(request_id=one.id, index=i, token_id=token)
                for one in outcome.reply.results
                for i, token in enumerate(one.completion_ids)
            ]


class ResidentGroup:
    """A resident group as a job sees it: like a ``ModelGroup``, but ``close`` only leaves."""

    def __init__(self, call: Call, *, priority: int = 0, label: str = "job", run: str = "") -> None:
        """Args: ``label`` is what people read in the queue, made unique by a few digits."""
        self._call = call
        self._run = run
        self._priority = priority
        self._job = f"{label}-{uuid.uuid4().hex[:8]}"
        self.state = GroupState.READY
        self.info: ModelInfo = self._wait_until_ready()

    def submit(self, bundle: Bundle, *, stream: bool = False) -> RemotePending:
        """Queue a bundle behind those of this job; a lost supervisor shows in its error.

        Streamed tokens come all at once, at the end of the bundle.
        """
        payload = {
            "job": self._job,
            "bundle": pickle.dumps(bundle),
            "priority": self._priority,
            "run": self._run,
        }
        pending = RemotePending(bundle.id, stream=stream)
        try:
            pending.ticket = self._call("submit", payload)["ticket"]
        except GroupClosed as error:
            self.state = GroupState.FAILED
            pending.end(Outcome(error=error))
        return pending

    def wait(
        self, pendings: Sequence[RemotePending], timeout_s: float | None = None
    ) -> list[RemotePending]:
        """Wait until one of these is done or time is up; returns those that are done."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while pendings and not any(one.is_done for one in pendings):
            left_s = LONG_POLL_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                break
            self._poll(pendings, min(left_s, LONG_POLL_S))
        return [one for one in pendings if one.is_done]

    def run(self, bundle: Bundle) -> Reply:
        """Answer one bundle."""
        pending = self.submit(bundle)
        self.wait([pending])
        return pending.reply()

    def check(self) -> None:
        """Look whether the supervisor is there.

        Raises:
            GroupClosed: It is gone.
        """
        self.status()

    def status(self) -> dict[str, Any]:
        """Where everything stands."""
        return self._call("info")

    def close(self) -> None:
        """Leave: drop what this job has waiting. The group stays up for others."""
        if not self.state.is_terminal:
            self.state = GroupState.CLOSED
            try:
                self._call("cancel", {"job": self._job})
            except GroupClosed:
                return

    def stop(self) -> None:
        """End the group for everybody."""
        self.state = GroupState.CLOSED
        self._call("close")

    def _poll(self, pendings: Sequence[RemotePending], timeout_s: float) -> None:
        """Ask for outcomes once; if the supervisor is gone, that is the outcome."""
        tickets = {one.ticket: one for one in pendings if not one.is_done}
        payload = {"job": self._job, "tickets": list(tickets), "timeout_s": timeout_s}
        try:
            done = self._call("result", payload)["done"]
        except GroupClosed as error:
            self.state = GroupState.FAILED
            for pending in tickets.values():
                pending.end(Outcome(error=error))
            return
        for ticket, outcome in done.items():
            tickets[ticket].end(pickle.loads(outcome))

    def _wait_until_ready(self) -> ModelInfo:
        """Wait while the group loads.

        Raises:
            GroupStartFailed: It did not start.
        """
        while True:
            status = self.status()
            if status["model"] is not None:
                return ModelInfo(**status["model"])
            if status["state"] not in ("starting", "ready"):
                raise GroupStartFailed(doing="load", cause=str(status["error"]))
            time.sleep(0.2)
