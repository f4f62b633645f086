"""Batches hold whole documents of about one length, the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jobs.toy.batches import NUM_SPECIAL, build_corpus, draw_batch, encode_corpus, swap_some
from jobs.toy.corpus import write_documents

MODELS = Path(__file__).parents[2] / "jobs" / "toy" / "models"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODELS / "toy_mla")


def test_rows_hold_the_documents_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    rows, _ = encode_corpus(tokenizer, seed=3, count=20, length=256)
    for row, document in zip(rows, write_documents(3, 20), strict=True):
        ids = [int(token) for token in row if token != 0]
        assert tokenizer.decode(ids) == document.text
        assert ids[-1] == 1


def test_long_documents_are_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    rows, decided = encode_corpus(tokenizer, seed=3, count=50, length=40)
    assert rows.shape == (50, 40)
    assert (rows != 0).sum(axis=1).max() == 40
    assert decided.max() == 40


def test_the_decided_token_is_the_first_after_the_cue(tokenizer: PreTrainedTokenizerFast) -> None:
    rows, decided = encode_corpus(tokenizer, seed=3, count=200, length=256)
    marked = 0
    for row, first, document in zip(rows, decided, write_documents(3, 200), strict=True):
        if document.decided is None:
            assert first == 256
            continue
        marked += 1
        assert tokenizer.decode(row[:first].tolist()) == document.text[: document.decided]
    assert marked > 100


def test_the_corpus_is_sorted_by_length(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = build_corpus(tokenizer, seed=4, count=300, length=144)
    lengths = corpus.lengths_N.tolist()
    assert lengths == sorted(lengths)
    assert ((corpus.ids_NT != 0).sum(dim=1) == corpus.lengths_N).all()


def test_few_tokens_of_a_batch_are_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = build_corpus(tokenizer, seed=4, count=1000, length=144)
    order = torch.Generator().manual_seed(0)
    batches = [draw_batch(corpus, 32, order) for _ in range(50)]
    padding = sum(int((batch.ids_BT == 0).sum()) for batch in batches)
    assert padding / sum(batch.ids_BT.numel() for batch in batches) <= 0.05
    assert all(batch.ids_BT.shape[0] == len(batch.decided_B) == 32 for batch in batches)
    assert len({batch.ids_BT.shape[1] for batch in batches}) >= 10


def test_widths_round_up_to_a_multiple(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = build_corpus(tokenizer, seed=4, count=300, length=144)
    order = torch.Generator().manual_seed(0)
    widths = {draw_batch(corpus, 16, order, multiple=24).ids_BT.shape[1] for _ in range(60)}
    assert widths <= {24, 48, 72, 96, 120, 144}
    assert len(widths) >= 3


def test_the_same_seed_draws_the_same_batches(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = build_corpus(tokenizer, seed=5, count=200, length=144)
    first = draw_batch(corpus, 8, torch.Generator().manual_seed(1))
    second = draw_batch(corpus, 8, torch.Generator().manual_seed(1))
    assert torch.equal(first.ids_BT, second.ids_BT)
    assert torch.equal(first.decided_B, second.decided_B)


def test_a_corpus_smaller_than_a_batch_is_drawn_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = build_corpus(tokenizer, seed=5, count=6, length=144)
    assert draw_batch(corpus, 100, torch.Generator()).ids_BT.shape[0] == 6


def test_swapping_leaves_special_tokens_and_the_asked_share_alone() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 1536, (200, 100))
    swapped = swap_some(ids, share=0.1, vocab_size=1536)
    special = ids < NUM_SPECIAL
    assert torch.equal(swapped[special], ids[special])
    changed = (swapped != ids).float().mean()
    assert 0.09 <= changed <= 0.11
    assert swapped.max() < 1536
    assert torch.equal(swap_some(ids, share=0.0, vocab_size=1536), ids)
