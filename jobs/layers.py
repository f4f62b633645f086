"""Which layers a point reads and steers: those asked for, if they exist, or some of the middle."""

from __future__ import annotations

from conf.errors import UserError
from conf.resolve import JobRequest

STEERED_LAYERS = 3
"""Layers tried when none is asked for, spread over the middle half of the model."""


def check_layers(request: JobRequest, num_layers: int) -> None:
    """Refuse a layer that the model does not have.

    Raises:
        UserError: Names the layer and the layers there are.
    """
    if isinstance(request.layers, tuple):
        for layer in request.layers:
            if layer >= num_layers:
                raise UserError(
                    f"layer={layer} does not exist: model={request.model_name} has {num_layers} "
                    f"layers; use 0 to {num_layers - 1}, or all."
                )


def middle_layers(num_layers: int) -> tuple[int, ...]:
    """At most ``STEERED_LAYERS`` layers, evenly spread from a quarter to three quarters."""
    first, last = num_layers // 4, (3 * num_layers) // 4
    count = min(STEERED_LAYERS, last - first + 1)
    if count == 1:
        return (first,)
    return tuple(sorted({first + round(i * (last - first) / (count - 1)) for i in range(count)}))
