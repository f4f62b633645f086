"""A replayed step learns as an ordinary one does, and is recorded once per shape and key."""

from __future__ import annotations

import pytest
import torch

from jobs.toy.batches import Batch
from jobs.toy.graphs import WARM_UP_STEPS, StepGraphs


@pytest.mark.gpu
def test_a_replay_does_what_the_step_does_with_the_new_batch() -> None:
    total = torch.zeros((), device="cuda")
    calls = []

    def step(batch: Batch) -> torch.Tensor:
        calls.append(batch.ids_BT.shape)
        total.add_(batch.ids_BT.sum())
        return total * 2

    graphs = StepGraphs(step, lambda: None)
    zeros = torch.zeros(2, device="cuda")
    ones = Batch(torch.ones(2, 3, dtype=torch.long, device="cuda"), zeros, zeros)
    twos = Batch(ones.ids_BT * 2, zeros, zeros)
    # Two warm-up steps and the first replay add 6 each; recording itself adds nothing.
    assert float(graphs(0, ones)) == 36.0
    assert float(graphs(0, twos)) == 60.0
    assert len(calls) == WARM_UP_STEPS + 1
    graphs(1, ones)
    assert len(calls) == 2 * (WARM_UP_STEPS + 1)
