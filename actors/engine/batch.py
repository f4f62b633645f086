"""One forward's rows as tensors: packed, no padding, decode rows first."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.sequence import Sequence, Span
from actors.engine.staging import stage_parts

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows ``[row_start, row_stop)`` that continue one sequence's ``context`` tokens (prefill)."""

    row_start: int
    row_stop: int
    context: int
    """Tokens in the cache once these rows are written, so the last row's position + 1."""
    slots: Tensor
    """int64 ``[context]``: where each of those tokens lies in the cache."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one forward, N of them."""

    spans: tuple[Span, ...]
    ids_N: Tensor
    positions_N: Tensor
    slots_N: Tensor
    """int64: cache slot that each row's keys and values are written to."""
    num_decode: int
    """Leading rows that are one new token of a sequence each."""
    context_slots: Tensor | None
    """int64 ``[num_decode, longest context]``; beyond a row's own context its first slot again."""
    context_lengths: Tensor | None
    """int64 ``[num_decode]``"""
    segments: tuple[Segment, ...]
    segment_slots: Tensor
    """int64: every segment's ``slots``, end to end."""
    query_bounds: Tensor
    key_bounds: Tensor
    """int64 ``[segments + 1]``: each segment's run of rows, after the decode rows, and of slots."""
    sample_rows: Tensor
    """int64: rows whose logits choose a token, in the order of ``sampling``."""
    sampling: tuple[Sequence, ...]

    @property
    def num_rows(self) -> int:
        """Rows in this forward."""
        return int(self.ids_N.shape[0])


def run_slots(
    sequences: SequenceOf[Sequence],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    page_size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions ``[start, stop)`` of each sequence, end to end, and the cache slots they have."""
    pages = np.fromiter(chain.from_iterable(s.pages for s in sequences), np.int64)
    lengths = stops - starts
    first_pages = np.cumsum([0, *(len(s.pages) for s in sequences)])[:-1]
    positions = np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
    here = pages[np.repeat(first_pages, lengths) + positions // page_size]
    return positions, here * page_size + positions % page_size


def page_rows(sequences: SequenceOf[Sequence], *, spare: int = 0) -> NDArray[np.int64]:
    """``[sequences, most pages + spare]``: each one's pages, and page 0 behind them."""
    counts = np.array([len(s.pages) for s in sequences])
    rows = np.zeros((len(sequences), counts.max() + spare), np.int64)
    pages = np.fromiter(chain.from_iterable(s.pages for s in sequences), np.int64)
    rows[np.arange(rows.shape[1]) < counts[:, None]] = pages
    return rows


def _decode_slots(
    decode: list[Span], stops: NDArray[np.int64], page_size: int
) -> NDArray[np.int64]:
    """Context slots of rows that are one new token each, all as wide as the longest context."""
    pages = page_rows([s.sequence for s in decode])
    longest = int(stops.max())
    slots = (pages[:, :, None] * page_size + np.arange(page_size)).reshape(len(decode), -1)
    # Beyond a row's own context lies what another sequence left, or what rows that ran over their
    # end wrote to page 0: a weight of 0 makes nothing of it but where it is not finite.
    return np.where(np.arange(longest) < stops[:, None], slots[:, :longest], slots[:, :1])


def build_batch(spans: list[Span], page_size: int, device: torch.device) -> Batch:
    """Turn the scheduler's spans into tensors, by one copy to the device."""
    decode = [s for s in spans if s.stop - s.start == 1 and s.start > 0]
    prefill = [s for s in spans if not (s.stop - s.start == 1 and s.start > 0)]
    ordered, row = decode + prefill, len(decode)
    starts = np.array([s.start for s in ordered], np.int64)
    stops = np.array([s.stop for s in ordered], np.int64)
    ends = np.cumsum(stops - starts)
    tokens = chain.from_iterable(s.sequence.tokens[s.start : s.stop] for s in ordered)
    sequences = [s.sequence for s in ordered]
    positions, slots = run_slots(sequences, starts, stops, page_size)
    contexts = run_slots(sequences[row:], np.zeros_like(starts[row:]), stops[row:], page_size)[1]
    table = _decode_slots(decode, stops[:row], page_size) if decode else _NONE
    queries = np.concatenate(([row], ends[row:])) - row
    keys = np.cumsum([0, *stops[row:]])
    chooses = np.array([s.samples for s in ordered])
    there = stage_parts(
        (
            np.fromiter(tokens, np.int64, int(ends[-1])), positions, slots, table.reshape(-1),
            stops[:row], contexts, queries, keys, ends[chooses] - 1,
        ),
        device,
    )  # fmt: skip
    runs = torch.split(there[5], stops[row:].tolist())
    segments = tuple(
        Segment(row + a, row + b, s.stop, run)
        for s, (a, b), run in zip(prefill, pairwise(queries.tolist()), runs, strict=True)
    )
    return Batch(
        spans=tuple(ordered),
        ids_N=there[0],
        positions_N=there[1],
        slots_N=there[2],
        num_decode=len(decode),
        context_slots=there[3].view(table.shape) if decode else None,
        context_lengths=there[4] if decode else None,
        segments=segments,
        segment_slots=there[5],
        query_bounds=there[6],
        key_bounds=there[7],
        sample_rows=there[8],
        sampling=tuple(s for s, one in zip(sequences, chooses, strict=True) if one),
    )
