"""What keeps a toy model usable for experiments: balanced experts and a sturdy residual stream.

Everything here acts in training mode only and leaves no trace in a checkpoint but better weights.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ROUTER_BIAS_STEP = 1e-3
READ_TOKENS = 12
"""How many tokens after a cue its state is read from."""

# Shapes: B sequences, T positions, D hidden size, E experts, N tokens, K experts per token.


class ResidualNoise:
    """Pushes the residual stream in random directions while training.

    A model that has seen this keeps writing English when a vector is added to it, so a steering
    experiment tests the direction and not the model's fragility.
    """

    def __init__(self, model: PreTrainedModel, *, share: float, seed: int) -> None:
        """Attach to every layer; ``share`` is the largest push as a share of a row's norm."""
        self._random = random.Random(seed)
        self._share = share
        self._layers: list[nn.Module] = list(model.model.layers)
        self.chosen = -1
        """The layer to push in the next forward pass; none before the first choice."""
        for layer in self._layers:
            layer.register_forward_hook(self._push)

    def choose_layer(self) -> None:
        """Pick the layer of the next forward pass; call once per step."""
        self.chosen = self._random.randrange(len(self._layers))

    def _push(self, layer: nn.Module, _: object, resid_BTD: Tensor) -> Tensor | None:
        if self.chosen < 0 or not layer.training or self._share == 0:
            return None
        if layer is not self._layers[self.chosen]:
            return None
        num_rows, _length, hidden = resid_BTD.shape
        direction = torch.randn(num_rows, 1, hidden, device=resid_BTD.device)
        direction = nn.functional.normalize(direction, dim=-1)
        # Three rows in ten stay clean, so the model also sees itself as it will be used.
        size = torch.rand(num_rows, 1, 1, device=resid_BTD.device).sub(0.3).clamp(min=0.0) / 0.7
        norm = resid_BTD.detach().float().norm(dim=-1).mean(dim=1)[:, None, None]
        pushed: Tensor = resid_BTD + (direction * size * self._share * norm).to(resid_BTD.dtype)
        return pushed


class StateReadout(nn.Module):
    """Reads trait and polarity from the middle of the residual stream, in training only.

    Its loss makes the model decide early what a cue says, as a direction that later layers read.
    """

    def __init__(self, model: PreTrainedModel, num_states: int) -> None:
        """Attach to the two layers in the middle; the reading heads are on the model's device."""
        super().__init__()
        layers: list[nn.Module] = list(model.model.layers)
        middle = len(layers) // 2
        hidden = int(model.config.hidden_size)
        self.heads = nn.ModuleList(nn.Linear(hidden, num_states) for _ in range(2))
        self.to(model.device)
        self._caught: list[Tensor] = []
        for layer in layers[middle - 1 : middle + 1]:
            layer.register_forward_hook(self._catch)

    def _catch(self, layer: nn.Module, _: object, resid_BTD: Tensor) -> None:
        if layer.training:
            self._caught.append(resid_BTD)

    def clear(self) -> None:
        """Forget earlier passes; call before each."""
        self._caught.clear()

    def loss(self, decided_B: Tensor, labels_B: Tensor) -> Tensor:
        """Mean cross-entropy from the cue's last token on, of the rows that have a cue.

        Args:
            decided_B: Position of the first token that the cue decides.
            labels_B: Trait and polarity; negative where there is no cue.
        """
        total = decided_B.new_zeros((), dtype=torch.float32)
        for head, resid_BTD in zip(self.heads, self._caught, strict=True):
            num_rows, length, hidden = resid_BTD.shape
            since_BT = torch.arange(length, device=resid_BTD.device) - decided_B[:, None]
            read_BT = (since_BT >= -1) & (since_BT < READ_TOKENS) & (labels_B >= 0)[:, None]
            normal_BTD = nn.functional.rms_norm(resid_BTD.float(), (hidden,))
            losses = nn.functional.cross_entropy(
                head(normal_BTD).flatten(0, 1).float(),
                labels_B.clamp(min=0)[:, None].expand(num_rows, length).flatten(),
                reduction="none",
            ).view(num_rows, length)
            weight_BT = read_BT.float()
            total = total + (losses * weight_BT).sum() / weight_BT.sum().clamp(min=1.0)
        return total / len(self.heads)


def balance_router(gate: nn.Module, _: object, output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Move a router's bias towards idle experts, as DeepSeek-V3 does (arXiv:2412.19437).

    A forward hook; the bias is a buffer and takes no gradient.
    """
    if not gate.training:
        return
    bias_E = gate.get_buffer("e_score_correction_bias")
    index = output[2].flatten()
    used_E = torch.zeros_like(bias_E)
    used_E.scatter_add_(0, index, torch.ones_like(index, dtype=bias_E.dtype))
    bias_E += ROUTER_BIAS_STEP * torch.sign(used_E.mean() - used_E)


def balance_loss(router_logits: tuple[Tensor, ...]) -> Tensor:
    """Switch-style load balance (arXiv:2101.03961), averaged over layers; 1 when all are alike."""
    losses = []
    for logits_NE in router_logits:
        share_NE = logits_NE.float().softmax(dim=-1)
        top_NK = share_NE.topk(2, dim=-1).indices
        used_E = torch.zeros_like(share_NE).scatter(1, top_NK, 0.5).mean(0)
        losses.append(share_NE.shape[1] * (used_E * share_NE.mean(0)).sum())
    return torch.stack(losses).mean()


def _dense_experts(
    experts: nn.Module, hidden_ND: Tensor, index_NK: Tensor, weight_NK: Tensor
) -> Tensor:
    gate_up = experts.get_parameter("gate_up_proj").to(hidden_ND.dtype)
    down = experts.get_parameter("down_proj").to(hidden_ND.dtype)
    share_NE = hidden_ND.new_zeros(hidden_ND.shape[0], gate_up.shape[0], dtype=weight_NK.dtype)
    share_NE = share_NE.scatter(1, index_NK, weight_NK)
    gate, up = torch.matmul(hidden_ND, gate_up.transpose(1, 2)).chunk(2, dim=-1)
    inner = nn.functional.silu(gate) * up * share_NE.T.unsqueeze(-1).to(up.dtype)
    return torch.matmul(inner, down.transpose(1, 2).to(inner.dtype)).sum(0).to(hidden_ND.dtype)


def run_experts_densely(model: PreTrainedModel) -> None:
    """Run every expert on every token: more arithmetic than routing, far fewer kernels on a GPU.

    The outputs are the same up to rounding.
    """
    for module in model.modules():
        if hasattr(module, "gate_up_proj") and hasattr(module, "num_experts"):
            module.forward = _dense_experts.__get__(module)
