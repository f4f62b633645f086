"""What a rank holds and reads, in bytes, from config.json alone: the dry run's arithmetic.

Nothing is loaded. The same slices as in ``actors.model.shard`` are counted, so that the weights of
a group are known to the byte before a GPU is reserved (a test compares both).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.model.family import ModelFacts
from actors.model.quantized import ExpertBlocks, scales_shape

ITEM_BYTES = {"float32": 4, "bfloat16": 2}
CPU_CACHE_BYTES = 512 << 20
"""KV cache of a rank without a GPU, unless ``cluster.kv_cache_bytes`` says otherwise."""
CACHE_SHARE = 0.85
"""Of the GPU memory that the weights leave; the rest is workspace for the largest forward."""


@dataclass(frozen=True, slots=True)
class RankWeights:
    """Values (not bytes) that one rank holds."""

    embedding: int
    """Looked up by row; not read by a forward as a whole."""
    shared: int
    """Read by every forward: attention, norms, routers, shared and dense feed-forward, head."""
    experts: int
    """Routed experts; a token reads ``active_share`` of them."""
    active_share: float
    fp8_bytes: int = 0
    """Of the experts in FP8, scales and a shared one among them; 0: they are like the rest."""
    unread: int = 0
    """Of ``shared``: a shared expert's plain copy, for which fused forwards read the FP8 one."""

    @property
    def total(self) -> int:
        """All of them; of a shared expert that is held twice, once."""
        return self.embedding + self.shared + self.experts

    def held_bytes(self, item: int) -> int:
        """Bytes in memory, ``item`` for each value that is not FP8."""
        if not self.fp8_bytes:
            return self.total * item
        return (self.embedding + self.shared) * item + self.fp8_bytes

    def read_bytes(self, num_rows: int, item: int) -> float:
        """Bytes that one forward over so many rows reads, routing taken as even."""
        if not self.fp8_bytes:
            return self.read(num_rows) * item
        return (self.shared - self.unread) * item + self.fp8_bytes * self._touched(num_rows)

    def read(self, num_rows: int) -> float:
        """Values that one forward over so many rows reads, routing taken as even."""
        return self.shared + self.experts * self._touched(num_rows)

    def _touched(self, num_rows: int) -> float:
        """The share of the experts that some row chooses."""
        return 1.0 - (1.0 - self.active_share) ** num_rows

    @property
    def per_token(self) -> float:
        """Values that take part in the arithmetic of one token."""
        return self.shared + self.experts * self.active_share


def rank_weights(facts: ModelFacts, size: int, blocks: ExpertBlocks | None = None) -> RankWeights:
    """Count what rank 0 of a group of ``size`` holds, its experts in FP8 ``blocks`` if any."""
    config, hidden = facts.config, facts.hidden_size
    vocab = -(-facts.vocab_size // size) * hidden
    is_tied = bool(config.get("tie_word_embeddings", False))
    experts, fp8_bytes, unread, shared = 0, 0, 0, vocab + hidden  # the head, and the last norm
    for layer in range(facts.num_layers):
        shared += _attention(facts, size) + 2 * hidden
        if _is_sparse(facts, layer):
            width = (facts.moe_intermediate_size or 0) // size
            experts += facts.num_experts * 3 * hidden * width
            fp8_bytes += _fp8_bytes(facts, width, blocks) if blocks else 0
            shared += facts.num_experts * hidden
            if facts.is_mla:  # the experts that every token visits
                visited = 3 * hidden * width * int(config.get("n_shared_experts") or 0)
                shared += visited
                unread += visited if blocks and _joins_experts(facts) else 0
        else:
            width = facts.intermediate_size // size
            shared += 3 * hidden * width
            if facts.model_type == "llama" and config.get("mlp_bias"):
                shared += 2 * width + hidden
    chosen = int(config.get("num_experts_per_tok") or 0)
    return RankWeights(
        embedding=0 if is_tied else vocab,
        shared=shared,
        experts=experts,
        active_share=chosen / facts.num_experts if facts.num_experts else 0.0,
        fp8_bytes=fp8_bytes,
        unread=unread,
    )


def _joins_experts(facts: ModelFacts) -> bool:
    """True when one shared expert lies in the routed experts' own tensor, in FP8."""
    return facts.config.get("n_shared_experts") == 1


def _fp8_bytes(facts: ModelFacts, width: int, blocks: ExpertBlocks) -> int:
    """Bytes of one layer's experts in FP8: one a value, and four a scale."""
    hidden = facts.hidden_size
    number = facts.num_experts + int(_joins_experts(facts))
    gate_up = scales_shape([2 * width, hidden], blocks.gate_up)
    down = scales_shape([hidden, width], blocks.down)
    return number * (3 * hidden * width + 4 * (gate_up[0] * gate_up[1] + down[0] * down[1]))


def cache_values_per_token(facts: ModelFacts, size: int) -> int:
    """Values that one token takes in the KV cache of one rank, all layers together."""
    config = facts.config
    if facts.is_mla:
        return facts.num_layers * int(config["kv_lora_rank"] + config["qk_rope_head_dim"])
    return facts.num_layers * 2 * max(1, facts.num_kv_heads // size) * _head_dim(facts)


def _head_dim(facts: ModelFacts) -> int:
    return int(facts.config.get("head_dim") or facts.hidden_size // facts.num_heads)


def _is_sparse(facts: ModelFacts, layer: int) -> bool:
    """True for a layer with routed experts."""
    config: dict[str, Any] = facts.config
    if not facts.num_experts:
        return False
    if facts.is_mla:
        return layer >= int(config.get("first_k_dense_replace") or 0)
    step = int(config.get("decoder_sparse_step") or 1)
    return layer not in (config.get("mlp_only_layers") or []) and (layer + 1) % step == 0


def _attention(facts: ModelFacts, size: int) -> int:
    """Values of one layer's attention on one rank."""
    config, hidden, heads = facts.config, facts.hidden_size, facts.num_heads // size
    if facts.is_mla:
        return _latent_attention(config, hidden, heads)
    dim, kv = _head_dim(facts), max(1, facts.num_kv_heads // size)
    values = 2 * heads * dim * hidden + 2 * kv * dim * hidden
    if facts.model_type in ("qwen3", "qwen3_moe"):
        values += 2 * dim  # norms of queries and keys
    if config.get("attention_bias"):
        values += (heads + 2 * kv) * dim + hidden
    return values


def _latent_attention(config: dict[str, Any], hidden: int, heads: int) -> int:
    """Multi-head latent attention: the latent projections are whole on every rank."""
    latent, rope = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
    nope, value = int(config["qk_nope_head_dim"]), int(config["v_head_dim"])
    queries = int(config.get("q_lora_rank") or 0)
    out = heads * (nope + rope)
    values = queries * hidden + queries + out * queries if queries else out * hidden
    values += (latent + rope) * hidden + latent
    if config.get("attention_bias"):
        values += queries + latent + rope + hidden
    return values + heads * (nope + value) * latent + hidden * heads * value
