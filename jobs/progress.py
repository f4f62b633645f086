"""Progress is told at intervals, in numbers: done, rate, time left, and what is safe already."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from actors.request import Token
from jobs.prompting import Encoder
from jobs.report.console import Console

KEPT_TOKENS = 16
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Progress(Protocol):
    """What is told while the plan runs."""

    def update(self, *, done: int, doing: str, tokens: int) -> None:
        """Called often; decides itself when to speak."""


@dataclass
class ConsoleProgress:
    """Lines on the console, at most one every ``interval_s``."""

    console: Console
    total: int
    done_before: int
    interval_s: float
    _started_s: float = field(default_factory=time.monotonic)
    _last_s: float = field(default_factory=time.monotonic)

    def update(self, *, done: int, doing: str, tokens: int) -> None:
        """Tell how far the plan is, if enough time has passed since the last line."""
        now = time.monotonic()
        if not doing and done == self.done_before:
            self._started_s = now  # a group that starts says nothing about the speed of the work
        if now - self._last_s < self.interval_s:
            return
        self._last_s = now
        elapsed = now - self._started_s
        fresh = done - self.done_before
        left_s = elapsed / fresh * (self.total - done) if fresh > 0 else None
        self.console.progress(
            done=done,
            total=self.total,
            doing=doing or "starting a model group",
            left_s=left_s,
            rate_tokens_per_s=tokens / elapsed if tokens else None,
        )


@dataclass
class TokenPrinter:
    """Prints one completion while it is written; the others follow when they are whole.

    One character may take several tokens, so each is decoded behind those before it; of a long
    completion the last ones are enough.
    """

    console: Console
    encoder: Encoder
    _shown: str = ""
    """Request that is being printed."""
    _ids: list[int] = field(default_factory=list)
    _printed: int = 0

    def take(self, token: Token) -> None:
        """Print what the token adds, if its completion is the one being shown."""
        if not self._shown:
            self._shown = token.request_id
        if token.request_id != self._shown:
            return
        self._ids.append(token.token_id)
        text = self.encoder.text(self._ids)
        if text.endswith(_BROKEN):
            return
        self.console.write(text[self._printed :])
        self._printed = len(text)
        if len(self._ids) >= 4 * KEPT_TOKENS:
            self._forget()

    def _forget(self) -> None:
        """Drop all but the last tokens, unless that would cut a character in two."""
        text = self.encoder.text(self._ids[-KEPT_TOKENS:])
        if not text.startswith(_BROKEN):
            self._ids, self._printed = self._ids[-KEPT_TOKENS:], len(text)
