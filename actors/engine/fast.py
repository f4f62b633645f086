"""One decode step as one CUDA graph: fused kernels, two sums over ranks per layer, no host between.

Tokens, positions, pages, steering and capture are data in static buffers, never graph structure, so
one graph per batch size serves every request mix. Idle rows, and rows that ran over their end and
pages, write to page 0, which no running row reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from actors.engine.all_reduce import AllReduce
from actors.engine.cache import PagedCache
from actors.engine.collectives import Collectives
from actors.engine.fast_choice import choose_tokens, take_tokens
from actors.engine.fast_layers import Dense, Experts, FastLayer, Heads, Latent
from actors.engine.fast_state import OVERRUN, DecodeState, Features, batch_sizes
from actors.engine.homes import Staging
from actors.engine.join import Joiner
from actors.engine.kept_rows import KeptRows, key_of
from actors.kernels.decode_attention import decode_attention, num_splits
from actors.kernels.embed import embed_local
from actors.kernels.moe import Scratch, make_scratch, run_experts
from actors.kernels.moe_fp8 import run_fp8_experts
from actors.kernels.residual import silu_mul
from actors.kernels.rope_cache import norm_and_store_latents, rotate_and_store, rotate_queries
from actors.kernels.route import choose_experts
from actors.model.load import LocalModel

MAX_KEPT_SETS = 4
"""Sets of layers whose raw rows have graphs; each holds rows on the device."""


class FastDecoder:
    """Fused decode steps of one rank's model."""

    def __init__(
        self,
        model: LocalModel,
        cache: PagedCache,
        collectives: Collectives,
        *,
        max_rows: int,
        max_tokens: int,
        cuda_graphs: bool,
        layers: list[FastLayer],
    ) -> None:
        self.model, self.cache, self.collectives = model, cache, collectives
        self.layers = layers
        self.device = model.head_VD.device
        self.dtype = model.head_VD.dtype
        self.width = model.facts.hidden_size
        self.sizes = batch_sizes(max_rows)
        self.state = DecodeState(
            num_layers=len(self.layers),
            max_rows=self.sizes[-1],
            max_pages=-(-(max_tokens + OVERRUN) // cache.page_size) + 1,
            width=self.width,
            device=self.device,
        )
        self.reduce = AllReduce(
            collectives.group,
            world_size=collectives.world_size,
            max_rows=self.sizes[-1],
            width=self.width,
            dtype=self.dtype,
            device=self.device,
        )
        self.joiner = Joiner(self.reduce, self.sizes, measures=cuda_graphs)
        self.tables = self._rotary_tables(max_tokens + OVERRUN + 1)
        self._graphs: dict[tuple[int, Features], torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        self._use_graphs = cuda_graphs
        self._reach = 2
        self._keeping = KeptRows(
            collectives.rank, collectives.world_size, self.sizes[-1], self.width, self.dtype,
            self.device,
        )  # fmt: skip

    @torch.inference_mode()
    def _rotary_tables(self, length: int) -> tuple[Tensor, Tensor]:
        """(cos, sin) of half the rotary width per position, rounded as the model rounds them."""
        positions = torch.arange(length, device=self.device)[None]
        like = torch.zeros(1, 1, 1, dtype=self.dtype, device=self.device)
        cos, sin = self.model.rotary(like, positions)
        half = cos.shape[-1] // 2
        return cos[0, :, :half].float().contiguous(), sin[0, :, :half].float().contiguous()

    def kept(self, features: Features) -> Tensor | None:
        """Rows that this rank keeps: ``[steps, held layers, rows, D]``; None when it keeps none."""
        return self._keeping.rows(features)

    def staging(self, features: Features) -> Staging:
        """Where kept rows leave from."""
        return self._keeping.staging(features)

    def _make_room(self, features: Features) -> None:
        """Forget the oldest set of kept layers, its rows and graphs, when there are many."""
        sets = dict.fromkeys(key_of(f) for _, f in self._graphs if f.keeps)
        if not features.keeps or key_of(features) in sets or len(sets) < MAX_KEPT_SETS:
            return
        oldest = next(iter(sets))
        torch.cuda.synchronize()
        self._keeping.forget(oldest)
        for name in [n for n in self._graphs if key_of(n[1]) == oldest]:
            del self._graphs[name]

    def size_for(self, rows: int) -> int:
        """The smallest graph that holds ``rows``."""
        return next(s for s in self.sizes if s >= rows)

    def is_ready(self, rows: int, features: Features) -> bool:
        """True when ``prepare`` has nothing to do, on every rank."""
        return not self._use_graphs or (self.size_for(rows), features) in self._graphs

    @torch.inference_mode()
    def prepare(self, rows: int, features: Features) -> None:
        """Compile and capture the graph for a batch size; the state's rows are lost. Collective."""
        if self.is_ready(rows, features):
            return
        size = self.size_for(rows)
        self._make_room(features)
        self.state.clear()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(size, features)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._step(size, features)
        self._pool = self._pool or graph.pool()
        self._graphs[size, features] = graph
        self.state.clear()

    @torch.inference_mode()
    def run(self, rows: int, features: Features) -> None:
        """Launch one decode step; waits for nothing. Collective."""
        size = self.size_for(rows)
        graph = self._graphs.get((size, features))
        if graph is None:
            self._step(size, features)
        else:
            graph.replay()

    def take(self, token_ids: Tensor) -> None:
        """Give the first rows tokens that a general forward chose."""
        take_tokens(self.state, token_ids)

    def _step(self, rows: int, features: Features) -> None:
        state, model = self.state, self.model
        self._reach = features.reach
        final: Any = model.norm
        x = torch.zeros(rows, self.width, dtype=self.dtype, device=self.device)
        normed = torch.empty_like(x)
        part = self.reduce.buffer(rows)
        embed_local(
            state.tokens[:rows], model.embedding_VD, part,
            start=model.vocab_start, stop=model.vocab_stop,
        )  # fmt: skip
        scratch = self._scratch(rows)
        first = self.layers[0]
        self.joiner.join(x, part, first.norm_in, first.eps, normed)
        for number, layer in enumerate(self.layers):
            part = self._attend(number, layer, normed)
            self.joiner.join(x, part, layer.norm_mid, layer.eps, normed)
            part = self._feed(layer, normed, scratch)
            last = number + 1 == len(self.layers)
            norm = final.weight if last else self.layers[number + 1].norm_in
            self.joiner.join(
                x, part, norm, layer.eps, normed,
                steer=state.steering(number, rows) if features.steers else None,
                capture=state.capturing(number, rows) if features.captures else None,
                keep=self._keeping.place(number, features, state.step),
            )  # fmt: skip
        choose_tokens(state, model, self.collectives, normed)

    def _scratch(self, rows: int) -> Scratch | None:
        moe = next((la.mlp for la in self.layers if isinstance(la.mlp, Experts)), None)
        if moe is None:
            return None
        top = moe.routing.top_k + moe.routing.num_shared
        experts, _, inner = moe.down.shape
        return make_scratch(rows, top, experts, inner, self.width, moe.router)

    def _attend(self, number: int, layer: FastLayer, normed: Tensor) -> Tensor:
        """Attention of new rows: this rank's part of the sum."""
        attention = layer.attention
        if isinstance(attention, Latent):
            heads = self._attend_latent(number, layer, attention, normed)
        else:
            heads = self._attend_heads(number, layer, attention, normed)
        part = self.reduce.buffer(normed.shape[0])
        return torch.mm(heads, layer.o.t(), out=part)

    def _attend_heads(self, number: int, layer: FastLayer, a: Heads, normed: Tensor) -> Tensor:
        state, rows = self.state, normed.shape[0]
        positions, pages = state.positions[:rows], state.pages[:rows]
        qkv = torch.mm(normed, a.qkv.t())
        q = normed.new_empty(rows, a.num_heads, a.head_dim)
        keys, values = self.cache.keys[number], self.cache.values[number]
        rotate_and_store(
            qkv, q, keys, values, self.tables, a.norms, positions, pages,
            page_size=self.cache.page_size, eps=a.eps,
        )  # fmt: skip
        return self._split_attention(
            q, None, keys, values, normed.new_empty(rows, a.num_heads, a.head_dim), layer, a.window
        ).view(rows, -1)

    def _attend_latent(self, number: int, layer: FastLayer, a: Latent, normed: Tensor) -> Tensor:
        state, rows = self.state, normed.shape[0]
        positions, pages = state.positions[:rows], state.pages[:rows]
        both = torch.mm(normed, a.a.t())
        q_latent = normed.new_empty(rows, a.q_b.shape[1])
        keys = self.cache.keys[number]
        norm_and_store_latents(
            both, q_latent, keys, self.tables, a.gains, positions, pages,
            latent=a.latent, page_size=self.cache.page_size, eps=a.eps, interleaved=a.interleaved,
        )  # fmt: skip
        q = torch.mm(q_latent, a.q_b.t()).view(rows, a.num_heads, a.nope + a.rotary)
        q_rope = normed.new_empty(rows, a.num_heads, a.rotary)
        rotate_queries(q, q_rope, self.tables, positions, nope=a.nope, interleaved=a.interleaved)
        absorbed = torch.bmm(q[..., : a.nope].transpose(0, 1), a.key_half_HNC)  # [H, N, C]
        out = normed.new_empty(rows, a.num_heads, a.latent)
        self._split_attention(absorbed.transpose(0, 1), q_rope, keys, keys, out, layer, None)
        heads = normed.new_empty(rows, a.num_heads, a.value_dim)
        torch.bmm(out.transpose(0, 1), a.value_half_HCV, out=heads.transpose(0, 1))
        return heads.view(rows, -1)

    def _split_attention(
        self,
        q: Tensor,
        q_rope: Tensor | None,
        keys: Tensor,
        values: Tensor,
        out: Tensor,
        layer: FastLayer,
        window: int | None,
    ) -> Tensor:
        rows, heads, dv = out.shape
        splits = num_splits(rows, keys.shape[1], self._reach)
        scratch = (
            torch.empty(rows, heads, splits, dv, dtype=torch.float32, device=self.device),
            torch.empty(rows, heads, splits, dtype=torch.float32, device=self.device),
        )
        decode_attention(
            q, q_rope, keys, values, out, scratch,
            self.state.positions[:rows], self.state.pages[:rows],
            page_size=self.cache.page_size, scale=layer.scale, window=window, splits=splits,
        )  # fmt: skip
        return out

    def _feed(self, layer: FastLayer, normed: Tensor, scratch: Scratch | None) -> Tensor:
        """Feed-forward of new rows: this rank's part of the sum, by chosen expert if any."""
        mlp = layer.mlp
        if isinstance(mlp, Dense):
            both = torch.mm(normed, mlp.gate_up.t())
            inner = normed.new_empty(normed.shape[0], mlp.down.shape[1])
            silu_mul(both, inner)
            part = self.reduce.buffer(normed.shape[0])
            return torch.mm(inner, mlp.down.t(), out=part)
        if scratch is None:
            raise RuntimeError("experts need scratch buffers")
        logits = torch.mm(normed, mlp.router.t(), out_dtype=torch.float32)
        choose_experts(logits, mlp.bias, mlp.routing, scratch.ids, scratch.weights)
        if mlp.fp8 is not None:
            return run_fp8_experts(normed, *mlp.fp8, scratch)
        return run_experts(normed, mlp.gate_up, mlp.down, scratch)
