"""Batches hold whole documents of about one length, the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jobs.toy.batches import NUM_SPECIAL, build_corpus, draw_batch, encode_corpus, swap_some
from jobs.toy.corpus import CHUNK, write_documents

MODELS = Path(__file__).parents[2] / "jobs" / "toy" / "models"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODELS / "toy_mla")


def test_rows_hold_the_documents_in_order(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode_corpus(tokenizer, seed=3, count=20, length=256).ids_NT
    for row, document in zip(rows, write_documents(3, 20), strict=True):
        ids = [int(token) for token in row if token != 0]
        assert tokenizer.decode(ids) == document.text
        assert ids[-1] == 1


def test_long_documents_are_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    rows, decided, _ = encode_corpus(tokenizer, seed=3, count=50, length=40)
    assert rows.shape == (50, 40)
    assert (rows != 0).sum(axis=1).max() == 40
    assert decided.max() == 40


def test_the_decided_token_is_the_first_after_the_cue(tokenizer: PreTrainedTokenizerFast) -> None:
    rows, decided, _ = encode_corpus(tokenizer, seed=3, count=200, length=256)
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


def test_any_number_of_processes_gives_the_same_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    alone, shared = (
        encode_corpus(tokenizer, seed=3, count=CHUNK + 100, length=144, processes=processes)
        for processes in (1, 2)
    )
    assert alone.ids_NT.shape == (CHUNK + 100, 144)
    for first, second in zip(alone, shared, strict=True):
        assert (first == second).all()


def test_labels_stay_with_their_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode_corpus(tokenizer, seed=6, count=300, length=144)
    assert rows.labels_N.tolist() == [d.label for d in write_documents(6, 300)]
    corpus = build_corpus(tokenizer, seed=6, count=300, length=144)
    batch = draw_batch(corpus, 300, torch.Generator())
    written = {
        (tuple(row[:40].tolist()), int(label))
        for row, label in zip(rows.ids_NT, rows.labels_N, strict=True)
    }
    for ids, label in zip(corpus.ids_NT, batch.labels_B, strict=True):
        assert (tuple(ids[:40].tolist()), int(label)) in written


def test_a_tokenizer_that_pads_otherwise_is_refused() -> None:
    other = AutoTokenizer.from_pretrained(MODELS / "toy_mla")
    other.pad_token = "<|end|>"
    with pytest.raises(ValueError, match="padding token is 1, not 0"):
        encode_corpus(other, seed=1, count=4, length=32)


def test_swapping_leaves_special_tokens_and_the_asked_share_alone() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 1536, (200, 100))
    never = torch.zeros(200, dtype=torch.long)
    swapped = swap_some(ids, share=0.1, vocab_size=1536, decided_B=never)
    special = ids < NUM_SPECIAL
    assert torch.equal(swapped[special], ids[special])
    changed = (swapped != ids).float().mean()
    assert 0.09 <= changed <= 0.11
    assert swapped.max() < 1536
    assert torch.equal(swap_some(ids, share=0.0, vocab_size=1536, decided_B=never), ids)


def test_words_of_a_cue_are_swapped_at_their_own_share() -> None:
    torch.manual_seed(0)
    ids = torch.randint(NUM_SPECIAL, 1536, (400, 100))
    decided = torch.full((400,), 30)
    swapped = swap_some(ids, share=0.0, vocab_size=1536, cue_share=0.2, decided_B=decided)
    assert torch.equal(swapped[:, 30:], ids[:, 30:])
    assert 0.18 <= (swapped[:, :30] != ids[:, :30]).float().mean() <= 0.22
