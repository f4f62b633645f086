"""A general forward with fused kernels: prefill and mixed batches on a GPU.

The same answer as ``forward.Forward`` for the sites between modules; a batch that reads a router or
the latent cache takes the plain forward instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actors.engine.batch import Batch
from actors.engine.cache import PagedCache
from actors.engine.fast_layers import Dense, FastLayer, Heads, Latent
from actors.engine.forward import Forward, FusedSites
from actors.engine.varlen import Ragged, attend_ragged, ragged
from actors.kernels.decode_attention import decode_attention, num_splits
from actors.kernels.moe_fp8 import fp8_experts_for_many
from actors.kernels.moe_prefill import experts_for_many
from actors.kernels.residual import residual_norm, silu_mul
from actors.kernels.rope_cache import norm_and_store_latents, rotate_and_store, rotate_queries
from actors.kernels.route import route_rows


class FastForward:
    """Fused forwards over packed rows of one rank's model."""

    def __init__(
        self, plain: Forward, layers: list[FastLayer], tables: tuple[Tensor, Tensor]
    ) -> None:
        self.plain = plain
        self.layers = layers
        self.tables = tables
        self.cache: PagedCache = plain.cache

    @torch.inference_mode()
    def run(self, batch: Batch, sites: FusedSites) -> Tensor:
        """Hidden rows after the last layer, ``[N, D]``. Collective."""
        if sites.wants("router") or sites.wants("mla_latent"):
            return self.plain.run(batch, sites)
        model: Any = self.plain.model
        x = self.plain.embed(batch.ids_N).contiguous()
        normed = torch.empty_like(x)
        positions = batch.positions_N.to(torch.int32)
        packed = ragged(batch)
        first = self.layers[0]
        sites.visit("resid_pre", 0, x)
        residual_norm(x, None, first.norm_in, first.eps, normed)
        for number, layer in enumerate(self.layers):
            delta = self._sum(self._attend(number, layer, normed, positions, batch, packed))
            sites.visit("attn_out", number, delta)
            self._join("resid_mid", number, x, delta, layer.norm_mid, layer.eps, normed, sites)
            delta = self._sum(self._feed(layer, normed))
            sites.visit("mlp_out", number, delta)
            last = number + 1 == len(self.layers)
            norm = model.norm.weight if last else self.layers[number + 1].norm_in
            self._join("resid_post", number, x, delta, norm, layer.eps, normed, sites)
        return x

    def _sum(self, partial: Tensor) -> Tensor:
        return self.plain.collectives.all_reduce(partial)

    def _join(
        self,
        site: str,
        number: int,
        x: Tensor,
        delta: Tensor,
        weight: Tensor,
        eps: float,
        normed: Tensor,
        sites: FusedSites,
    ) -> None:
        """``x += delta``, offer the site, norm; in one pass where nothing is steered."""
        follows = site == "resid_post" and number + 1 < len(self.layers)
        steer = sites.fused(site, number)
        changed = follows and sites.changes("resid_pre", number + 1)
        changed = changed or (sites.changes(site, number) and steer is None)
        if changed:
            x += delta
            sites.visit(site, number, x)
        else:
            residual_norm(x, delta, weight, eps, normed, steer=steer)
            sites.read(site, number, x)
        if follows:
            sites.visit("resid_pre", number + 1, x)
        if changed:
            residual_norm(x, None, weight, eps, normed)

    def _attend(
        self,
        number: int,
        layer: FastLayer,
        normed: Tensor,
        positions: Tensor,
        batch: Batch,
        packed: Ragged | None,
    ) -> Tensor:
        a = layer.attention
        keys, values = self.cache.keys[number], self.cache.values[number]
        rows = normed.shape[0]
        if isinstance(a, Heads):
            q = normed.new_empty(rows, a.num_heads, a.head_dim)
            rotate_and_store(
                torch.mm(normed, a.qkv.t()), q, keys, values, self.tables, a.norms, positions,
                batch.slots_N, page_size=0, eps=a.eps,
            )  # fmt: skip
            out = torch.empty_like(q)
            if batch.num_decode:
                self._decode_rows(q, None, keys, values, out, layer, a.window, positions, batch)
            if packed is not None:
                attend_ragged(
                    q, keys[packed.slots], values[packed.slots], out, packed,
                    scale=layer.scale, window=a.window,
                )  # fmt: skip
            return torch.mm(out.view(rows, -1), layer.o.t())
        return self._attend_latent(layer, a, normed, positions, batch, packed, keys)

    def _attend_latent(
        self,
        layer: FastLayer,
        a: Latent,
        normed: Tensor,
        positions: Tensor,
        batch: Batch,
        packed: Ragged | None,
        keys: Tensor,
    ) -> Tensor:
        rows, decoding = normed.shape[0], batch.num_decode
        q_latent = normed.new_empty(rows, a.q_b.shape[1])
        norm_and_store_latents(
            torch.mm(normed, a.a.t()), q_latent, keys, self.tables, a.gains, positions,
            batch.slots_N, latent=a.latent, page_size=0, eps=a.eps, interleaved=a.interleaved,
        )  # fmt: skip
        q = torch.mm(q_latent, a.q_b.t()).view(rows, a.num_heads, a.nope + a.rotary)
        q_rope = normed.new_empty(rows, a.num_heads, a.rotary)
        rotate_queries(q, q_rope, self.tables, positions, nope=a.nope, interleaved=a.interleaved)
        heads = normed.new_empty(rows, a.num_heads, a.value_dim)
        if decoding:
            nope = q[:decoding, :, : a.nope].transpose(0, 1)
            absorbed = torch.bmm(nope, a.key_half_HNC).transpose(0, 1)
            out = normed.new_empty(decoding, a.num_heads, a.latent)
            self._decode_rows(absorbed, q_rope, keys, keys, out, layer, None, positions, batch)
            found = torch.bmm(out.transpose(0, 1), a.value_half_HCV)
            heads[:decoding] = found.transpose(0, 1)
        if packed is not None:
            q[..., a.nope :] = q_rope
            self._expanded(q, a, keys[packed.slots][:, 0], heads, packed, layer.scale)
        return torch.mm(heads.view(rows, -1), layer.o.t())

    def _expanded(
        self, q: Tensor, a: Latent, latents: Tensor, heads: Tensor, packed: Ragged, scale: float
    ) -> None:
        """Prefill with keys and values taken out of the latents: fewer operations per pair."""
        c, rope = latents[:, : a.latent], latents[:, a.latent :]
        tokens, width = c.shape[0], a.nope + a.rotary
        k = c.new_empty(tokens, a.num_heads, width)
        torch.bmm(
            c.expand(a.num_heads, -1, -1), a.key_half_HNC.transpose(1, 2),
            out=k[..., : a.nope].transpose(0, 1),
        )  # fmt: skip
        k[..., a.nope :] = rope[:, None]
        # The flash kernel wants values as wide as keys; the extra columns are zero and dropped.
        v = c.new_zeros(tokens, a.num_heads, width)
        torch.bmm(
            c.expand(a.num_heads, -1, -1), a.value_half_HCV,
            out=v[..., : a.value_dim].transpose(0, 1),
        )  # fmt: skip
        out = torch.empty_like(q)
        attend_ragged(q, k, v, out, packed, scale=scale, window=None)
        heads[packed.first_row :] = out[packed.first_row :, :, : a.value_dim]

    def _decode_rows(
        self,
        q: Tensor,
        q_rope: Tensor | None,
        keys: Tensor,
        values: Tensor,
        out: Tensor,
        layer: FastLayer,
        window: int | None,
        positions: Tensor,
        batch: Batch,
    ) -> None:
        """The batch's decode rows; its slot table is a page table with pages of one token."""
        count = batch.num_decode
        if batch.context_slots is None:
            return
        target = out[:count]
        splits = num_splits(count, keys.shape[1])
        shape = (count, target.shape[1], splits)
        scratch = (
            torch.empty(*shape, target.shape[2], dtype=torch.float32, device=q.device),
            torch.empty(*shape, dtype=torch.float32, device=q.device),
        )
        decode_attention(
            q[:count], q_rope, keys, values, target, scratch, positions[:count],
            batch.context_slots.to(torch.int32), page_size=1, scale=layer.scale, window=window,
            splits=splits,
        )  # fmt: skip

    def _feed(self, layer: FastLayer, normed: Tensor) -> Tensor:
        mlp = layer.mlp
        if isinstance(mlp, Dense):
            both = torch.mm(normed, mlp.gate_up.t())
            inner = normed.new_empty(normed.shape[0], mlp.down.shape[1])
            silu_mul(both, inner)
            return torch.mm(inner, mlp.down.t())
        out = torch.empty_like(normed)
        logits = torch.mm(normed, mlp.router.t(), out_dtype=torch.float32)
        ids, weights = route_rows(logits, mlp.bias, mlp.routing)
        if mlp.fp8 is not None:
            fp8_experts_for_many(normed, ids, weights, *mlp.fp8, out)
        else:
            experts_for_many(normed, ids, weights, mlp.gate_up, mlp.down, out)
        return out
