"""What config.json says of quantized weights: which kind can be read, and where scales lie."""

from __future__ import annotations

from typing import Any

SCALE_SUFFIX = "_scale_inv"
"""Of the tensor that holds the scales of ``NAME.weight``."""


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


def why_unreadable(config: dict[str, Any]) -> str | None:
    """What kind of quantized weights these are, where nobody here can read them."""
    quant = config.get("quantization_config")
    if not quant or block_shape(config):
        return None
    kind = quant.get("quant_method", "unknown") if isinstance(quant, dict) else "unknown"
    return "fp8 without weight_block_size" if kind == "fp8" else str(kind)


def scales_shape(shape: list[int], block: tuple[int, int]) -> list[int]:
    """Shape of the scales of a whole tensor ``[..., rows, columns]``."""
    return [*shape[:-2], -(-shape[-2] // block[0]), -(-shape[-1] // block[1])]
