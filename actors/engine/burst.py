"""Several decode steps of all running sequences without waiting for the host in between.

A burst runs when every running sequence lacks one token and asks for nothing that the fused step
cannot do; anything else takes the general step, which gives the same answer. The device itself sees
end-of-sequence tokens and length limits, so a row that is over captures nothing more; the host
reads the tokens once per burst and drops what came after the end.

While a burst runs, the next one of the same rows is launched behind it: the device knows their
newest tokens, the host need not. So the device does not stand still while the host books a burst.
In the same way a burst follows a general forward, where the newest token of every running sequence
is on the device or known.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.bank import Bank
from actors.engine.burst_fill import (
    fill_bank,
    fill_pages,
    fill_rows,
    fill_steering,
    keep_rows,
    rewind_idle,
)
from actors.engine.burst_rows import BurstRows
from actors.engine.capture import Capturer
from actors.engine.fast_state import MAX_BURST, MAX_RAW_BURST, Features, reach_of
from actors.engine.fusable import Row, fusable_row, is_kept, is_pooled, tokens_left
from actors.engine.history import Arrival
from actors.engine.reading import Reading
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence
from actors.engine.staging import stage
from actors.engine.steer import Plan
from actors.engine.sums import take_slots, zero_slots

if TYPE_CHECKING:
    from actors.engine.fast import FastDecoder

EOS_BURST = 4
"""Steps per burst when a sequence may end early: rows after an end are wasted work."""


@dataclass(slots=True)
class BurstResult:
    """Tokens of one burst: ``tokens[step, row]`` for ``sequences[row]``."""

    sequences: list[Sequence]
    tokens: NDArray[np.int32]
    kept: BurstRows


@dataclass(slots=True)
class Flight:
    """A burst that was launched, and whose tokens nobody has read."""

    rows: list[Row]
    steps: int
    features: Features
    arrival: Arrival
    kept: BurstRows


@dataclass(slots=True)
class Burst:
    """Runs bursts of one bundle on a fused decoder."""

    fast: FastDecoder
    plan: Plan
    capturer: Capturer
    bank: Bank
    eos_ids: tuple[int, ...]
    while_waiting: Callable[[], None] = lambda: None
    """Host work to do while the device is busy."""
    _flight: Flight | None = None
    """Launched behind the burst that was read last."""
    _slot_of: dict[int, tuple[int, Reading]] = field(default_factory=dict)
    """Sequence -> its slot of the pooled sums, and the reading that it sums for."""
    _free_slots: list[int] = field(default_factory=list)
    _new_slots: list[int] = field(default_factory=list)
    """Slots that still hold another sequence's sums."""
    _bank_loaded: bool = False
    _wanted: list[tuple[int, Features]] = field(default_factory=list)
    """Rows and features that a burst could not follow with, for want of a graph."""

    def __post_init__(self) -> None:
        self._free_slots = list(range(self.fast.state.max_rows - 1, -1, -1))

    def run(self, scheduler: Scheduler) -> BurstResult | None:
        """One burst, or None when the general step must run. Collective."""
        flight, self._flight = self._flight, None
        if flight is None or all(row.sequence.is_done for row in flight.rows):
            # What was launched behind its rows' end chose nothing that anybody needs.
            flight = self._first(scheduler)
        if flight is None:
            return None
        self._flight = self._next(flight, scheduler)
        self.while_waiting()
        tokens = flight.arrival.wait()
        scheduler.note_steps(flight.steps)
        return BurstResult([r.sequence for r in flight.rows], tokens, flight.kept)

    def _first(self, scheduler: Scheduler) -> Flight | None:
        """A burst from the host's state; None when the general step must run."""
        running = scheduler.running
        if not running or len(running) > self.fast.sizes[-1] or scheduler.would_admit():
            return None
        rows = [self._row(s) for s in running]
        served = [r for r in rows if r is not None]
        if len(served) < len(rows):
            return None
        steps = scheduler.reserve(self._steps(served, scheduler, [_left(row) for row in served]))
        if steps == 0:
            return None
        features = self._features(served, steps)
        # Collective, and the same on every rank.
        for wanted in (*self._wanted, (len(served), features)):
            self.fast.prepare(*wanted)
        self._wanted.clear()
        self._fill(served, features.steers)
        return self._launch(served, steps, features)

    def _next(self, flight: Flight, scheduler: Scheduler) -> Flight | None:
        """A burst of the same rows, from the device's state, behind one that still runs.

        Everything that decides is known to the host, alike on every rank, before the first one's
        tokens are. A row that ends in the first burst idles in the second; the host drops it.
        """
        alive = [i for i, r in enumerate(flight.rows) if not r.sequence.is_done]
        rows = [flight.rows[i] for i in alive]
        left = [_left(row) - flight.steps for row in rows]
        ending = sum(n <= 0 for n in left)
        if flight.features.keeps or ending == len(rows) or scheduler.would_admit(ending=ending):
            return None
        wanted = self._steps(rows, scheduler, left)
        steps = scheduler.reserve(wanted, ahead=flight.steps)
        features = self._features(rows, flight.steps + steps, like=flight.features)
        if steps == 0 or not self.fast.is_ready(len(rows), features):
            return None
        state, size = self.fast.state, self.fast.size_for(len(rows))
        if len(rows) < len(flight.rows):
            keep_rows(state, alive, size, steers=features.steers)
        rewind_idle(state, len(rows), size)
        return self._launch(rows, steps, features)

    def follow(
        self, scheduler: Scheduler, sampling: SequenceOf[Sequence], token_ids: Tensor
    ) -> None:
        """Launch a burst behind a general forward whose tokens are on the device only. Collective.

        To the rows it is as if the forward's last row of each had been a step of a burst. Nothing
        is launched, and the host decides when it has the tokens, where some running sequence lacks
        more than a token, where the fused step cannot serve one, or when others are to be let in.

        Args:
            scheduler: Of the bundle; the forward's rows are booked.
            sampling: Sequences that chose a token.
            token_ids: Their tokens, ``[B]``.
        """
        place_of = {s.index: at for at, s in enumerate(sampling) if s.is_running}
        if not place_of or len(scheduler.running) > self.fast.sizes[-1]:
            return
        known = [s for s in scheduler.running if s.index not in place_of]
        coming = [s for s in sampling if s.is_running]
        found = [self._row(s, ahead=1) for s in coming] + [self._row(s) for s in known]
        rows = [row for row in found if row is not None]
        left = [_left(row) - row.ahead for row in rows]
        ending = sum(n <= 0 for n in left)
        if len(rows) < len(found) or ending == len(rows) or scheduler.would_admit(ending=ending):
            return
        steps = scheduler.reserve(self._steps(rows, scheduler, left))
        features = self._features(rows, 1 + steps)
        if steps == 0 or features.keeps:
            return
        if not self.fast.is_ready(len(rows), features):
            self._wanted.append((len(rows), features))  # the tokens must not wait for it
            return
        self._fill(rows, features.steers)
        if len(coming) < len(sampling):
            places = np.asarray(list(place_of.values()), np.int64)
            token_ids = token_ids[stage(places, token_ids.device)]
        self.fast.take(token_ids)
        self._flight = self._launch(rows, steps, features)

    def _row(self, sequence: Sequence, *, ahead: int = 0) -> Row | None:
        return fusable_row(sequence, self.plan, self.capturer, self.bank, self.eos_ids, ahead=ahead)

    def _steps(self, rows: list[Row], scheduler: Scheduler, steps_left: list[int]) -> int:
        """Steps worth launching at once, of rows that have so many left; some may have none."""
        left = [n for n in steps_left if n > 0]
        asked = [row.sequence.request.sampling for row in rows]
        fixed = all(s.ignore_eos and not s.stop_ids for s in asked)
        # Bursts that keep rows are not launched behind one another: the host shows between them.
        short = MAX_RAW_BURST if any(row.raw is not None for row in rows) else EOS_BURST
        most = MAX_BURST if fixed else short
        if scheduler.waiting:  # who waits may come in at the first end, or soon after it
            is_soon = scheduler.may_admit_soon or len(left) < len(rows)
            most = min(most, short if is_soon else max(short, min(left)))
        return max(1, min(most, max(left)))

    def _features(self, rows: list[Row], steps: int, like: Features | None = None) -> Features:
        """What the graph must be able to do; the same on every rank, whoever keeps the rows."""
        reach = reach_of(max(len(r.sequence.tokens) for r in rows) + steps)
        if like is not None:
            return like._replace(reach=reach)
        steers = any(r.entries for r in rows)
        captures = any(r.pooled is not None for r in rows)
        keeps = self.capturer.raw_layers if any(r.raw is not None for r in rows) else ()
        return Features(steers, captures, reach, keeps, self.capturer.share is not None)

    def _fill(self, rows: list[Row], steers: bool) -> None:
        """Write the rows' data into the decoder's static buffers."""
        state, size = self.fast.state, self.fast.size_for(len(rows))
        # A rank that does not answer runs the same graph but reads no position.
        reads = [r.pooled is not None and self.capturer.answers for r in rows]
        slots = [self._slot(r) if one else 0 for r, one in zip(rows, reads, strict=True)]
        stops = [r.stop if one else 0 for r, one in zip(rows, reads, strict=True)]
        fill_rows(state, rows, size, slots=slots, stops=stops, eos_ids=self.eos_ids)
        zero_slots(state.totals, self._new_slots)
        self._new_slots.clear()
        if steers and not self._bank_loaded:
            fill_bank(state, self.bank)
            self._bank_loaded = True
        if steers:
            fill_steering(state, rows, size)

    def _launch(self, rows: list[Row], steps: int, features: Features) -> Flight:
        """Launch steps of rows that are in the static buffers but for their pages."""
        state = self.fast.state
        fill_pages(state, [r.sequence for r in rows], self.fast.size_for(len(rows)))
        state.step.zero_()
        kept = BurstRows(self.capturer)
        for step in range(1, steps + 1):
            self.fast.run(len(rows), features)
            if step % MAX_RAW_BURST == 0 or step == steps:
                kept.land(self.fast, rows, step, features)
        return Flight(rows, steps, features, state.outbox.send(steps, len(rows)), kept)

    def _slot(self, row: Row) -> int:
        """The row's place among the pooled sums, to be zeroed when first taken."""
        index = row.sequence.index
        if index not in self._slot_of and row.pooled is not None:
            slot = self._free_slots.pop()
            self._slot_of[index] = (slot, row.pooled)
            self._new_slots.append(slot)
        return self._slot_of[index][0]

    def note_rows(self, result: BurstResult, row: int, num_rows: int) -> None:
        """Book the rows that count of one sequence's burst: receipts, positions, kept rows."""
        sequence = result.sequences[row]
        start, stop = sequence.num_computed, sequence.num_computed + num_rows
        fresh = max(start, sequence.num_captured)
        for entry in self.plan.entries.get(sequence.request.id, ()):
            if not entry.is_idle:
                entry.num_rows += len(entry.where.within(fresh, stop))
        length = sequence.request.prompt_length
        for reading in self.capturer.readings(sequence.request):
            wanted = reading.selector.readable(fresh, stop, length)
            if not wanted or not (is_pooled(reading) or is_kept(reading)):
                continue
            reading.book(wanted)
            if is_kept(reading):
                steps = range(wanted.start - start, wanted.stop - start)
                result.kept.note(reading, row, steps)

    def collect(self, sequences: list[Sequence]) -> None:
        """Hand finished sequences' pooled sums to their captures and free the slots."""
        ended = [s for s in sequences if s.index in self._slot_of]
        if not ended or not self.capturer.answers:
            return
        taken = [self._slot_of.pop(s.index) for s in ended]
        slots, readings = zip(*taken, strict=True)
        self._free_slots.extend(slots)
        take_slots(self.fast.state.totals, slots, readings, "resid_post")


def _left(row: Row) -> int:
    """Steps until a row is over for its length, as the host knows it; it is not over yet."""
    reads = bool(row.sequence.request.capture)
    return max(1, tokens_left(row.sequence) + reads)
