"""What travels between the scheduler and a model group: bundles out, and every one of them back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from actors.errors import GroupError
from actors.request import Bundle, Reply, Token


class Answer(Protocol):
    """A bundle on its way (``actors.pending.Pending``)."""

    bundle_id: str
    blamed: bool

    @property
    def is_done(self) -> bool:
        """True once there is a reply or an error."""

    @property
    def error(self) -> GroupError | None:
        """Why there is no reply."""

    def reply(self) -> Reply:
        """The reply."""

    def take_tokens(self) -> list[Token]:
        """Streamed tokens that came since the last call."""


class Group(Protocol):
    """The part of ``actors.group.ModelGroup`` that is used."""

    def submit(self, bundle: Bundle, *, stream: bool = False) -> Answer:
        """Queue a bundle."""

    def wait(self, pendings: Sequence[Answer], timeout_s: float | None = None) -> list[Answer]:
        """Those that are done, or none when time is up."""

    def check(self) -> None:
        """Raise if a rank died while the group was idle."""

    def close(self) -> None:
        """End every rank."""


class Seat(NamedTuple):
    """Which group to start."""

    number: int
    """1 is the first group of the run; a replacement has a number of its own."""
    place: int
    """1 to the number of groups at once; a replacement takes the place of the dead."""
    role: str
    """Which of the run's models."""
    cancelled: threading.Event
    """Set when the group is not wanted any more, also while it starts."""


class Flight(NamedTuple):
    """One bundle that is at a group, or was."""

    load: object
    """What the sender wants back with the answer."""
    answer: Answer
    began: float
    """Seconds since the epoch."""
    group_name: str
    """Of the group, for the record of attempts."""


@dataclass
class Dropped:
    """The answer to a bundle whose group ended before it could say anything about it."""

    bundle_id: str
    error: GroupError
    is_done: bool = True
    blamed: bool = False

    def reply(self) -> Reply:
        """There is none."""
        raise self.error

    def take_tokens(self) -> list[Token]:
        """There are none."""
        return []


StartGroup: TypeAlias = Callable[[Seat], Group]
"""Raises ``GroupError`` or ``UserError`` when the group does not start."""
