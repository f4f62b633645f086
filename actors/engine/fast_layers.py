"""A decode step sees the decoder layers' own weights, joined where one product does for several.

Joining moves a module's weights into the joined tensor and points the module at its part, so
nothing is held twice and both paths read the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actors.engine.attention import latent_halves
from actors.kernels.route import Routing
from actors.model.block_scales import BlockScaled
from actors.model.fp8_experts import block_scaled, is_fp8
from actors.model.load import LocalModel


@dataclass(slots=True)
class Heads:
    """Grouped-query attention."""

    qkv: Tensor
    """``[(H + 2 KV) D, hidden]``"""
    norms: tuple[Tensor, Tensor] | None
    eps: float
    num_heads: int
    head_dim: int
    window: int | None


@dataclass(slots=True)
class Latent:
    """Multi-head latent attention, absorbed."""

    a: Tensor
    """``[q_lora + latent + rotary, hidden]``"""
    gains: tuple[Tensor, Tensor]
    eps: tuple[float, float]
    q_b: Tensor
    key_half_HNC: Tensor
    value_half_HCV: Tensor
    num_heads: int
    nope: int
    rotary: int
    latent: int
    value_dim: int
    interleaved: bool


@dataclass(slots=True)
class Dense:
    """Gated feed-forward."""

    gate_up: Tensor
    down: Tensor


@dataclass(slots=True)
class Experts:
    """Mixture of experts, the shared one last."""

    router: Tensor
    bias: Tensor | None
    routing: Routing
    gate_up: Tensor
    """``[E, 2I, D]``"""
    down: Tensor
    """``[E, D, I]``"""
    fp8: tuple[BlockScaled, BlockScaled] | None
    """Both with their scales, where they are FP8."""


@dataclass(slots=True)
class FastLayer:
    """What one decoder layer needs in a decode step."""

    norm_in: Tensor
    norm_mid: Tensor
    eps: float
    attention: Heads | Latent
    o: Tensor
    scale: float
    mlp: Dense | Experts


def _join(*modules: Any) -> Tensor:
    """One weight from several; the modules then view their rows of it."""
    joined = torch.cat([m.weight for m in modules])
    row = 0
    for module in modules:
        rows = module.weight.shape[0]
        module.weight.data = joined[row : row + rows]
        row += rows
    return joined


def _attention(module: Any, config: Any) -> Heads | Latent:
    if hasattr(module, "kv_a_proj_with_mqa"):
        key_half, value_half = latent_halves(module)
        return Latent(
            a=_join(module.q_a_proj, module.kv_a_proj_with_mqa),
            gains=(module.q_a_layernorm.weight, module.kv_a_layernorm.weight),
            eps=(module.q_a_layernorm.variance_epsilon, module.kv_a_layernorm.variance_epsilon),
            q_b=module.q_b_proj.weight,
            key_half_HNC=key_half,
            value_half_HCV=value_half.transpose(1, 2),
            num_heads=module.num_heads,
            nope=module.qk_nope_head_dim,
            rotary=module.qk_rope_head_dim,
            latent=module.kv_lora_rank,
            value_dim=module.v_head_dim,
            interleaved=bool(config.rope_interleave),
        )
    normed = hasattr(module, "q_norm")
    return Heads(
        qkv=_join(module.q_proj, module.k_proj, module.v_proj),
        norms=(module.q_norm.weight, module.k_norm.weight) if normed else None,
        eps=module.q_norm.variance_epsilon if normed else 0.0,
        num_heads=config.num_attention_heads,
        head_dim=module.head_dim,
        # A layer's own None counts: models mix layers with a window and without.
        window=getattr(module, "sliding_window", getattr(config, "sliding_window", None)),
    )


def _mlp(module: Any, config: Any) -> Dense | Experts:
    if not hasattr(module, "gate"):
        return Dense(_join(module.gate_proj, module.up_proj), module.down_proj.weight)
    experts, gate = module.experts, module.gate
    shared = getattr(module, "shared_experts", None)
    sigmoid = hasattr(gate, "e_score_correction_bias")
    fp8 = block_scaled(experts) if is_fp8(experts) else None
    if fp8 is not None:
        gate_up, down = fp8[0].values, fp8[1].values
    elif shared is not None:
        gate_up, down = _append_shared(experts, shared)
    else:
        gate_up, down = experts.gate_up_proj, experts.down_proj
    return Experts(
        router=gate.weight,
        bias=gate.e_score_correction_bias if sigmoid else None,
        routing=Routing(
            top_k=gate.top_k,
            sigmoid=sigmoid,
            normalise=bool(config.norm_topk_prob),
            scale=float(getattr(gate, "routed_scaling_factor", 1.0)),
            num_shared=int(shared is not None),
            num_groups=int(getattr(gate, "num_group", 1)),
            top_groups=int(getattr(gate, "topk_group", 1)),
        ),
        gate_up=gate_up,
        down=down,
        fp8=fp8,
    )


def _append_shared(experts: Any, shared: Any) -> tuple[Tensor, Tensor]:
    """(gate and up, down) with the shared expert last; modules view their parts."""
    number, double, hidden = experts.gate_up_proj.shape
    width = double // 2
    found = []
    for name, shape in (("gate_up", (double, hidden)), ("down", (hidden, width))):
        old = getattr(experts, f"{name}_proj")
        joined = old.new_empty(number + 1, *shape)
        joined[:number] = old
        if name == "gate_up":
            joined[number, :width] = shared.gate_proj.weight
            joined[number, width:] = shared.up_proj.weight
            shared.gate_proj.weight.data = joined[number, :width]
            shared.up_proj.weight.data = joined[number, width:]
        else:
            joined[number] = shared.down_proj.weight
            shared.down_proj.weight.data = joined[number]
        getattr(experts, f"{name}_proj").data = joined[:number]
        found.append(joined)
        del old
    return found[0], found[1]


def why_not_fast(model: LocalModel) -> str | None:
    """Why this model has no fused decode step, or None when it has one."""
    config: Any = model.module.config
    if next(model.module.parameters()).device.type != "cuda":
        return "it is not on a GPU"
    if next(model.module.parameters()).dtype == torch.float32:
        return "its weights are float32, and flash attention and fused kernels take 16 bits"
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        return "its projections have biases"
    if model.facts.is_mla:
        if config.q_lora_rank is None:
            return "its queries are not low-rank"
        if config.n_shared_experts != 1:
            return "it has several shared experts"
    if len({type(layer) for layer in model.layers}) != 1:
        return "its layers differ in kind"
    return None


@torch.inference_mode()
def build_layers(model: LocalModel) -> list[FastLayer]:
    """Fast views of all layers; joins weights in place."""
    config: Any = model.module.config
    layers = []
    for layer in model.layers:
        module = layer.self_attn
        layers.append(
            FastLayer(
                norm_in=layer.input_layernorm.weight,
                norm_mid=layer.post_attention_layernorm.weight,
                eps=layer.input_layernorm.variance_epsilon,
                attention=_attention(module, config),
                o=module.o_proj.weight,
                scale=float(module.scaling),
                mlp=_mlp(layer.mlp, config),
            )
        )
    return layers
