"""A batch is its spans packed: decode rows first, every row with its own id, position and slot."""

from __future__ import annotations

import random

import numpy as np
import torch

from actors.engine.batch import build_batch, page_rows, run_slots
from actors.engine.sequence import Sequence, Span
from tests.tiny import ask

CPU = torch.device("cpu")


def _sequence(index, tokens, pages, finish=None):
    sequence = Sequence(ask(index, tokens, 5), index, list(tokens), pages=pages)
    sequence.finish_reason = finish
    return sequence


def test_slots_follow_the_pages_of_each_sequence():
    sequences = [_sequence(0, range(10), [7, 2, 5]), _sequence(1, range(3), [1])]
    positions, slots = run_slots(sequences, np.array([2, 0]), np.array([9, 2]), 4)
    assert positions.tolist() == [2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert slots.tolist() == [30, 31, 8, 9, 10, 11, 20, 4, 5]


def test_a_mixed_batch_by_hand():
    decoding = _sequence(0, [10, 11, 12, 13, 14], [3, 1])
    chunk = _sequence(1, [20, 21, 22, 23, 24, 25], [2, 4])
    fresh = _sequence(2, [30], [6])
    batch = build_batch([Span(chunk, 1, 4), Span(decoding, 4, 5), Span(fresh, 0, 1)], 4, CPU)
    assert [s.sequence.index for s in batch.spans] == [0, 1, 2]
    assert (batch.num_decode, batch.num_rows) == (1, 5)
    assert batch.ids_N.tolist() == [14, 21, 22, 23, 30]
    assert batch.positions_N.tolist() == [4, 1, 2, 3, 0]
    assert batch.slots_N.tolist() == [4, 9, 10, 11, 24]
    assert batch.context_slots.tolist() == [[12, 13, 14, 15, 4]]
    assert batch.context_lengths.tolist() == [5]
    assert [(s.row_start, s.row_stop, s.context) for s in batch.segments] == [(1, 4, 4), (4, 5, 1)]
    assert batch.segments[0].slots.tolist() == [8, 9, 10, 11]
    assert batch.sample_rows.tolist() == [0, 4]  # the chunk does not reach its prompt's end
    assert [s.index for s in batch.sampling] == [0, 2]


def test_shorter_contexts_are_filled_with_their_own_first_slot_and_never_with_another_rows():
    spans = [Span(_sequence(0, range(6), [1, 2]), 5, 6), Span(_sequence(1, range(3), [3]), 2, 3)]
    batch = build_batch(spans, 4, CPU)
    assert batch.context_slots.tolist() == [[4, 5, 6, 7, 8, 9], [12, 13, 14, 12, 12, 12]]
    assert batch.context_lengths.tolist() == [6, 3]
    assert batch.segments == ()


def test_a_finished_sequence_runs_its_last_row_and_samples_nothing():
    batch = build_batch([Span(_sequence(0, range(6), [1, 2], finish="eos"), 5, 6)], 4, CPU)
    assert batch.num_rows == 1
    assert batch.sample_rows.tolist() == []
    assert batch.sampling == ()


def test_random_batches_pack_every_row_once():
    draw = random.Random(4)
    for _ in range(200):
        spans, pages = [], list(range(1, 200))
        draw.shuffle(pages)
        for index in range(draw.randint(1, 8)):
            length = draw.randint(1, 20)
            mine = [pages.pop() for _ in range(-(-length // 4))]
            start = draw.choice([0, length - 1, draw.randrange(length)])
            stop = draw.randint(start + 1, length)
            spans.append(
                Span(_sequence(index, range(index * 50, index * 50 + length), mine), start, stop)
            )
        batch = build_batch(spans, 4, CPU)
        rows = [(s.sequence, p) for s in batch.spans for p in range(s.start, s.stop)]
        assert batch.ids_N.tolist() == [s.tokens[p] for s, p in rows]
        assert batch.positions_N.tolist() == [p for _, p in rows]
        slots = [s.pages[p // 4] * 4 + p % 4 for s, p in rows]
        assert batch.slots_N.tolist() == slots
        assert len(set(slots)) == len(slots)
        assert sorted(s.sequence.index for s in batch.spans) == list(range(len(spans)))
        last = [row for row, (s, p) in enumerate(rows) if p == len(s.tokens) - 1]
        assert batch.sample_rows.tolist() == last
        _has_every_context(batch)


def _has_every_context(batch):
    """The slots that each row attends to are those of its sequence's tokens up to itself."""

    def slots(sequence, stop):
        return [sequence.pages[p // 4] * 4 + p % 4 for p in range(stop)]

    for row, span in enumerate(batch.spans[: batch.num_decode]):
        table = batch.context_slots[row, : int(batch.context_lengths[row])]
        assert table.tolist() == slots(span.sequence, span.stop)
    for number, span in enumerate(batch.spans[batch.num_decode :]):
        segment = batch.segments[number]
        assert segment.slots.tolist() == slots(span.sequence, span.stop)
        a, b = batch.query_bounds[number : number + 2].tolist()
        first = batch.num_decode + a
        assert (first, batch.num_decode + b) == (segment.row_start, segment.row_stop)
        assert batch.positions_N[segment.row_start].item() == span.start
        assert segment.row_stop - segment.row_start == span.stop - span.start
        c, d = batch.key_bounds[number : number + 2].tolist()
        assert batch.segment_slots[c:d].tolist() == slots(span.sequence, span.stop)
    chosen = [s.sequence for s in batch.spans if s.samples]
    assert list(batch.sampling) == chosen
    last = np.cumsum([s.stop - s.start for s in batch.spans]) - 1
    wanted = [int(n) for n, s in zip(last, batch.spans, strict=True) if s.samples]
    assert batch.sample_rows.tolist() == wanted


def test_a_table_of_pages_has_page_0_behind_each_row():
    sequences = [_sequence(i, (5,), pages) for i, pages in enumerate(([3, 4], [], [7, 5, 6]))]
    assert page_rows(sequences).tolist() == [[3, 4, 0], [0, 0, 0], [7, 5, 6]]
    assert page_rows(sequences[:2], spare=1).tolist() == [[3, 4, 0], [0, 0, 0]]
