"""Training aids act in training mode only and do what they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from jobs.toy.architecture import MODELS, build_config
from jobs.toy.regularise import (
    READ_TOKENS,
    ROUTER_BIAS_STEP,
    ResidualNoise,
    StateReadout,
    balance_loss,
    balance_router,
    run_experts_densely,
)


def fresh(model: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        build_config(model, vocab_size=1536, pad_id=0, end_id=1)
    ).eval()


def some_ids() -> torch.Tensor:
    return torch.randint(5, 1536, (4, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", MODELS)
def test_running_experts_densely_changes_nothing_but_rounding(model: str) -> None:
    network, ids = fresh(model), some_ids()
    with torch.no_grad():
        routed = network(ids).logits
        run_experts_densely(network)
        dense = network(ids).logits
    # float32 sums in another order: a few units in the last of about 7 digits.
    torch.testing.assert_close(dense, routed, atol=2e-5, rtol=0)


def test_noise_does_nothing_in_evaluation_mode() -> None:
    network, ids = fresh("toy_gqa"), some_ids()
    with torch.no_grad():
        before = network(ids).logits
        ResidualNoise(network, share=0.9, seed=0).choose_layer()
        after = network(ids).logits
    assert torch.equal(before, after)


def test_noise_pushes_one_layer_while_training() -> None:
    network, ids = fresh("toy_gqa"), some_ids()
    noise = ResidualNoise(network, share=0.9, seed=0)
    network.train()
    with torch.no_grad():
        before = network(ids).logits
        noise.choose_layer()
        after = network(ids).logits
    assert not torch.equal(before, after)


def test_noise_without_a_share_changes_nothing() -> None:
    network, ids = fresh("toy_gqa"), some_ids()
    with torch.no_grad():
        before = network.train()(ids).logits
        ResidualNoise(network, share=0.0, seed=0).choose_layer()
        after = network(ids).logits
    assert torch.equal(before, after)


def test_a_router_bias_moves_towards_idle_experts() -> None:
    gate = nn.Module()
    gate.register_buffer("e_score_correction_bias", torch.zeros(4))
    chosen = torch.tensor([[0, 1], [0, 1], [0, 2]])
    balance_router(gate, None, (torch.empty(0), torch.empty(0), chosen))
    step = ROUTER_BIAS_STEP
    # Used 3, 2, 1 and 0 times; the mean is 1.5.
    expected = torch.tensor([-step, -step, step, step])
    torch.testing.assert_close(gate.get_buffer("e_score_correction_bias"), expected)


def test_a_router_bias_stays_in_evaluation_mode() -> None:
    gate = nn.Module().eval()
    gate.register_buffer("e_score_correction_bias", torch.zeros(4))
    balance_router(gate, None, (torch.empty(0), torch.empty(0), torch.tensor([[0, 1]])))
    assert gate.get_buffer("e_score_correction_bias").abs().sum() == 0


def test_the_balance_loss_is_one_for_even_use_and_more_for_one_favourite() -> None:
    even = torch.eye(4).repeat(8, 1) * 1e-3
    favourite = torch.zeros(32, 4)
    favourite[:, 0] = 20.0
    favourite[:, 1] = 19.0
    assert float(balance_loss((even,))) == pytest.approx(1.0, abs=0.3)
    assert float(balance_loss((favourite,))) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_a_readout_learns_the_state_that_the_middle_layers_hold(model: str) -> None:
    network, ids = fresh(model).train(), some_ids()
    readout = StateReadout(network, num_states=22)
    decided, labels = torch.full((4,), 6), torch.tensor([3, 7, 3, 21])
    optimizer = torch.optim.Adam([*network.parameters(), *readout.parameters()], lr=1e-3)
    losses = []
    for _ in range(12):
        readout.clear()
        network(ids)
        loss = readout.loss(decided, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert 2.0 <= losses[0] <= 4.5  # about log 22 for a head that knows nothing
    assert losses[-1] < losses[0] - 0.5


def test_a_readout_reads_only_from_the_cue_on_and_only_where_there_is_one() -> None:
    network, ids = fresh("toy_gqa").train(), some_ids()
    readout = StateReadout(network, num_states=22)
    network(ids)
    none = torch.full((4,), -1)
    assert float(readout.loss(torch.full((4,), 6), none)) == 0.0
    late = torch.full((4,), ids.shape[1] + 1)
    assert float(readout.loss(late, none + 4)) == 0.0
    one = torch.tensor([-1, -1, 5, -1])
    assert float(readout.loss(torch.full((4,), 6), one)) > 0.0
    assert READ_TOKENS >= 5


def test_a_readout_leaves_no_trace_in_evaluation_mode_or_in_the_weights() -> None:
    network, ids = fresh("toy_gqa"), some_ids()
    names = set(network.state_dict())
    with torch.no_grad():
        before = network(ids).logits
        readout = StateReadout(network, num_states=22)
        after = network(ids).logits
    assert torch.equal(before, after)
    assert set(network.state_dict()) == names
    with pytest.raises(ValueError):
        readout.loss(torch.full((4,), 6), torch.full((4,), 3))
