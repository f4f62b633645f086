"""Stock transformers with the engine's own random weights: the oracle of the GPU tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from actors.engine.engine import Engine


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
