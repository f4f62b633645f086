"""Turn a corpus into batches whose documents have about one length, so few tokens are padding.

The seed fixes the documents, and the generator's state fixes the order of the batches.
"""

from __future__ import annotations

import multiprocessing
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from jobs.toy.corpus import CHUNK, write_chunk

NUM_SPECIAL = 5
"""Special tokens have the lowest ids; swapping leaves them alone."""
_PAD_ID = 0
_Result = TypeVar("_Result")

# Shapes: B sequences, T positions, N documents.


class Corpus(NamedTuple):
    """Encoded documents, shortest first."""

    ids_NT: Tensor
    """int32, padded on the right."""
    lengths_N: Tensor
    decided_N: Tensor
    """Position of the first token that a cue decides; the sequence length where none does."""
    labels_N: Tensor
    """Trait and polarity of the cue, as in ``Document.label``."""

    def to(self, device: str) -> Corpus:
        """The same documents on a device; the lengths stay where they are, for they are read."""
        decided_N, labels_N = self.decided_N.to(device), self.labels_N.to(device)
        return Corpus(self.ids_NT.to(device), self.lengths_N, decided_N, labels_N)


class Batch(NamedTuple):
    """Documents of about one length."""

    ids_BT: Tensor
    """int64, padded on the right."""
    decided_B: Tensor
    """As in the corpus."""
    labels_B: Tensor
    """As in the corpus."""


class Rows(NamedTuple):
    """Encoded documents in the order written."""

    ids_NT: NDArray[np.uint16]
    """Padded on the right."""
    decided_N: NDArray[np.int64]
    """The first token that a cue decides; the sequence length where none does."""
    labels_N: NDArray[np.int64]


def map_chunks(work: Callable[[int], _Result], count: int, processes: int) -> Iterator[_Result]:
    """Results of ``work(chunk)`` for all chunks of ``count`` documents, in order.

    Args:
        work: Picklable; each process that runs it starts by importing its module.
        count: Documents wanted; the last chunk may hold more.
        processes: 1 works in this process.
    """
    chunks = range(-(-count // CHUNK))
    if processes == 1 or len(chunks) == 1:
        yield from map(work, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(chunks)), context, _be_one_thread) as pool:
        yield from pool.map(work, chunks, chunksize=2)


def _be_one_thread() -> None:
    """Many processes work side by side, so each keeps to one core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@cache
def _tokenizer(description: str) -> Tokenizer:
    return Tokenizer.from_str(description)


def _encode_chunk(description: str, seed: int, length: int, chunk: int) -> Rows:
    documents = list(write_chunk(seed, chunk))
    encoded = _tokenizer(description).encode_batch(
        [document.text for document in documents], add_special_tokens=False
    )
    ids_NT = np.full((len(documents), length), _PAD_ID, dtype=np.uint16)
    decided_N = np.full(len(documents), length, dtype=np.int64)
    for row, (document, coded) in enumerate(zip(documents, encoded, strict=True)):
        kept = coded.ids[:length]
        ids_NT[row, : len(kept)] = kept
        if document.decided is not None:
            ends = [end for _, end in coded.offsets[:length]]
            decided_N[row] = bisect_right(ends, document.decided)
    labels_N = np.array([document.label for document in documents], dtype=np.int64)
    return Rows(ids_NT, decided_N, labels_N)


def encode_corpus(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, count: int, length: int, processes: int = 1
) -> Rows:
    """Write and encode a corpus; any number of processes gives the same rows.

    Raises:
        ValueError: The tokenizer does not pad with token 0, as those of the toy models do.
    """
    if tokenizer.pad_token_id != _PAD_ID:
        raise ValueError(f"the padding token is {tokenizer.pad_token_id}, not {_PAD_ID}")
    rows = Rows(
        np.empty((count, length), dtype=np.uint16),
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.int64),
    )
    work = partial(_encode_chunk, tokenizer.backend_tokenizer.to_str(), seed, length)
    start = 0
    for part in map_chunks(work, count, processes):
        stop = min(start + CHUNK, count)
        rows.ids_NT[start:stop] = part.ids_NT[: stop - start]
        rows.decided_N[start:stop] = part.decided_N[: stop - start]
        rows.labels_N[start:stop] = part.labels_N[: stop - start]
        start = stop
    return rows


def build_corpus(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, count: int, length: int, processes: int = 1
) -> Corpus:
    """Encode a corpus and sort it by length."""
    rows = encode_corpus(tokenizer, seed=seed, count=count, length=length, processes=processes)
    lengths_N = (rows.ids_NT != _PAD_ID).sum(axis=1)
    order_N = np.argsort(lengths_N, kind="stable")
    return Corpus(
        torch.from_numpy(rows.ids_NT[order_N].astype(np.int32)),
        torch.from_numpy(lengths_N[order_N]),
        torch.from_numpy(rows.decided_N[order_N]),
        torch.from_numpy(rows.labels_N[order_N]),
    )


def draw_batch(
    corpus: Corpus, batch_size: int, order: torch.Generator, *, multiple: int = 1
) -> Batch:
    """Some neighbours in the sorted corpus, cut to the longest, rounded up to a multiple."""
    choices = max(1, len(corpus.ids_NT) - batch_size + 1)
    first = int(torch.randint(choices, (1,), generator=order))
    last = min(first + batch_size, len(corpus.ids_NT))
    width = -(-int(corpus.lengths_N[last - 1]) // multiple) * multiple
    return Batch(
        corpus.ids_NT[first:last, :width].long(),
        corpus.decided_N[first:last],
        corpus.labels_N[first:last],
    )


def swap_some(
    ids_BT: Tensor, *, share: float, vocab_size: int, cue_share: float = 0.0, decided_B: Tensor
) -> Tensor:
    """Replace a share of the ordinary tokens by random ones; special tokens stay.

    Args:
        ids_BT: Token ids.
        share: Of all tokens.
        vocab_size: New tokens are drawn below it.
        cue_share: Of the tokens before the decided one instead, if that is more.
        decided_B: Position of the first token that a cue decides.
    """
    place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    before_BT = place_T < decided_B[:, None]
    share_BT = share + before_BT * max(0.0, cue_share - share)
    drawn_BT = torch.rand(ids_BT.shape, device=ids_BT.device) < share_BT
    other_BT = torch.randint_like(ids_BT, NUM_SPECIAL, vocab_size)
    return torch.where(drawn_BT & (ids_BT >= NUM_SPECIAL), other_BT, ids_BT)
