"""What a decode step must read, over the bandwidth of the same run: its floor."""

from __future__ import annotations

from actors.engine.engine import Engine
from actors.model.fp8_experts import scales_of

CONTEXT = 64
"""Tokens of each sequence before the steps that are timed."""


def floor_ms(engine: Engine, rows: int, bandwidth: float, all_reduce_us: float) -> float:
    """Milliseconds below which one decode step cannot go on this machine."""
    facts, total = engine.model.facts, 0.0
    in_fp8 = bool(scales_of(engine.model.module))
    for name, parameter in engine.model.module.named_parameters():
        size = parameter.numel() * parameter.element_size()
        if ".experts." in name:
            k, e, held = facts.config["num_experts_per_tok"], facts.num_experts, len(parameter)
            # FP8 experts are held together with the shared one, which every row uses.
            size *= (e * (1 - (1 - k / e) ** rows) + held - e) / held
        elif "shared_experts" in name and in_fp8:
            continue  # a copy, which decode steps do not read
        total += size
    total += engine.model.head_VD.numel() * engine.model.head_VD.element_size()
    layers = facts.num_layers
    total += rows * (CONTEXT + 32) * engine.cache.shape.bytes_per_token(layers, 2)
    return total / bandwidth * 1e3 + (2 * layers + 1) * all_reduce_us / 1e3
