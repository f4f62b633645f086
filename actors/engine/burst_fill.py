"""Rows of a burst are written into the fused step's static buffers, or stay there for the next."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import numpy as np
from torch import Tensor

from actors.engine.bank import Bank
from actors.engine.batch import page_rows
from actors.engine.fast_state import MAX_EOS, OVERRUN, DecodeState
from actors.engine.fusable import Row, tokens_left
from actors.engine.sampler import request_key
from actors.engine.sequence import Sequence
from actors.engine.staging import stage


def fill_rows(
    state: DecodeState,
    rows: SequenceOf[Row],
    size: int,
    *,
    slots: SequenceOf[int],
    stops: SequenceOf[int],
    eos_ids: tuple[int, ...],
) -> None:
    """Write rows from the host's state; those up to ``size`` behind them become idle.

    ``slots`` are the rows' places among the pooled sums, ``stops`` the positions from which they
    are no longer read.
    """
    count = len(rows)
    ints = np.zeros((6, size), dtype=np.int32)
    tokens = np.zeros((2, size), dtype=np.int64)
    temperatures = np.zeros(size, dtype=np.float32)
    eos = np.full((size, MAX_EOS), -2, dtype=np.int32)
    sequences = [row.sequence for row in rows]
    samplings = [s.request.sampling for s in sequences]
    ints[:, :count] = (
        [s.num_computed - row.ahead for s, row in zip(sequences, rows, strict=True)],
        [tokens_left(s) for s in sequences],
        [1 if s.finish_reason else 2 for s in sequences], slots, [row.first for row in rows], stops,
    )  # fmt: skip
    tokens[0, :count] = [s.tokens[-1] for s in sequences]
    tokens[1, :count] = [  # a greedy row draws nothing
        request_key(o.seed, s.request.id) if o.temperature else 0
        for s, o in zip(sequences, samplings, strict=True)
    ]
    temperatures[:count] = [s.temperature for s in samplings]
    for i, sampling in enumerate(samplings):
        ends = sampling.stop_ids if sampling.ignore_eos else (*sampling.stop_ids, *eos_ids)
        if ends:
            eos[i, : len(ends)] = ends
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


def fill_pages(state: DecodeState, sequences: SequenceOf[Sequence], size: int) -> None:
    """Write where rows' keys and values lie; a row beyond its pages writes where nobody reads."""
    known = page_rows(sequences, spare=1)
    wide = known.shape[1]
    pages = np.zeros((size, wide), dtype=np.int32)
    pages[: len(known)] = known
    state.pages[:size, :wide] = _stage(pages, state.pages)
    state.pages[:size, wide : wide + OVERRUN] = 0


def fill_steering(state: DecodeState, rows: SequenceOf[Row], size: int) -> None:
    """Write which vector changes which row at which layer, and how."""
    shape = (state.steer_slots.shape[0], size)
    slots, kinds = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    coefficients = np.zeros(shape, np.float32)
    for i, row in enumerate(rows):
        for entry in row.entries:
            s = entry.steering
            slots[s.layer, i] = entry.slot
            kinds[s.layer, i] = entry.kind
            coefficients[s.layer, i] = s.coefficient
    state.steer_slots[:, :size] = _stage(slots, state.steer_slots)
    state.steer_kinds[:, :size] = _stage(kinds, state.steer_kinds)
    state.steer_coefficients[:, :size] = _stage(coefficients, state.steer_coefficients)


def fill_bank(state: DecodeState, bank: Bank) -> None:
    """Write a bundle's vectors."""
    held = bank.vectors_VD.shape[0]
    state.bank[:held] = bank.vectors_VD
    state.units[:held] = bank.units_VD


def keep_rows(state: DecodeState, places: SequenceOf[int], size: int, *, steers: bool) -> None:
    """Move the rows at ``places`` to the front as the device knows them; the others become idle."""
    count = len(places)
    at = _stage(np.asarray(places, np.int64), state.positions)
    for by_row in (
        state.tokens, state.positions, state.keys, state.temperatures, state.eos, state.left,
        state.live, state.row_slots, state.read_first, state.read_stop,
    ):  # fmt: skip
        by_row[:count] = by_row[at]
        by_row[count:size] = 0
    for by_layer in (
        (state.steer_slots, state.steer_kinds, state.steer_coefficients) if steers else ()
    ):
        by_layer[:, :count] = by_layer[:, at]
        by_layer[:, count:size] = 0


def rewind_idle(state: DecodeState, count: int, size: int) -> None:
    """Take idle rows back to position 0: every step moves them on too."""
    state.positions[count:size] = 0


def _stage(values: np.ndarray, like: Tensor) -> Tensor:
    return stage(values, like.device)
