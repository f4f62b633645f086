"""One bundle while it runs: what its sequences gather, and when each is over.

Everything here is host work that every rank does alike; nothing is collective.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from actors.engine.agreement import Comparison
from actors.engine.asked import asked, rows_of_spans
from actors.engine.bank import Bank, build_bank
from actors.engine.burst import Burst, BurstResult
from actors.engine.capture import Capturer
from actors.engine.endings import Endings
from actors.engine.launched import Launched
from actors.engine.results import build_result, failed
from actors.engine.sampler import Sampled, wants_logprobs
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence, Span
from actors.engine.steer import Plan
from actors.engine.stops import Decode
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
        self.given: Comparison | None = None
        """Whether all ranks were given this bundle; looked at before the first forward."""
        self.launched: Launched | None = None
        """A forward whose tokens are not booked, behind the one that was booked last."""
        self._all = bundle.requests
        self._endings = Endings(self.capturer, eos_ids=eos_ids, decode=decode, on_token=on_token)
        self._digest = hashlib.sha256(asked(valid, self.bank))
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
        self._endings.open(request.id)
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

    def check_given(self) -> None:
        """Make sure, once, that all ranks were given this bundle.

        Raises:
            RanksDisagree: They were not.
        """
        if self.given is not None:
            self.given.check()
            self.given = None

    def launch_step(self, spans: SequenceOf[Span]) -> None:
        """Book rows of a general step that are on their way.

        Who needs no row after them gives up its place and its pages: the device runs what takes
        them later.
        """
        for span in spans:
            sequence = span.sequence
            sequence.num_computed = span.stop
            sequence.num_captured = max(sequence.num_captured, span.stop)
            if self._endings.needs_no_more(sequence, samples=span.samples):
                self.scheduler.finish(sequence)

    def take_step(
        self,
        spans: SequenceOf[Span],
        sampling: SequenceOf[Sequence],
        sampled: Sampled | None,
    ) -> None:
        """Book a general step that was launched: its choices, on the host."""
        tokens: list[int] = sampled.token_ids.tolist() if sampled is not None else []
        self._digest.update(repr((self.num_steps, rows_of_spans(spans), tokens)).encode())
        for row, (sequence, token) in enumerate(zip(sampling, tokens, strict=True)):
            if sampled is not None and token >= 0 and wants_logprobs(sequence):
                self._endings.outcomes[sequence.request.id].take_logprobs(sampled, row)
            self._endings.take(sequence, token)
        self.num_steps += 1
        # Of a sequence that a later forward has rows of, the end comes with that one.
        here = [s.sequence for s in spans if s.stop == s.sequence.num_computed]
        self._retire([s for s in here if s.is_done])

    def take_burst(self, burst: Burst, result: BurstResult) -> None:
        """Book a burst; what a row did after its sequence's end is dropped."""
        counts = np.zeros(len(result.sequences), np.int64)
        columns = result.tokens.T.tolist()
        for row, sequence in enumerate(result.sequences):
            if sequence.is_done:
                continue
            num_rows = self._endings.take_column(sequence, columns[row])
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

    def _retire(self, sequences: list[Sequence]) -> None:
        """Free what ended sequences hold; their results are made when their values have come."""
        if self.burst is not None:
            self.burst.collect(sequences)
        self.capturer.settle(sequences)
        for sequence in sequences:
            if sequence.is_running:
                self.scheduler.finish(sequence)
            self._endings.close(sequence.request.id)
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
            self._endings.outcomes.pop(sequence.request.id),
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


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads on this thread's GPU: a new thread's own would be GPU 0, whosever that is."""
    device = torch.cuda.current_device()
    return ThreadPoolExecutor(count, initializer=torch.cuda.set_device, initargs=(device,))
