"""Paged attention equals the textbook formula in float64, row by row, windows and groups too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.engine.attention import (
    AttentionContext,
    attach,
    attend_decode,
    attend_rows,
    attend_segment,
    latent_halves,
    registered,
)
from actors.engine.batch import build_batch
from actors.engine.sequence import Sequence, Span
from tests import tiny
from tests.tiny import ask

HEADS, KV, WIDTH, VALUE = 6, 2, 5, 3


def _textbook(q_HD, k_SKD, v_SKD, *, scale, window):
    """One row that sees S tokens, the last being itself; float64 loops."""
    q, k, v = (x.double().numpy() for x in (q_HD, k_SKD, v_SKD))
    k, v = (x if window is None else x[-window:] for x in (k, v))
    out = np.zeros((len(q), v.shape[-1]))
    for head in range(len(q)):
        group = head // (len(q) // k.shape[1])
        scores = k[:, group] @ q[head] * scale
        weights = np.exp(scores - scores.max())
        out[head] = (weights / weights.sum()) @ v[:, group]
    return out


@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_a_decode_row_sees_its_own_context_and_nothing_beside_it(window):
    torch.manual_seed(0)
    lengths = [1, 7, 12]
    keys, values = torch.randn(60, KV, WIDTH), torch.randn(60, KV, VALUE)
    slots = torch.randperm(59)[: sum(lengths)] + 1
    values[0] = 1e30  # slot 0 pads shorter contexts and must not count
    table, rows, first = torch.zeros(3, 12, dtype=torch.int64), [], 0
    for row, length in enumerate(lengths):
        table[row, :length] = slots[first : first + length]
        rows.append(slots[first : first + length])
        first += length
    q = torch.randn(3, HEADS, WIDTH)
    got = attend_decode(q, keys, values, table, torch.tensor(lengths), scale=0.4, window=window)
    for row, mine in enumerate(rows):
        want = _textbook(q[row], keys[mine], values[mine], scale=0.4, window=window)
        np.testing.assert_allclose(got[row].numpy(), want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("num_rows", [1, 5, 11])
def test_a_segment_row_sees_what_came_before_it_and_itself(window, num_rows):
    torch.manual_seed(1)
    k, v = torch.randn(11, KV, WIDTH), torch.randn(11, KV, VALUE)
    q = torch.randn(num_rows, HEADS, WIDTH)
    got = attend_segment(q, k, v, scale=0.3, window=window)
    for row in range(num_rows):
        seen = 11 - num_rows + row + 1
        want = _textbook(q[row], k[:seen], v[:seen], scale=0.3, window=window)
        np.testing.assert_allclose(got[row].numpy(), want, rtol=2e-5, atol=2e-6)


def _batch():
    sequences = [
        Sequence(ask(i, range(n), 4), i, list(range(n)), pages=pages)
        for i, (n, pages) in enumerate([(6, [4, 2]), (9, [1, 7, 3]), (5, [6, 5])])
    ]
    spans = [Span(sequences[0], 5, 6), Span(sequences[1], 3, 9), Span(sequences[2], 0, 5)]
    return build_batch(spans, 4, torch.device("cpu")), sequences


def test_rows_of_one_batch_stay_in_their_own_sequence():
    torch.manual_seed(2)
    batch, sequences = _batch()
    keys, values = torch.randn(40, KV, WIDTH), torch.randn(40, KV, VALUE)
    q = torch.randn(12, HEADS, WIDTH)
    got = attend_rows(q, keys, values, batch, scale=0.5, window=None)
    row = 0
    for span in batch.spans:
        pages = span.sequence.pages
        slots = [pages[p // 4] * 4 + p % 4 for p in range(span.stop)]
        for position in range(span.start, span.stop):
            mine = slots[: position + 1]
            want = _textbook(q[row], keys[mine], values[mine], scale=0.5, window=None)
            np.testing.assert_allclose(got[row].numpy(), want, rtol=2e-5, atol=2e-6)
            row += 1
    # What lies in other sequences' pages is never read: NaN there changes nothing.
    own = {p * 4 + o for p in sequences[1].pages for o in range(4)}
    for slot in set(range(40)) - own:
        keys[slot] = values[slot] = float("nan")
    again = attend_rows(q, keys, values, batch, scale=0.5, window=None)
    assert torch.equal(again[1:7], got[1:7])
    assert got.shape == (12, HEADS, VALUE)


def test_absorbed_latent_attention_equals_expanded_keys_and_values():
    model = tiny.engine(tiny.model_path("deepseek_v3")).model
    module = model.layers[1].self_attn
    key_half, value_half = latent_halves(module)
    assert key_half.shape == (8, 12, 20)
    assert value_half.shape == (8, 10, 20)
    latents, q = torch.randn(9, 20), torch.randn(8, 12)
    with torch.no_grad():
        expanded = module.kv_b_proj(latents).view(9, 8, 22)
        scores = torch.einsum("hd,shd->hs", q, expanded[..., :12])
        absorbed = torch.einsum("hd,hdc,sc->hs", q, key_half, latents)
        out = torch.einsum("hs,shv->hv", scores.softmax(-1), expanded[..., 12:])
        moved = torch.einsum("hs,sc,hvc->hv", scores.softmax(-1), latents, value_half)
    torch.testing.assert_close(absorbed, scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved, out, rtol=1e-4, atol=1e-4)


def test_attention_outside_a_step_is_an_error_and_not_a_guess():
    model = tiny.engine(tiny.model_path("llama"))
    module = model.model.layers[0].self_attn
    attach(model.model.layers, AttentionContext(model.cache))
    with pytest.raises(RuntimeError, match="outside an engine step"):
        registered(module, torch.zeros(1, 8, 1, 12), None, None, None)
