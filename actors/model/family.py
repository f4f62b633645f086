"""What differs between architectures is a table here, and is checked before anything loads.

Every family shards the same way: attention heads and feed-forward columns are sliced, small latent
projections, norms and routers stay whole, embedding and head are sliced by vocabulary. Two
all-reduces per layer follow. What a family adds is names and divisibility.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.model.quantized import ExpertBlocks, expert_blocks, why_unreadable
from actors.request import EngineSpec
from conf.errors import UserError

# Checkpoints whose config.json names a type that transformers 5.23 does not map; the weights and
# the arithmetic are those of the family on the right (reference: Kimi K2's modelling file).
# DeepSeek-V3.2 attends to the ``index_topk`` tokens that its indexer chooses. Up to so many that is
# every token, whatever the indexer says, and the arithmetic that of V3; longer is refused.
ALIASES = {"kimi_k2": "deepseek_v3", "deepseek_v32": "deepseek_v3"}
RANDOM_STD = 0.02
"""Standard deviation of ``weights: random``."""
UNSTEADY_ROTARY = ("dynamic", "longrope")
"""Rotary scalings that depend on the longest sequence of a forward."""
FAMILIES = ("deepseek_v3", "qwen3_moe", "qwen3", "llama", "mistral")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the driver must know of a model before any rank starts; read from config.json alone."""

    model_type: str
    """As transformers spells it, aliases resolved."""
    num_layers: int
    hidden_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    """1 for multi-head latent attention, whose cache has one latent row per token."""
    intermediate_size: int
    moe_intermediate_size: int | None
    num_experts: int
    max_position: int
    eos_ids: tuple[int, ...]
    is_mla: bool
    config: dict[str, Any]

    def fitting_sizes(self, largest: int = 64) -> list[int]:
        """Tensor-parallel sizes up to ``largest`` that this model can be cut into."""
        return [n for n in range(1, largest + 1) if not self.misfit(n)]

    def misfit(self, size: int) -> str | None:
        """Why the model cannot be cut into ``size`` ranks, or None when it can."""
        if self.num_heads % size:
            return f"it has {self.num_heads} attention heads"
        kv = self.num_kv_heads
        if not self.is_mla and kv % size and size % kv:
            return f"it has {kv} key-value heads"
        if self.intermediate_size % size:
            return f"its feed-forward width is {self.intermediate_size}"
        if self.moe_intermediate_size and self.moe_intermediate_size % size:
            return f"its experts' width is {self.moe_intermediate_size}"
        return None


def read_config(model_path: str) -> dict[str, Any]:
    """Read ``config.json`` of a model folder.

    Raises:
        UserError: The folder or the file is missing, unreadable or not JSON.
    """
    folder = Path(model_path)
    if not folder.is_dir():
        raise UserError(f"model.path={model_path!r} is not a folder; give one with config.json.")
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"model.path={model_path!r} has no readable config.json "
            f"({error.strerror or error}); give a folder saved by save_pretrained."
        ) from error
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"model.path={model_path!r} has a config.json that is not JSON (line {error.lineno}); "
            "download it again."
        ) from error
    if not isinstance(config, dict):
        raise UserError(
            f"model.path={model_path!r} has a config.json that is not an object; download it again."
        )
    return config


