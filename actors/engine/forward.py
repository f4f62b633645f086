"""One packed forward through unmodified decoder layers, with exactly two all-reduces per layer.

The loop calls the family's own modules and makes every site visible between them. Under tensor
parallelism attention and feed-forward outputs are partial sums until their all-reduce; sites are
offered after it, so each rank sees the whole, identical value.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from actors.engine.attention import AttentionContext, attach
from actors.engine.batch import Batch
from actors.engine.cache import PagedCache
from actors.engine.collectives import Collectives
from actors.engine.experts import use_grouped_experts
from actors.model.load import LocalModel


class Sites(Protocol):
    """What a step does at the named places of a layer."""

    def visit(self, site: str, layer: int, value_ND: Tensor) -> None:
        """Read and, for steerable sites, change ``value_ND`` in place."""

    def wants(self, site: str) -> bool:
        """True when some request reads this site in this bundle."""

    def changes(self, site: str, layer: int) -> bool:
        """True when some row is steered at this place in this step."""


class FusedSites(Sites, Protocol):
    """Sites that a fused forward can take apart: steering in its own kernel, reading after it."""

    def fused(self, site: str, layer: int) -> tuple[Tensor, ...] | None:
        """Steering as ``residual_norm`` takes it, or None when it cannot be fused."""

    def read(self, site: str, layer: int, value_ND: Tensor) -> None:
        """Read a value that is steered already."""


class Forward:
    """Runs batches through a local model."""

    def __init__(self, model: LocalModel, cache: PagedCache, collectives: Collectives) -> None:
        self.model = model
        self.cache = cache
        self.collectives = collectives
        self.context = AttentionContext(cache)
        attach(model.layers, self.context)
        use_grouped_experts(model.module.config)
        self._router: tuple[Tensor, ...] | None = None
        for layer in model.layers:
            if hasattr(layer.mlp, "gate"):
                layer.mlp.gate.register_forward_hook(self._keep_router)

    def _keep_router(self, module: Any, args: Any, output: tuple[Tensor, ...]) -> None:
        del module, args
        self._router = output

    def embed(self, ids_N: Tensor) -> Tensor:
        """Vocabulary-parallel embedding, ``[N, D]``. Collective."""
        model = self.model
        if model.world_size == 1:
            return functional.embedding(ids_N, model.embedding_VD)
        mine = (ids_N >= model.vocab_start) & (ids_N < model.vocab_stop)
        local = torch.where(mine, ids_N - model.vocab_start, 0)
        hidden = functional.embedding(local, model.embedding_VD)
        hidden = torch.where(mine[:, None], hidden, 0)
        return self.collectives.all_reduce(hidden)

    @torch.inference_mode()
    def run(self, batch: Batch, sites: Sites) -> Tensor:
        """Hidden rows after the last layer, before the final norm: ``[N, D]``. Collective."""
        self.context.batch = batch
        self.cache.slots_N = batch.slots_N
        hidden = self.embed(batch.ids_N)[None]
        rotary = self.model.rotary(hidden, batch.positions_N[None])
        for number, layer in enumerate(self.model.layers):
            hidden = self._layer(number, layer, hidden, rotary, sites)
        self.context.batch = None
        return hidden[0]

    def _layer(
        self, number: int, layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], sites: Sites
    ) -> Tensor:
        sites.visit("resid_pre", number, hidden[0])
        attended, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            position_embeddings=rotary,
            attention_mask=None,
            past_key_values=self.cache,
        )
        attended = self.collectives.all_reduce(attended)
        if sites.wants("mla_latent"):
            slots = self.cache.slots_N
            sites.visit("mla_latent", number, self.cache.keys[number][slots][:, 0])
        sites.visit("attn_out", number, attended[0])
        hidden = hidden + attended
        sites.visit("resid_mid", number, hidden[0])
        out = self.collectives.all_reduce(layer.mlp(layer.post_attention_layernorm(hidden)))
        if sites.wants("router") and self._router is not None:
            logits, weights, experts = self._router
            sites.visit("router", number, logits)
            sites.visit("router_weights", number, weights)
            sites.visit("router_experts", number, experts)
        self._router = None
        sites.visit("mlp_out", number, out[0])
        hidden = hidden + out
        sites.visit("resid_post", number, hidden[0])
        return hidden

    @torch.inference_mode()
    def local_logits(self, hidden_ND: Tensor) -> Tensor:
        """This rank's columns of the logits, float32 ``[N, V / world_size]``; padding is -inf."""
        model = self.model
        normed = model.norm(hidden_ND)
        logits = functional.linear(normed, model.head_VD).float()
        held = model.vocab_stop - model.vocab_start
        if held < logits.shape[-1]:
            logits[:, held:] = float("-inf")
        return logits
