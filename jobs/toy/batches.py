"""Turn a corpus into batches whose documents have about one length, so few tokens are padding.

The seed fixes the documents, and the generator's state fixes the order of the batches.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from jobs.toy.corpus import write_documents

NUM_SPECIAL = 5
"""Special tokens have the lowest ids; swapping leaves them alone."""
_CHUNK = 10_000

# Shapes: B sequences, T positions, N documents.


class Corpus(NamedTuple):
    """Encoded documents, shortest first."""

    ids_NT: Tensor
    """int32, padded on the right."""
    lengths_N: Tensor
    decided_N: Tensor
    """Position of the first token that a cue decides; the sequence length where none does."""

    def to(self, device: str) -> Corpus:
        """The same documents on a device; the lengths stay where they are, for they are read."""
        return Corpus(self.ids_NT.to(device), self.lengths_N, self.decided_N.to(device))


class Batch(NamedTuple):
    """Documents of about one length."""

    ids_BT: Tensor
    """int64, padded on the right."""
    decided_B: Tensor
    """As in the corpus."""


def encode_corpus(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, count: int, length: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Encode a corpus, one document per row, in the order written.

    Returns:
        Token ids padded on the right (N, T), and the first token that a cue decides (N).
    """
    rows_NT = np.full((count, length), tokenizer.pad_token_id, dtype=np.uint16)
    decided_N = np.full(count, length, dtype=np.int64)
    documents = list(write_documents(seed, count))
    for start in range(0, count, _CHUNK):
        part = documents[start : start + _CHUNK]
        chunk = tokenizer(
            [document.text for document in part],
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        for row, document in enumerate(part):
            kept = chunk["input_ids"][row][:length]
            rows_NT[start + row, : len(kept)] = kept
            if document.decided is not None:
                ends = [end for _, end in chunk["offset_mapping"][row][:length]]
                decided_N[start + row] = bisect_right(ends, document.decided)
    return rows_NT, decided_N


def build_corpus(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, count: int, length: int
) -> Corpus:
    """Encode a corpus and sort it by length."""
    rows_NT, decided_N = encode_corpus(tokenizer, seed=seed, count=count, length=length)
    lengths_N = (rows_NT != tokenizer.pad_token_id).sum(axis=1)
    order_N = np.argsort(lengths_N, kind="stable")
    return Corpus(
        torch.from_numpy(rows_NT[order_N].astype(np.int32)),
        torch.from_numpy(lengths_N[order_N]),
        torch.from_numpy(decided_N[order_N]),
    )


def draw_batch(
    corpus: Corpus, batch_size: int, order: torch.Generator, *, multiple: int = 1
) -> Batch:
    """Some neighbours in the sorted corpus, cut to the longest, rounded up to a multiple."""
    choices = max(1, len(corpus.ids_NT) - batch_size + 1)
    first = int(torch.randint(choices, (1,), generator=order))
    last = min(first + batch_size, len(corpus.ids_NT))
    width = -(-int(corpus.lengths_N[last - 1]) // multiple) * multiple
    return Batch(corpus.ids_NT[first:last, :width].long(), corpus.decided_N[first:last])


def swap_some(ids_BT: Tensor, *, share: float, vocab_size: int) -> Tensor:
    """Replace a share of the ordinary tokens by random ones; special tokens stay."""
    drawn_BT = torch.rand(ids_BT.shape, device=ids_BT.device) < share
    other_BT = torch.randint_like(ids_BT, NUM_SPECIAL, vocab_size)
    return torch.where(drawn_BT & (ids_BT >= NUM_SPECIAL), other_BT, ids_BT)
