"""Stock transformers with the engine's own random weights: the oracle of the GPU tests."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from actors.engine.engine import Engine
from actors.request import Request


def stock_twin(engine: Engine, path: Path, dtype: torch.dtype) -> Any:
    """A stock model on the GPU with the weights of an engine of one rank."""
    config = AutoConfig.from_pretrained(path)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    state = dict(engine.model.module.state_dict())
    vocab = engine.info.vocab_size
    state["model.embed_tokens.weight"] = engine.model.embedding_VD[:vocab]
    state["lm_head.weight"] = engine.model.head_VD[:vocab]
    missing = model.load_state_dict(state, strict=False)
    assert not missing.missing_keys, missing.missing_keys
    return model


def steer_in(model: Any, asked: Request, vectors: dict[str, np.ndarray]) -> Any:
    """Steer a stock model as a request says, by a plain hook on the layer's output."""
    if not asked.steering:
        return nullcontext()
    (steering,) = asked.steering
    v, c = torch.from_numpy(vectors[steering.vector]).cuda(), steering.coefficient

    def change(layer: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        h, u = hidden.float(), v / v.norm()
        along = (h @ u)[..., None]
        changed = {
            "add": h + c * v,
            "add_norm_matched": h + c * h.norm(dim=-1, keepdim=True) * v,
            "ablate": h - c * along * u,
            "floor": h + (c - along).clamp_min(0) * u,
            "ceiling": h + (c - along).clamp_max(0) * u,
        }[steering.operator].to(hidden.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return model.model.layers[steering.layer].register_forward_hook(change)
