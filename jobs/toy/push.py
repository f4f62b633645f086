"""Add vectors to a running model for as long as a block lasts, and leave no trace after it."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel


class Push:
    """Adds one vector per row to the output of one layer, at every position."""

    def __init__(self, model: PreTrainedModel, layer: int, vectors_BD: Tensor) -> None:
        self._vectors_B1D = vectors_BD[:, None, :].to(model.device)
        self._handle = model.model.layers[layer].register_forward_hook(self._add)

    def _add(self, layer: nn.Module, args: object, output: Tensor) -> Tensor:
        del layer, args
        return output + self._vectors_B1D.to(output.dtype)

    def __enter__(self) -> Push:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()