def _eos_ids(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """End-of-sequence ids: generation_config.json wins over config.json, as in transformers."""
    found: Any = config.get("eos_token_id")
    generation = folder / "generation_config.json"
    if generation.is_file():
        found = json.loads(generation.read_text(encoding="utf-8")).get("eos_token_id", found)
    if found is None:
        return ()
    return tuple(int(i) for i in found) if isinstance(found, list) else (int(found),)


def read_model_facts(model_path: str) -> ModelFacts:
    """Facts of the model in a folder; loads no weights and imports no torch.

    Raises:
        UserError: The folder cannot be read, or its architecture is not one of ``FAMILIES``.
    """
    config = read_config(model_path)
    named = str(config.get("model_type"))
    model_type = ALIASES.get(named, named)
    if model_type not in FAMILIES:
        raise UserError(
            f"model.path={model_path!r} is of type {named!r}, which is not supported; "
            f"use one of {', '.join([*FAMILIES, *ALIASES])}."
        )
    try:
        heads = int(config["num_attention_heads"])
        is_mla = model_type == "deepseek_v3"
        names = ("n_routed_experts", "num_experts", "num_local_experts")
        experts = next((config[n] for n in names if config.get(n)), 0)
        return ModelFacts(
            model_type=model_type,
            num_layers=int(config["num_hidden_layers"]),
            hidden_size=int(config["hidden_size"]),
            vocab_size=int(config["vocab_size"]),
            num_heads=heads,
            num_kv_heads=1 if is_mla else int(config.get("num_key_value_heads") or heads),
            intermediate_size=int(config["intermediate_size"]),
            moe_intermediate_size=int(config["moe_intermediate_size"]) if experts else None,
            num_experts=int(experts),
            max_position=_max_position(config),
            eos_ids=_eos_ids(Path(model_path), config),
            is_mla=is_mla,
            config=config,
        )
    except KeyError as error:
        raise UserError(
            f"model.path={model_path!r} has a config.json without {error.args[0]!r}; "
            "give the model's own config.json."
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"model.path={model_path!r} has a config.json or generation_config.json whose numbers "
            f"cannot be read ({error}); give the model's own files."
        ) from error


def _dense_first(dense: int, layers: int) -> list[str]:
    return ["dense"] * min(dense, layers) + ["sparse"] * max(0, layers - dense)


def _max_position(config: dict[str, Any]) -> int:
    """Tokens of a sequence at most; of a sparse attention, as many as it chooses all of."""
    longest = int(config.get("max_position_embeddings", 2048))
    if config.get("model_type") != "deepseek_v32":
        return longest
    return min(longest, int(config.get("index_topk") or 2048))


def _rotary_type(config: dict[str, Any]) -> str:
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return str(found.get("rope_type") or found.get("type") or "default")


def check_model(spec: EngineSpec) -> ModelFacts:
    """Refuse, before any rank starts, a model that could not load or would fail mid-forward.

    Raises:
        UserError: Unreadable folder, unknown family, missing weights, or a tensor-parallel size
            that does not divide the heads or the feed-forward widths.
    """
    facts = read_model_facts(spec.model_path)
    size = spec.tensor_parallel_size
    why = facts.misfit(size) if size >= 1 else "a group has at least one rank"
    if why:
        fits = ", ".join(str(n) for n in facts.fitting_sizes())
        raise UserError(
            f"cluster.tensor_parallel_size={size} does not fit {spec.model_path!r}: {why}; "
            f"use one of {fits}."
        )
    _check_arithmetic(spec, facts)
    quantized = why_unreadable(facts.config)
    if quantized and spec.weights == "checkpoint":
        raise UserError(
            f"model.path={spec.model_path!r} holds weights quantized as {quantized}, which are not "
            "supported; give a float32, float16 or bfloat16 checkpoint, one in FP8 with a scale "
            "per block, or one in packed INT4 with a scale per group."
        )
    if spec.expert_weights == "fp8" and kept_blocks(spec, facts, size) is None:
        raise UserError(
            f"model.expert_weights=fp8 does not fit {spec.model_path!r}: its config.json announces "
            f"no FP8 experts whose blocks {size} ranks could share; use auto, or another "
            "cluster.tensor_parallel_size."
        )
    if spec.weights == "checkpoint" and not any(Path(spec.model_path).glob("*.safetensors")):
        raise UserError(
            f"model.path={spec.model_path!r} has no *.safetensors file (pickled weights are never "
            "read); convert the checkpoint, or set model.weights=random to try its shape."
        )
    return facts


def _check_arithmetic(spec: EngineSpec, facts: ModelFacts) -> None:
    """Refuse what the family's layers, as they are computed here, would get wrong."""
    rotary = _rotary_type(facts.config)
    if rotary in UNSTEADY_ROTARY:
        raise UserError(
            f"model.path={spec.model_path!r} scales its rotary embedding by the length of each "
            f"sequence (rope_type {rotary!r}), which packed batches cannot; use a checkpoint with "
            "default, linear, yarn or llama3 scaling."
        )
    activation = facts.config.get("hidden_act") or "silu"
    if activation != "silu":
        raise UserError(
            f"model.path={spec.model_path!r} has hidden_act={activation!r}, but experts and fused "
            "steps compute 'silu' only; use a checkpoint of the family as published."
        )
    kinds = facts.config.get("mlp_layer_types")
    dense = int(facts.config.get("first_k_dense_replace") or 0)
    if kinds and facts.is_mla and kinds != _dense_first(dense, facts.num_layers):
        raise UserError(
            f"model.path={spec.model_path!r} has mlp_layer_types other than {dense} dense layers "
            "(first_k_dense_replace) and sparse ones behind them, which is not supported; use a "
            "checkpoint of the family as published."
        )


def kept_blocks(spec: EngineSpec, facts: ModelFacts, size: int) -> ExpertBlocks | None:
    """Blocks of the experts of a rank that keeps them in FP8, or None when it does not.

    ``auto`` keeps them on GPUs in bfloat16; on the CPU numbers of the model's own type are faster.
    """
    asked = spec.expert_weights
    by_itself = spec.device == "cuda" and spec.dtype == "bfloat16"
    if asked == "dequantized" or (asked == "auto" and not by_itself):
        return None
    return expert_blocks(facts.config, (facts.moe_intermediate_size or 0) // size)


def read_model_digest(spec: EngineSpec) -> str:
    """sha256 of what decides the weights: config and safetensors bytes, or config and seed.

    Files above 64 MiB contribute their header, which names every tensor's shape and offset, their
    size, and 64 blocks of 64 KiB spread over the file: reading 1 TB only to name it costs minutes.
    """
    folder = Path(spec.model_path)
    written = (folder / "config.json").read_bytes()
    total = hashlib.sha256(written)
    if spec.weights == "random":
        config = json.loads(written)
        in_fp8 = expert_blocks(config, config.get("moe_intermediate_size") or 0)
        kind = "/fp8" if in_fp8 else ""  # random experts are then FP8 numbers
        total.update(f"random/{spec.random_seed}/{RANDOM_STD}{kind}".encode())
        return total.hexdigest()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        total.update(f"{path.name}/{size}".encode())
        with path.open("rb") as file:
            if size <= 64 << 20:
                total.update(file.read())
                continue
            for block in range(64):
                file.seek(block * (size - 65536) // 63)
                total.update(file.read(65536))
    return total.hexdigest()
