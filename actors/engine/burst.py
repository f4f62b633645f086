"""Several decode steps of all running sequences without waiting for the host in between.

A burst runs when every running sequence lacks one token and asks for nothing that the fused step
cannot do; anything else takes the general step, which gives the same answer. The device itself sees
end-of-sequence tokens and length limits, so a row that is over captures nothing more; the host
reads the tokens once per burst and drops what came after the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.capture import Capturer
from actors.engine.fast_state import MAX_BURST, MAX_EOS, MAX_RAW_BURST, Features, reach_of
from actors.engine.fusable import Row, fusable_row, is_kept, is_pooled, tokens_left
from actors.engine.gather import find_home
from actors.engine.homes import Move, send
from actors.engine.landing import Landing, Piece, fetch, land
from actors.engine.reading import Reading
from actors.engine.sampler import request_key
from actors.engine.scheduler import Scheduler, Sequence
from actors.engine.staging import stage
from actors.engine.steer import OPERATORS, Bank, Plan
from actors.engine.sums import take_slots, zero_slots

if TYPE_CHECKING:
    from actors.engine.fast import FastDecoder

EOS_BURST = 8
"""Steps per burst when a sequence may end early: rows after an end are wasted work."""


@dataclass(slots=True)
class BurstResult:
    """Tokens of one burst: ``tokens[step, row]`` for ``sequences[row]``."""

    sequences: list[Sequence]
    tokens: NDArray[np.int32]
    rows: list[tuple[Landing | None, Landing | None]] = field(default_factory=list)
    """Of each ``MAX_RAW_BURST`` steps, where raw rows are kept: the rows that went home, and
    ``[row, held layer, step, D]`` where some have no home."""


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
    _slot_of: dict[int, tuple[int, Reading]] = field(default_factory=dict)
    """Sequence -> its slot of the pooled sums, and the reading that it sums for."""
    _free_slots: list[int] = field(default_factory=list)
    _new_slots: list[int] = field(default_factory=list)
    """Slots that still hold another sequence's sums."""
    _bank_loaded: bool = False

    def __post_init__(self) -> None:
        self._free_slots = list(range(self.fast.state.max_rows - 1, -1, -1))

    def run(self, scheduler: Scheduler) -> BurstResult | None:
        """One burst, or None when the general step must run. Collective."""
        running = scheduler.running
        if not running or len(running) > self.fast.sizes[-1] or scheduler.would_admit():
            return None
        rows = [self._row(s) for s in running]
        if not all(rows):
            return None
        served = [r for r in rows if r is not None]
        steps = scheduler.reserve(self._steps(scheduler))
        if steps == 0:
            return None
        return self._launch(served, steps)

    def _steps(self, scheduler: Scheduler) -> int:
        left = [tokens_left(s) + bool(self.capturer.readings(s.request)) for s in scheduler.running]
        fixed = all(s.request.sampling.ignore_eos for s in scheduler.running)
        most = MAX_BURST if fixed else EOS_BURST
        return max(1, min(most, min(left) if scheduler.waiting else max(left)))

    def _row(self, sequence: Sequence) -> Row | None:
        return fusable_row(sequence, self.plan, self.capturer, self.bank, self.eos_ids)

    def _launch(self, rows: list[Row], steps: int) -> BurstResult:
        steers = any(r.entries for r in rows)
        # The same on every rank, kept or not: preparing a graph is collective.
        captures = any(r.pooled is not None for r in rows)
        longest = max(len(r.sequence.tokens) for r in rows) + steps
        keeps = self.capturer.raw_layers if any(r.raw is not None for r in rows) else ()
        features = Features(
            steers, captures, reach_of(longest), keeps, self.capturer.share is not None
        )
        self.fast.prepare(len(rows), features)
        self._fill(rows, steers)
        landings = []
        for step in range(1, steps + 1):
            self.fast.run(len(rows), features)
            if step % MAX_RAW_BURST == 0 or step == steps:
                landings += self._land_rows(rows, step, features)
        self.while_waiting()
        tokens = fetch(self.fast.state.history[:steps, : len(rows)]).numpy()
        return BurstResult([r.sequence for r in rows], tokens, landings)

    def _land_rows(
        self, rows: list[Row], stop: int, features: Features
    ) -> list[tuple[Landing | None, Landing | None]]:
        """Start to bring the newest steps' kept rows to the host."""
        kept = self.fast.kept(features)
        if kept is None:
            return []
        start = (stop - 1) // MAX_RAW_BURST * MAX_RAW_BURST
        # A copy: the next step writes where the rows lie.
        staging = self.fast.staging(features)
        block = staging.copy(kept[: stop - start, :, : len(rows)].permute(2, 1, 0, 3))
        # What is not finite at a layer stays so above it.
        good = block[:, -1].isfinite().all(dim=-1)
        moves: list[Move] = []
        on_foot = [not self._send_home(row, block[i], start, moves) for i, row in enumerate(rows)]
        sent = send(moves, block, good) if moves else None
        landed = land(block, good) if any(on_foot) else None
        staging.leaves()
        return [(sent, landed)]

    def _send_home(self, row: Row, block_LSD: Tensor, first_step: int, moves: list[Move]) -> bool:
        """Add the move of a row's steps, if it needs any; False when it has no home to go to."""
        reading, sequence = row.raw, row.sequence
        if reading is None:
            return True
        places = self.capturer.places(reading)
        mine = block_LSD if places is None else block_LSD[places]
        home = find_home(reading, "resid_post", mine, self.capturer.shelf)
        if home is None:
            return False
        first = sequence.num_computed + first_step
        wanted = reading.selector.readable(
            max(first, sequence.num_captured), first + mine.shape[1], sequence.request.prompt_length
        )
        stop = min(wanted.stop, reading.positions_at_most.stop)
        if stop > wanted.start:
            moves.append(Move(home, wanted.start, mine[:, wanted.start - first : stop - first]))
        return True

    def _fill(self, rows: list[Row], steers: bool) -> None:
        """Write the rows' data into the decoder's static buffers."""
        state, count = self.fast.state, len(rows)
        size = self.fast.size_for(count)
        pages = np.zeros((size, max(len(r.sequence.pages) for r in rows) + 1), dtype=np.int32)
        ints = np.zeros((6, size), dtype=np.int32)
        tokens = np.zeros((2, size), dtype=np.int64)
        temperatures = np.zeros(size, dtype=np.float32)
        eos = np.full((size, MAX_EOS), -2, dtype=np.int32)
        for i, row in enumerate(rows):
            sequence = row.sequence
            sampling = sequence.request.sampling
            pages[i, : len(sequence.pages)] = sequence.pages
            live = 1 if sequence.finish_reason else 2
            # A rank that does not answer runs the same graph but reads no position.
            reads = row.pooled is not None and self.capturer.answers
            slot, stop = (self._slot(row), row.stop) if reads else (0, 0)
            ints[:, i] = (
                sequence.num_computed, tokens_left(sequence), live, slot, row.first, stop,
            )  # fmt: skip
            tokens[:, i] = (sequence.tokens[-1], request_key(sampling.seed, sequence.request.id))
            temperatures[i] = sampling.temperature
            ends = list(sampling.stop_ids)
            ends += [] if sampling.ignore_eos else list(self.eos_ids)
            eos[i, : len(ends)] = ends
        zero_slots(state.totals, self._new_slots)
        self._new_slots.clear()
        ints_there = _stage(ints, state.positions)
        targets = (
            state.positions, state.left, state.live, state.row_slots, state.read_first,
            state.read_stop,
        )  # fmt: skip
        for target, values in zip(targets, ints_there, strict=True):
            target[:size] = values
        tokens_there = _stage(tokens, state.tokens)
        state.tokens[:size], state.keys[:size] = tokens_there[0], tokens_there[1]
        state.temperatures[:size] = _stage(temperatures, state.temperatures)
        state.eos[:size] = _stage(eos, state.eos)
        wide = pages.shape[1]
        state.pages[:size, :wide] = _stage(pages, state.pages)
        state.pages[:size, wide : wide + MAX_BURST] = 0
        state.step.zero_()
        if steers:
            self._fill_steering(rows, size)

    def _fill_steering(self, rows: list[Row], size: int) -> None:
        state = self.fast.state
        if not self._bank_loaded:
            held = self.bank.vectors_VD.shape[0]
            state.bank[:held] = self.bank.vectors_VD
            state.units[:held] = self.bank.units_VD
            self._bank_loaded = True
        shape = (state.steer_slots.shape[0], size)
        slots, kinds = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        coefficients = np.zeros(shape, np.float32)
        for i, row in enumerate(rows):
            for entry in row.entries:
                s = entry.steering
                slots[s.layer, i] = entry.slot
                kinds[s.layer, i] = OPERATORS.index(s.operator)
                coefficients[s.layer, i] = s.coefficient
        state.steer_slots[:, :size] = _stage(slots, state.steer_slots)
        state.steer_kinds[:, :size] = _stage(kinds, state.steer_kinds)
        state.steer_coefficients[:, :size] = _stage(coefficients, state.steer_coefficients)

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
            reading.positions.extend(wanted)
            if is_kept(reading):
                steps = range(wanted.start - start, wanted.stop - start)
                self._note_pieces(reading, result, row, steps)

    def _note_pieces(self, reading: Reading, result: BurstResult, row: int, steps: range) -> None:
        """Book a reading's steps of one row in the landings that bring them."""
        places = self.capturer.places(reading) if result.rows else None
        for number, (sent, landed) in enumerate(result.rows):
            landing = sent if "resid_post" in reading.homes else landed
            base = number * MAX_RAW_BURST
            first, stop = max(steps.start - base, 0), min(steps.stop - base, MAX_RAW_BURST)
            if landing is not None and first < stop:
                piece = Piece(landing, row, places, first, stop)
                reading.pieces.setdefault("resid_post", []).append(piece)

    def collect(self, sequences: list[Sequence]) -> None:
        """Hand finished sequences' pooled sums to their captures and free the slots."""
        ended = [s for s in sequences if s.index in self._slot_of]
        if not ended or not self.capturer.answers:
            return
        taken = [self._slot_of.pop(s.index) for s in ended]
        slots, readings = zip(*taken, strict=True)
        self._free_slots.extend(slots)
        take_slots(self.fast.state.totals, slots, readings, "resid_post")


def _stage(values: np.ndarray, like: Tensor) -> Tensor:
    return stage(values, like.device)
