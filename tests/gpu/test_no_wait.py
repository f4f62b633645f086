"""The host goes on while a forward runs: neither its batch nor its sampling waits for the device.

PyTorch itself raises at whatever waits (``torch.cuda.set_sync_debug_mode``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from actors.engine.batch import build_batch
from actors.engine.collectives import Collectives
from actors.engine.sampler import sample
from actors.engine.sequence import Sequence, Span
from actors.request import Request, Sampling

VOCAB = 3000
WAYS = {
    "greedy": {},
    "drawn": {"temperature": 0.7, "seed": 3},
    "cut": {"temperature": 1.0, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
    "penalised": {"temperature": 1.0, "repetition_penalty": 1.3},
}


@pytest.fixture
def raising() -> Iterator[None]:
    """Within, a wait for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def sequence(index: int, way: str, **more: object) -> Sequence:
    sampling = Sampling(max_new_tokens=8, **WAYS[way])  # type: ignore[arg-type]
    request = Request(id=f"{way}{index}", token_ids=(5, 6, 7, 8, 9), sampling=sampling)
    request = replace(request, **more)  # type: ignore[arg-type]
    return Sequence(request, index, list(request.token_ids), pages=[index + 1])


@pytest.mark.gpu
@pytest.mark.usefixtures("raising")
def test_a_wait_would_be_seen() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(3, device="cuda").sum().item()


@pytest.mark.gpu
@pytest.mark.usefixtures("raising")
@pytest.mark.parametrize("asks", [{}, {"num_top_logprobs": 5, "logprob_token_ids": (3, 2999)}])
def test_sampling_waits_for_nothing(asks: dict[str, object]) -> None:
    sequences = tuple(sequence(i, way, **asks) for i, way in enumerate([*WAYS, *WAYS]))
    logits = torch.randn(len(sequences), VOCAB, device="cuda")
    before = logits.clone()  # sampling overwrites
    chosen = sample(
        logits, sequences, vocab_start=0, vocab_stop=VOCAB, collectives=Collectives(0, 1, None)
    )
    torch.cuda.set_sync_debug_mode("default")
    on_cpu = sample(
        before.cpu(),
        sequences,
        vocab_start=0,
        vocab_stop=VOCAB,
        collectives=Collectives(0, 1, None),
    )
    assert chosen.token_ids.tolist() == on_cpu.token_ids.tolist()


@pytest.mark.gpu
@pytest.mark.usefixtures("raising")
def test_a_batch_waits_for_nothing() -> None:
    decode, prompt = sequence(0, "greedy"), sequence(1, "drawn")
    batch = build_batch([Span(decode, 4, 5), Span(prompt, 0, 5)], 16, torch.device("cuda"))
    assert batch.num_rows == 6
