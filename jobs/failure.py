"""What follows a failure depends on its type and on how often it happened, on nothing else.

A table, without clocks or state, so that every row can be read and tested. ``RETRY`` tries the same
work again (on a new model group, if the old one is gone); ``SPLIT`` cuts a bundle, to find the
task that kills groups; ``SKIP`` fails the task and goes on; ``STOP`` ends the run.
"""

from __future__ import annotations

import enum

from actors.errors import (
    EngineOutOfDate,
    GroupClosed,
    GroupError,
    GroupStartFailed,
    ObjectStoreFull,
    RequestRefused,
    ResourcesMissing,
)
from conf.errors import UserError
from storage.errors import StorageError

START_ATTEMPTS = 3
"""Times a model group is started in a row before the run stops."""


class Decision(enum.Enum):
    """What the scheduler does next."""

    RETRY = "retry"
    SPLIT = "split"
    SKIP = "skip"
    STOP = "stop"


class TaskFailed(Exception):  # noqa: N818 - the name says what happened
    """A task has no answer for a reason in its data; trying again would not help.

    Example: too few responses of a trait passed vetting.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str]]:
        """Keep type and message between processes."""
        return type(self), (self.message,)


def decide(
    error: BaseException, *, attempt: int, num_tasks: int = 1, max_attempts: int = 2
) -> Decision:
    """Choose what to do about one failure.

    Args:
        error: What was raised.
        attempt: Times this work has failed, this one included; 1 is the first. A part of a split
            bundle inherits the count, so a poison task costs one group more after the split.
        num_tasks: Tasks in the failed bundle; 1 for work on the CPU.
        max_attempts: Failures of one piece of work before it is split or skipped.
    """
    if isinstance(error, ResourcesMissing | StorageError | EngineOutOfDate):
        return Decision.STOP
    if isinstance(error, GroupStartFailed | GroupClosed):
        return Decision.RETRY if attempt < START_ATTEMPTS else Decision.STOP
    if isinstance(error, RequestRefused) and not isinstance(error, ObjectStoreFull):
        return Decision.SPLIT if num_tasks > 1 else Decision.SKIP
    if isinstance(error, GroupError):
        if attempt < max_attempts:
            return Decision.RETRY
        return Decision.SPLIT if num_tasks > 1 else Decision.SKIP
    if isinstance(error, UserError | TaskFailed):
        return Decision.SKIP
    if isinstance(error, OSError):
        # Connections and files: the next try may meet a better moment.
        return Decision.RETRY if attempt < max_attempts else Decision.SKIP
    return Decision.SKIP
