"""What config.json says of quantized weights: which kind can be read, and where scales lie."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SCALE_SUFFIX = "_scale_inv"
"""Of the tensor that holds the scales of ``NAME.weight``."""
PACKED_SUFFIX, GROUP_SUFFIX, ZERO_SUFFIX = "_packed", "_scale", "_zero_point"
"""Of packed integers in place of ``NAME.weight``, of their scales, and of what is not read."""
PER_WORD = 8
"""INT4 numbers in one stored int32."""


def block_shape(config: dict[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of a block; None where config.json knows of no such weights."""
    quant = config.get("quantization_config")
    if not isinstance(quant, dict) or quant.get("quant_method") != "fp8":
        return None
    shape = quant.get("weight_block_size")
    if not isinstance(shape, list) or len(shape) != 2:
        return None
    rows, columns = shape
    if not all(type(n) is int and n > 0 for n in shape):
        return None
    return rows, columns


def packed_group(config: dict[str, Any]) -> int | None:
    """Columns that share a scale in packed INT4 weights; None where config.json knows of none.

    The format in which Kimi K2 Thinking is published: compressed-tensors' ``pack-quantized``, of
    symmetric integers. Whatever else such a config.json may ask for is not read.
    """
    quant = config.get("quantization_config")
    if not isinstance(quant, dict) or quant.get("quant_method") != "compressed-tensors":
        return None
    groups = quant.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        return None
    (scheme,) = groups.values()
    weights = scheme.get("weights") if isinstance(scheme, dict) else None
    if not isinstance(weights, dict):
        return None
    others = ("kv_cache_scheme", "sparsity_config", "transform_config")
    asks_more = any(quant.get(k) for k in others) or any(
        scheme.get(k) for k in ("input_activations", "output_activations")
    )
    kind = tuple(weights.get(k) for k in ("num_bits", "type", "symmetric", "strategy"))
    is_ours = kind == (4, "int", True, "group") and not weights.get("actorder")
    packing = scheme.get("format") or quant.get("format")
    size = weights.get("group_size")
    if asks_more or not is_ours or packing != "pack-quantized":
        return None
    return size if type(size) is int and size > 0 else None


def why_unreadable(config: dict[str, Any]) -> str | None:
    """What kind of quantized weights these are, where nobody here can read them."""
    quant = config.get("quantization_config")
    if not quant or block_shape(config) or packed_group(config):
        return None
    kind = quant.get("quant_method", "unknown") if isinstance(quant, dict) else "unknown"
    return "fp8 without weight_block_size" if kind == "fp8" else str(kind)


def scales_shape(shape: list[int], block: tuple[int, int]) -> list[int]:
    """Shape of the scales of a whole tensor ``[..., rows, columns]``."""
    return [*shape[:-2], -(-shape[-2] // block[0]), -(-shape[-1] // block[1])]


class ExpertBlocks(NamedTuple):
    """Rows and columns that share a scale in one rank's experts, which stay FP8 in memory."""

    gate_up: tuple[int, int]
    down: tuple[int, int]


LEAST_COLUMNS = 32
"""Columns of a block below which products of FP8 weights are too short to be worth it."""


def expert_blocks(config: dict[str, Any], width: int) -> ExpertBlocks | None:
    """Blocks of experts that may stay FP8; None where they are not FP8 or a rank's part is odd.

    A rank's part begins and ends anywhere in a block, so a rank's blocks are as large as both the
    published blocks and its own width allow.

    Args:
        config: The model's config.json.
        width: Intermediate width of one expert on one rank; 0 without experts.
    """
    block = block_shape(config)
    if block is None or not width:
        return None
    if _leaves_experts_out(config):
        return None
    rows, columns = math.gcd(block[0], width), math.gcd(block[1], width)
    if block[1] % LEAST_COLUMNS or columns % LEAST_COLUMNS:
        return None
    return ExpertBlocks(gate_up=(rows, block[1]), down=(block[0], columns))


def _leaves_experts_out(config: dict[str, Any]) -> bool:
    """True when some layer's experts were not converted; a layer, or a part of names, says so."""
    entries = config["quantization_config"].get("modules_to_not_convert")
    if not entries:
        return False
    first = int(config.get("first_k_dense_replace") or 0)
    layers = range(first, int(config["num_hidden_layers"]))
    owners = ("experts.0", "shared_experts")
    names = [f".model.layers.{n}.mlp.{owner}.gate_proj." for n in layers for owner in owners]
    # Whole words of a name: ``gate`` is the router, and no part of ``gate_proj``.
    return any(f".{entry}." in name for entry in map(str, entries) for name in names)
