"""Mixture-of-experts as grouped products, registered with transformers as ``traitmill``.

Rows are sorted by expert and every expert's rows meet its weights once. No step waits for the host:
group sizes stay on the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.integrations.moe import ExpertsInterface

from actors.model.fp8_experts import block_scaled, is_fp8


def grouped_experts(
    module: Any, hidden_ND: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Sum over the chosen experts of weight * down(silu(gate(x)) * up(x)).

    Args:
        module: Holds ``gate_up_proj`` ``[E, 2I, D]`` and ``down_proj`` ``[E, D, I]``; in FP8 also
            their scales (``actors.model.fp8_experts``).
        hidden_ND: Rows.
        top_k_index: int64 ``[N, k]``.
        top_k_weights: ``[N, k]``.

    Returns:
        ``[N, D]``; under tensor parallelism a partial sum over this rank's columns.
    """
    if is_fp8(module):
        return _fp8_experts(module, hidden_ND, top_k_index, top_k_weights)
    num_rows, top_k = top_k_index.shape
    flat = top_k_index.reshape(-1)
    order = torch.argsort(flat, stable=True)
    num_experts = module.gate_up_proj.shape[0]
    counts = torch.zeros(num_experts, dtype=torch.int32, device=flat.device)
    counts.index_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    offsets = counts.cumsum(0, dtype=torch.int32)
    rows = hidden_ND[order // top_k]
    both = _grouped(rows, module.gate_up_proj, offsets)
    gate, up = both.chunk(2, dim=-1)
    out = _grouped(functional.silu(gate) * up, module.down_proj, offsets)
    out = out * top_k_weights.reshape(-1)[order, None]
    restored = torch.empty_like(out)
    restored[order] = out
    total = restored.view(num_rows, top_k, -1).sum(dim=1)
    return total.to(hidden_ND.dtype)


def _fp8_experts(
    module: Any, hidden_ND: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """``grouped_experts`` over experts in FP8."""
    gate_up, down = block_scaled(module)
    if hidden_ND.is_cuda and hidden_ND.dtype == torch.bfloat16:
        from actors.kernels.moe_fp8 import fp8_experts_for_many  # Triton: GPU only

        out = torch.empty_like(hidden_ND)
        ids, weights = top_k_index.to(torch.int32), top_k_weights.float()
        fp8_experts_for_many(hidden_ND.contiguous(), ids, weights, gate_up, down, out)
        return out
    # Exact and slow: it looks which experts were chosen, and widens those only.
    total = torch.zeros_like(hidden_ND)
    for expert in sorted(set(top_k_index.flatten().tolist())):
        row, place = torch.where(top_k_index == expert)
        both = hidden_ND[row] @ gate_up.expert(expert, hidden_ND.dtype).T
        gate, up = both.chunk(2, dim=-1)
        out = (functional.silu(gate) * up) @ down.expert(expert, hidden_ND.dtype).T
        total.index_add_(0, row, (out * top_k_weights[row, place, None]).to(total.dtype))
    return total


def _grouped(rows: Tensor, weights_EOI: Tensor, offsets: Tensor) -> Tensor:
    """Row group e of ``rows`` times ``weights_EOI[e]`` transposed."""
    if rows.shape[-1] * rows.element_size() % 16:
        # The grouped product wants 16-byte rows. Narrower shards exist only in tiny models, where
        # copying each row's expert is cheap.
        at = torch.arange(rows.shape[0], device=rows.device)
        expert = torch.searchsorted(offsets, at.to(offsets.dtype), right=True)
        return torch.bmm(weights_EOI[expert], rows[:, :, None])[:, :, 0]
    return functional.grouped_mm(rows, weights_EOI.transpose(-2, -1), offs=offsets)


def use_grouped_experts(config: Any) -> None:
    """Let a model's experts run here.

    Transformers honours a registered name when experts run, but its constructor refuses it.
    """
    config._experts_implementation = "traitmill"


ExpertsInterface.register("traitmill", grouped_experts)
