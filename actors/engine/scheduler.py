"""Which rows the next forward has: a pure function of the bundle, equal on every rank.

A sequence is waiting, running or finished. Each step takes one row of every running sequence that
only lacks its newest token (decode) and, besides, chunks of those that lack more (prefill), within
``max_batch_tokens``: decode rows cost prompts no room, or full batches of prompts would leave
crumbs that take a forward of their own. Admission is first come, first served and by pages. When
pages run out, the youngest running sequence gives its pages back and waits again; it keeps its
tokens, so running it again loses nothing. Nothing here reads a clock, a GPU or a random number.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.engine.pages import PageTable, prefix_keys
from actors.engine.patience import Patience
from actors.engine.sequence import Sequence, Span
from actors.engine.waiting import Queue


class Scheduler:
    """First come, first served, by pages; the youngest is preempted."""

    def __init__(self, pages: PageTable, *, max_tokens: int, max_sequences: int) -> None:
        self.pages = pages
        self.max_tokens = max_tokens
        self.max_sequences = max_sequences
        self.waiting: Queue[Sequence] = Queue()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._patience = Patience()
        self._num_admitted = 0
        """Sequences that the last admission let in."""

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Queue sequences in order; an iterator is read as the queue moves on."""
        self.waiting.extend(sequences)

    @property
    def has_work(self) -> bool:
        """True until every sequence is finished."""
        return bool(self.waiting or self.running)

    def next_step(self) -> list[Span]:
        """Rows of the next forward: decode rows first, then prefill chunks.

        Raises:
            RuntimeError: A sequence that fits no empty cache was let in; a bug, since admission
                checks lengths before a bundle starts.
        """
        budget = self.max_tokens
        decode: list[Span] = []
        prefill: list[Span] = []
        for sequence in list(self.running):
            if not sequence.is_running:
                continue  # preempted to make room for an older one
            decodes = sequence.num_missing == 1
            take = 1 if decodes else min(sequence.num_missing, budget)
            if take == 0 or not self._grow(sequence, sequence.num_computed + take):
                continue
            span = Span(sequence, sequence.num_computed, sequence.num_computed + take)
            (decode if decodes else prefill).append(span)
            self._publish(span)
            budget -= 0 if decodes else take
        # The youngest gives way, so no sequence loses its pages after its span was planned.
        num_admitted = 0
        while budget > 0 and self.waiting and len(self.running) < self.max_sequences:
            span_or_none = self._admit(self.waiting.first(), budget)
            if span_or_none is None:
                break
            num_admitted += 1
            prefill.append(span_or_none)
            budget -= span_or_none.stop - span_or_none.start
        is_cut = budget <= 0 and self._head_fits(0)
        self._patience.begin(len(self.running), is_cut=is_cut)
        self._num_admitted = num_admitted or self._num_admitted
        if not decode and not prefill and self.has_work:
            raise RuntimeError("no sequence fits the cache; admission let too long a request in")
        return decode + prefill

    def _admit(self, sequence: Sequence, budget: int) -> Span | None:
        """Move the head of the queue into the batch, sharing the pages of a known prefix."""
        shared = self._shared_pages(sequence)
        start = len(shared) * self.pages.page_size
        stop = min(len(sequence.tokens), start + budget)
        # Keep one page in hand for each running sequence, or admission and preemption alternate.
        needed = self.pages.pages_for(sequence.num_needed) - len(shared)
        if needed > self.pages.num_free - len(self.running):
            self.pages.release(shared)
            return None
        self.waiting.pop()
        self.running.append(sequence)
        sequence.is_running = True
        sequence.pages = shared
        sequence.num_computed = start
        self._grow(sequence, len(sequence.tokens))  # all of it, or the next could take its pages
        span = Span(sequence, start, stop)
        self._publish(span)
        return span

    def look_ahead(self) -> None:
        """Make as many sequences as came in last, before they are let in: work for idle moments."""
        self.waiting.has(self._num_admitted)
        for sequence in self.waiting.made():
            self._make_keys(sequence)

    def would_admit(self, *, ending: int = 0) -> bool:
        """True when it is time to let the head of the queue in (shared pages not counted).

        Letting in costs a forward of the general kind. So places of sequences that ended are left
        empty until they have cost as much, or until all that wait have room.

        Args:
            ending: Running sequences that are known to end before anybody could come in.
        """
        if not self._head_fits(ending):
            return False
        room = self.max_sequences - len(self.running) + ending
        return self._patience.is_over or not self.waiting.has(room + 1)

    @property
    def may_admit_soon(self) -> bool:
        """True when empty places only wait until they are worth a forward."""
        return len(self.running) < self._patience.most and self._head_fits(0)

    @property
    def may_go_ahead(self) -> bool:
        """True when a forward can be planned whatever the one before it chooses.

        There are rows of prompts to run, and nobody has to give pages back. Who waits for a newest
        token sits that forward out.
        """
        in_chunks = any(s.num_missing > 1 for s in self.running)
        starts = bool(self.waiting) and not self.running
        if not (in_chunks or starts or self.would_admit()):
            return False
        return sum(self._missing_pages(1)) <= self.pages.num_free

    def _head_fits(self, ending: int) -> bool:
        if not self.waiting or len(self.running) - ending >= self.max_sequences:
            return False
        needed = self.pages.pages_for(self.waiting.first().num_needed)
        return needed <= self.pages.num_free - (len(self.running) - ending)

    def note_steps(self, num_steps: int) -> None:
        """Book decode steps that ran without an admission."""
        self._patience.note_steps(num_steps, len(self.running))

    def reserve(self, num_steps: int, *, ahead: int = 0) -> int:
        """Own pages for up to ``num_steps`` further rows of every running sequence.

        Args:
            num_steps: Rows wanted; a sequence has no pages beyond its longest length.
            ahead: Rows that are on their way already, before those.

        Returns:
            The steps that fit without preempting anybody; 0 when not even one does.
        """
        steps = num_steps
        while steps:
            missing = self._missing_pages(ahead + steps)
            if sum(missing) <= self.pages.num_free:
                for sequence, count in zip(self.running, missing, strict=True):
                    if count:
                        sequence.pages += self.pages.allocate(count)
                break
            steps //= 2
        return steps

    def _missing_pages(self, steps: int) -> list[int]:
        """Pages that each running sequence lacks for so many further rows."""
        pages_for = self.pages.pages_for
        return [max(0, pages_for(s.most_computed(steps)) - len(s.pages)) for s in self.running]

    def _shared_pages(self, sequence: Sequence) -> list[int]:
        self._make_keys(sequence)
        if not sequence.shares_prefix:
            return []
        shared: list[int] = []
        last = (len(sequence.tokens) - 1) // self.pages.page_size  # one row must remain to run
        for key in sequence.page_keys[:last]:
            page = self.pages.share(key)
            if page is None:
                break
            shared.append(page)
        return shared

    def _make_keys(self, sequence: Sequence) -> None:
        if len(sequence.page_keys) < len(sequence.request.token_ids) // self.pages.page_size:
            sequence.page_keys = prefix_keys(
                sequence.request.token_ids,
                self.pages.page_size,
                sequence.steering_key,
                sequence.steering_starts,
            )

    def _grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Own pages for ``num_tokens`` tokens; False when the sequence itself was preempted."""
        wanted = self.pages.pages_for(num_tokens)
        while len(sequence.pages) < wanted:
            found = self.pages.allocate(wanted - len(sequence.pages))
            sequence.pages += found
            if not found:
                victim = self.running[-1]
                self._preempt(victim)
                if victim is sequence:
                    return False
        return True

    def _publish(self, span: Span) -> None:
        """Offer the pages that this step completes.

        Keys and values of all rows are written before any row of the layer attends, so a sequence
        of the same step may already share them.
        """
        keys, size = span.sequence.page_keys, self.pages.page_size
        first, stop = span.start // size, min(span.stop // size, len(keys))
        if first < stop:
            self.pages.publish(span.sequence.pages[first:stop], keys[first:stop])

    def _preempt(self, victim: Sequence) -> None:
        self.running.remove(victim)
        victim.is_running = False
        self.pages.release(victim.pages)
        victim.pages = []
        victim.num_computed = 0
        self.waiting.push(victim)
        self.num_preemptions += 1

    def finish(self, sequence: Sequence) -> None:
        """Take a done sequence out and free its pages."""
        self.running.remove(sequence)
        sequence.is_running = False
        self.pages.release(sequence.pages)
        sequence.pages = []
