"""Chosen tokens are appended to their sequences until each is over, and why it is over is noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

from actors.engine.capture import Capturer
from actors.engine.results import Outcome
from actors.engine.sampler import NOT_FINITE
from actors.engine.sequence import Sequence
from actors.engine.stops import Decode, StopWatch
from actors.request import Token


class Endings:
    """What one bundle's sequences chose, and when each ends."""

    def __init__(
        self,
        capturer: Capturer,
        *,
        eos_ids: tuple[int, ...],
        decode: Decode | None,
        on_token: Callable[[Token], None] | None,
    ) -> None:
        self.outcomes: dict[str, Outcome] = {}
        """Of every request that is made and has no result yet."""
        self._capturer = capturer
        self._eos_ids = eos_ids
        self._decode = decode
        self._on_token = on_token
        self._started = time.perf_counter()
        self._watches: dict[str, StopWatch] = {}

    def open(self, request_id: str) -> None:
        """Expect tokens of a request."""
        self.outcomes[request_id] = Outcome()

    def close(self, request_id: str) -> None:
        """Note that a request needs no row more."""
        self._watches.pop(request_id, None)
        self.outcomes[request_id].finished_s = time.perf_counter() - self._started

    def needs_no_more(self, sequence: Sequence, *, samples: bool) -> bool:
        """True when a sequence has run its last row, whatever token that row chooses."""
        if sequence.is_done or not samples:
            return sequence.is_done
        chosen_at = len(sequence.tokens)
        is_last = chosen_at + 1 >= sequence.longest
        return is_last and not self._capturer.may_read(sequence.request, chosen_at)

    def take_column(self, sequence: Sequence, column: list[int]) -> int:
        """Append one row's tokens of a burst; returns how many of its rows count."""
        if sequence.finish_reason is not None:
            self._note_last_row(sequence, column[0])
            return 1  # only the last token's own row was left to run
        number = self.take_all(sequence, column)
        if not sequence.needs_last_row or number == len(column):
            return number
        self._note_last_row(sequence, column[number])
        return number + 1

    def take_all(self, sequence: Sequence, tokens: list[int]) -> int:
        """Append tokens up to the sequence's end; returns how many were looked at."""
        request = sequence.request
        if self._on_token is not None or request.sampling.stop_strings:
            return next(
                (n for n, t in enumerate(tokens, start=1) if self.take(sequence, t)), len(tokens)
            )
        # Nobody looks at the tokens between the first and the one that is the last.
        room = sequence.longest - len(sequence.tokens)
        ignores = request.sampling.ignore_eos
        ends = _ends(request.sampling.stop_ids, () if ignores else self._eos_ids)
        stop = min(len(tokens), max(room, 1))
        if not ends.isdisjoint(tokens):
            stop = next((n for n, t in enumerate(tokens[:stop], start=1) if t in ends), stop)
        first = 0
        if stop > 1 and not sequence.num_completion:
            self.take(sequence, tokens[0])  # which notes when it came
            first = 1
        sequence.tokens += tokens[first : stop - 1]
        self.take(sequence, tokens[stop - 1])
        return stop

    def _note_last_row(self, sequence: Sequence, token: int) -> None:
        """What the last token's row would choose is dropped, but not that it is no number."""
        if token < 0:
            self.outcomes[sequence.request.id].is_finite = False

    def take(self, sequence: Sequence, token: int) -> bool:
        """Append one chosen token; returns whether the sequence is over."""
        sampling = sequence.request.sampling
        count = sequence.num_completion + 1
        if count == 1 or token < 0:
            outcome = self.outcomes[sequence.request.id]
            outcome.first_token_s = outcome.first_token_s or time.perf_counter() - self._started
            outcome.is_finite = outcome.is_finite and token >= 0
        if token < 0:
            sequence.finish_reason = "error"
            return True
        sequence.tokens.append(token)
        if self._on_token is not None:
            made = Token(request_id=sequence.request.id, index=count - 1, token_id=token)
            self._on_token(made)
        if token in self._eos_ids and not sampling.ignore_eos:
            sequence.finish_reason = "eos"
        elif token in sampling.stop_ids or self._hits_stop_string(sequence):
            sequence.finish_reason = "stop"
        elif count >= sampling.max_new_tokens:
            sequence.finish_reason = "length"
        if sequence.finish_reason:
            last = len(sequence.tokens) - 1
            sequence.needs_last_row = self._capturer.may_read(sequence.request, last)
        return sequence.finish_reason is not None

    def _hits_stop_string(self, sequence: Sequence) -> bool:
        request = sequence.request
        if not request.sampling.stop_strings or self._decode is None:
            return False
        watch = self._watches.get(request.id)
        if watch is None:
            watch = StopWatch(request.sampling.stop_strings, self._decode)
            self._watches[request.id] = watch
        return watch.hits(sequence.tokens, len(request.token_ids))


@lru_cache(maxsize=256)
def _ends(stop_ids: tuple[int, ...], eos_ids: tuple[int, ...]) -> frozenset[int]:
    """What ends a row of a burst."""
    return frozenset((NOT_FINITE, *stop_ids, *eos_ids))
