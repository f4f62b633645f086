"""Prefill attention over ragged sequences by torch's own flash kernel: no padding, no mask."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from actors.engine.batch import Batch

# torch 2.11 shares keys between query heads unasked; later versions want to be asked.
_GROUPED: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
)


@dataclass(frozen=True, slots=True)
class Ragged:
    """All prefill segments of a batch, end to end."""

    first_row: int
    """Rows before it are decode rows."""
    slots: Tensor
    """int64: cache slots of every segment's whole context."""
    query_bounds: Tensor
    key_bounds: Tensor
    """int32 ``[segments + 1]``."""
    longest_query: int
    longest_key: int


def ragged(batch: Batch) -> Ragged | None:
    """The batch's prefill segments as one ragged problem; None without any."""
    if not batch.segments:
        return None
    return Ragged(
        first_row=batch.num_decode,
        slots=batch.segment_slots,
        query_bounds=batch.query_bounds.to(torch.int32),
        key_bounds=batch.key_bounds.to(torch.int32),
        longest_query=max(s.row_stop - s.row_start for s in batch.segments),
        longest_key=max(s.context for s in batch.segments),
    )


def attend_ragged(
    q_NHD: Tensor,
    k_SKD: Tensor,
    v_SKD: Tensor,
    out_NHD: Tensor,
    packed: Ragged,
    *,
    scale: float,
    window: int | None,
) -> None:
    """Causal attention of every segment's rows over its own context, into ``out_NHD``.

    The flash kernel aligns a shorter query run to the end of its keys, which is what a chunk of a
    longer prompt needs.
    """
    found: Any = varlen_attn(
        q_NHD[packed.first_row :],
        k_SKD,
        v_SKD,
        packed.query_bounds,
        packed.key_bounds,
        packed.longest_query,
        packed.longest_key,
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
        **_GROUPED,
    )
    out_NHD[packed.first_row :] = found
