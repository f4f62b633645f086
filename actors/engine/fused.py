"""The fused forwards of a GPU, where they serve the model; elsewhere the general ones serve."""

from __future__ import annotations

import logging
from typing import Any

import torch

from actors.engine.cache import PagedCache
from actors.engine.collectives import Collectives
from actors.engine.forward import Forward
from actors.model.load import LocalModel
from actors.request import EngineSpec

logger = logging.getLogger(__name__)


def fused_layers(model: LocalModel, device: torch.device) -> Any:
    """The fused forwards' layers, or None where the general step serves alone."""
    if device.type != "cuda":
        return None
    from actors.engine.fast_layers import build_layers, why_not_fast  # Triton: GPU only

    why = why_not_fast(model)
    if why:
        logger.warning("decoding without fused steps: %s", why)
        return None
    return build_layers(model)


def fused_decoder(
    layers: Any,
    model: LocalModel,
    cache: PagedCache,
    collectives: Collectives,
    spec: EngineSpec,
    max_tokens: int,
) -> Any:
    """Decode steps as CUDA graphs; None without fused layers. Collective."""
    if layers is None:
        return None
    from actors.engine.fast import FastDecoder  # Triton: GPU only

    return FastDecoder(
        model,
        cache,
        collectives,
        max_rows=spec.max_batch_requests,
        max_tokens=max_tokens,
        cuda_graphs=spec.cuda_graphs,
        layers=layers,
    )


def fused_forward(layers: Any, plain: Forward, decoder: Any) -> Any:
    """The forward for prefill and mixed batches: fused where the decode step is."""
    if layers is None:
        return plain
    from actors.engine.fast_forward import FastForward  # Triton: GPU only

    return FastForward(plain, layers, decoder.tables)
