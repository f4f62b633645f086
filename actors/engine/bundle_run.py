"""One bundle while it runs: what its sequences gather, and when each is over.

Everything here is host work that every rank does alike; nothing is collective.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from actors.engine.asked import asked, rows_of_spans
from actors.engine.bank import Bank, build_bank
from actors.engine.burst import Burst, BurstResult
from actors.engine.capture import Capturer
from actors.engine.results import Outcome, build_result, failed
from actors.engine.sampler import NOT_FINITE, Sampled, wants_logprobs
from actors.engine.scheduler import Scheduler, Sequence, Span
from actors.engine.steer import Plan
from actors.engine.stops import Decode, StopWatch
from actors.request import Bundle, Reply, RequestError, Result, Token

MAX_THREADS = 8
"""Threads that put kept rows together; a rank's own threads at most."""


class BundleRun:
    """Sequences, schedule, steering and captures of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        errors: dict[str, RequestError],
        *,
        scheduler: Scheduler,
        width: int,
        max_tokens: int,
        eos_ids: tuple[int, ...],
        device: torch.device,
        answers: bool,
        share: tuple[int, int] | None,
        decode: Decode | None,
        on_token: Callable[[Token], None] | None,
    ) -> None:
        valid = tuple(r for r in bundle.requests if r.id not in errors)
        self.bundle = Bundle(id=bundle.id, requests=valid, vectors=bundle.vectors)
        self.bank: Bank = build_bank(self.bundle, width, device)
        self.plan: Plan = Plan(self.bank, max_tokens)
        self.capturer = Capturer(self.bundle, self.bank, device, answers=answers, share=share)
        self.scheduler = scheduler
        self.burst: Burst | None = None
        self._all = bundle.requests
        self._eos_ids = eos_ids
        self._decode = decode
        self._on_token = on_token
        self._started = time.perf_counter()
        self._digest = hashlib.sha256(asked(valid, self.bank))
        self._outcomes: dict[str, Outcome] = {}
        self._watches: dict[str, StopWatch] = {}
        self._results: dict[str, Result] = {}
        self._ended: deque[Sequence] = deque()
        self._making: list[Future[None]] = []
        # Rows from a GPU are put together while it goes on; torch and numpy copy without the GIL.
        wants_threads = device.type == "cuda" and bool(self.capturer.raw_layers)
        count = min(MAX_THREADS, torch.get_num_threads())
        self._threads = _threads(count) if wants_threads else None
        self.num_steps = self.num_prefill = self.num_decode = 0
        self.prefill_s = self.decode_s = 0.0
        for request in bundle.requests:
            if request.id in errors:
                self._results[request.id] = failed(request, errors[request.id])
        scheduler.add(self._sequence(i) for i in range(len(valid)))

    def _sequence(self, index: int) -> Sequence:
        """Made shortly before the request may come in: until then it takes no memory."""
        request = self.bundle.requests[index]
        self._outcomes[request.id] = Outcome()
        self.plan.open(request)
        # Known completion tokens lie on shared pages too, so they count as the prompt does.
        key, first = self.plan.prefix_key(request, len(request.token_ids))
        tokens = list(request.token_ids)
        reads_prompt = self.capturer.reads_any(request, 0, len(tokens) - 1)
        sequence = Sequence(
            request=request,
            index=index,
            tokens=tokens,
            shares_prefix=not reads_prompt,
            steering_key=key,
            steering_starts=first,
        )
        if request.sampling.max_new_tokens == 0:
            sequence.finish_reason = "length"
            sequence.needs_last_row = True
        return sequence

    def digest(self, spans: SequenceOf[Span] = ()) -> bytes:
        """sha256 over what was asked, ran and came out so far, and the rows that are to run next.

        Equal on every rank before a forward: ranks that would run other rows are told apart before
        they meet in a collective of another shape.
        """
        found = self._digest.copy()
        if spans:
            found.update(repr((self.num_steps, rows_of_spans(spans))).encode())
        return found.digest()

    def take_step(
        self,
        spans: SequenceOf[Span],
        sampling: SequenceOf[Sequence],
        sampled: Sampled | None,
        tokens: list[int],
    ) -> None:
        """Book a general step: rows that ran and tokens that were chosen."""
        for span in spans:
            span.sequence.num_computed = span.stop
            span.sequence.num_captured = max(span.sequence.num_captured, span.stop)
        self._digest.update(repr((self.num_steps, rows_of_spans(spans), tokens)).encode())
        sampled = sampled.on_host() if sampled is not None else None
        for row, (sequence, token) in enumerate(zip(sampling, tokens, strict=True)):
            if sampled is not None and token >= 0 and wants_logprobs(sequence):
                self._outcomes[sequence.request.id].take_logprobs(sampled, row)
            self._accept(sequence, token)
        self.num_steps += 1
        self._retire([s.sequence for s in spans if s.sequence.is_done])

    def take_burst(self, burst: Burst, result: BurstResult) -> None:
        """Book a burst; what a row did after its sequence's end is dropped."""
        counts = np.zeros(len(result.sequences), np.int64)
        columns = result.tokens.T.tolist()
        for row, sequence in enumerate(result.sequences):
            if sequence.is_done:
                continue
            num_rows = self._take_column(sequence, columns[row])
            burst.note_rows(result, row, num_rows)
            sequence.num_computed += num_rows
            sequence.num_captured = max(sequence.num_captured, sequence.num_computed)
            counts[row] = num_rows
        steps = np.arange(len(result.tokens))[:, None]
        counted = np.where(steps < counts, result.tokens, 0)
        order = np.array([s.index for s in result.sequences], np.int64)
        self._digest.update(repr((self.num_steps, counted.shape)).encode())
        self._digest.update(order.tobytes() + counts.tobytes() + counted.tobytes())
        self.num_decode += int(counts.sum())
        self.num_steps += len(result.tokens)
        ended = zip(result.sequences, counts, strict=True)
        self._retire([s for s, count in ended if count and s.is_done])

    def _take_column(self, sequence: Sequence, column: list[int]) -> int:
        """Append one row's tokens of a burst; returns how many of its rows count."""
        if sequence.finish_reason is not None:
            self._note_last_row(sequence, column[0])
            return 1  # only the last token's own row was left to run
        number = self._accept_all(sequence, column)
        if not sequence.needs_last_row or number == len(column):
            return number
        self._note_last_row(sequence, column[number])
        return number + 1

    def _accept_all(self, sequence: Sequence, tokens: list[int]) -> int:
        """Append tokens up to the sequence's end; returns how many were looked at."""
        request = sequence.request
        if self._on_token is not None or request.sampling.stop_strings:
            return next(
                (n for n, t in enumerate(tokens, start=1) if self._accept(sequence, t)), len(tokens)
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
            self._accept(sequence, tokens[0])  # which notes when it came
            first = 1
        sequence.tokens += tokens[first : stop - 1]
        self._accept(sequence, tokens[stop - 1])
        return stop

    def _note_last_row(self, sequence: Sequence, token: int) -> None:
        """What the last token's row would choose is dropped, but not that it is no number."""
        if token < 0:
            self._outcomes[sequence.request.id].is_finite = False

    def _accept(self, sequence: Sequence, token: int) -> bool:
        """Append one chosen token; returns whether the sequence is over."""
        sampling = sequence.request.sampling
        count = sequence.num_completion + 1
        if count == 1 or token < 0:
            outcome = self._outcomes[sequence.request.id]
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
            sequence.needs_last_row = self.capturer.may_read(sequence.request, last)
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

    def _retire(self, sequences: list[Sequence]) -> None:
        """Free what ended sequences hold; their results are made when their values have come."""
        if self.burst is not None:
            self.burst.collect(sequences)
        self.capturer.settle(sequences)
        for sequence in sequences:
            self.scheduler.finish(sequence)
            outcome = self._outcomes[sequence.request.id]
            self._watches.pop(sequence.request.id, None)
            outcome.finished_s = time.perf_counter() - self._started
            if self._threads is not None and self.capturer.keeps_rows(sequence):
                self._making.append(self._threads.submit(self._finish, sequence))
            else:
                self._ended.append(sequence)

    def while_waiting(self) -> None:
        """Host work while the device is busy: the queue's next, and results that can be made."""
        self.scheduler.look_ahead()
        while self._ended and self.capturer.has_come(self._ended[0]):
            self._finish(self._ended.popleft())

    def _finish(self, sequence: Sequence) -> None:
        captures, bad = self.capturer.results(sequence)
        self._results[sequence.request.id] = build_result(
            sequence,
            self._outcomes.pop(sequence.request.id),
            captures=captures,
            receipts=self.plan.receipts(sequence.request),
            num_non_finite=bad,
        )
        self.plan.close(sequence.request)

    def reply(self) -> Reply:
        """The bundle's answer, once no sequence has work left."""
        while self._ended:
            self._finish(self._ended.popleft())
        for future in self._making:
            future.result()
        if self._threads is not None:
            self._threads.shutdown()
        # The burst knows this run and this run the burst: apart, both and all that they hold are
        # gone with the last reference. Pinned memory that waits for the collector is taken anew.
        self.burst = None
        return Reply(
            bundle_id=self.bundle.id,
            results=tuple(self._results[r.id] for r in self._all if r.id in self._results),
            moments=self.capturer.moments(),
            digest=self._digest.hexdigest(),
            num_steps=self.num_steps,
            num_prefill_tokens=self.num_prefill,
            num_decode_tokens=self.num_decode,
            prefill_s=self.prefill_s,
            decode_s=self.decode_s,
        )


@lru_cache(maxsize=256)
def _ends(stop_ids: tuple[int, ...], eos_ids: tuple[int, ...]) -> frozenset[int]:
    """What ends a row of a burst."""
    return frozenset((NOT_FINITE, *stop_ids, *eos_ids))


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads on this thread's GPU: a new thread's own would be GPU 0, whosever that is."""
    device = torch.cuda.current_device()
    return ThreadPoolExecutor(count, initializer=torch.cuda.set_device, initargs=(device,))
