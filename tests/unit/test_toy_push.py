"""A push reaches one layer, row by row, and ends with its block."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from jobs.toy.architecture import build_config
from jobs.toy.push import Push


def test_each_row_gets_its_own_vector_and_nothing_stays() -> None:
    torch.manual_seed(0)
    config = build_config("toy_gqa", vocab_size=1536, pad_id=0, end_id=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    vectors = torch.stack([torch.zeros(128), torch.full((128,), 2.0)])
    with torch.no_grad():
        before = model(ids).logits
        with Push(model, 3, vectors):
            pushed = model(ids).logits
        after = model(ids).logits
    assert torch.equal(before, after)
    # The rows share expert matmuls, whose float32 sums depend on how many rows come along.
    torch.testing.assert_close(pushed[0], before[0], atol=1e-5, rtol=0)
    assert (pushed[1] - before[1]).abs().max() > 0.1
