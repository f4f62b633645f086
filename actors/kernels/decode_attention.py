"""One new row per sequence over its paged context, split along the context and joined exactly.

Flash-decoding (Dao et al. 2023): every split keeps its maximum and its sum of exponentials; the
join rescales by them. Heads that share keys are computed together, so keys are read once. Latent
attention is the same with one shared key head whose first columns are the values.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _split_kernel(
    q_ptr, q_rope_ptr, keys_ptr, values_ptr, out_ptr, partial_ptr, lse_ptr,
    position_ptr, table_ptr, table_stride, scale, window,
    q_row, q_head, H: tl.constexpr, KV: tl.constexpr, G: tl.constexpr, GB: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, DB: tl.constexpr, R: tl.constexpr, PAGE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, LATENT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(position_ptr + row) + 1
    begin = 0
    if window > 0:
        begin = tl.maximum(length - window, 0)
    per = tl.cdiv(tl.cdiv(length - begin, SPLITS), BLOCK) * BLOCK
    first = begin + split * per
    last = tl.minimum(first + per, length)
    g = tl.arange(0, GB)
    d = tl.arange(0, DB)
    head = group * G + g
    q_at = q_ptr + row * q_row + head[:, None] * q_head + d[None]
    q = tl.load(q_at, mask=(g[:, None] < G) & (d[None] < DV), other=0.0)
    if LATENT:
        r = tl.arange(0, R)
        rope_at = q_rope_ptr + (row * H + head[:, None]) * R + r[None]
        q_rope = tl.load(rope_at, mask=g[:, None] < G, other=0.0)
    best = tl.full([GB], float("-inf"), tl.float32)
    total = tl.zeros([GB], tl.float32)
    acc = tl.zeros([GB, DB], tl.float32)
    for start in range(first, last, BLOCK):
        at = start + tl.arange(0, BLOCK)
        seen = at < last
        page = tl.load(table_ptr + row * table_stride + at // PAGE, mask=seen, other=0)
        slot = (page.to(tl.int64) * PAGE + at % PAGE) * KV + group
        inside = seen[:, None] & (d[None] < DV)
        k = tl.load(keys_ptr + slot[:, None] * D + d[None], mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k))
        if LATENT:
            k_rope = tl.load(
                keys_ptr + slot[:, None] * D + DV + r[None], mask=seen[:, None], other=0.0
            )
            scores += tl.dot(q_rope, tl.trans(k_rope))
        scores = tl.where(seen[None], scores * scale, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, axis=1))
        weights = tl.exp(scores - new_best[:, None])
        decay = tl.exp(best - new_best)
        total = total * decay + tl.sum(weights, axis=1)
        if LATENT:
            v = k
        else:
            v = tl.load(values_ptr + slot[:, None] * DV + d[None], mask=inside, other=0.0)
        acc = acc * decay[:, None] + tl.dot(weights.to(v.dtype), v)
        best = new_best
    held = (g[:, None] < G) & (d[None] < DV)
    if SPLITS == 1:
        out = out_ptr + (row * H + head[:, None]) * DV + d[None]
        tl.store(out, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=held)
    else:
        number = (row * H + head) * SPLITS + split
        empty = last <= first
        joined = tl.where(empty, 0.0, acc / tl.where(total == 0.0, 1.0, total)[:, None])
        tl.store(partial_ptr + number[:, None] * DV + d[None], joined, mask=held)
        lse = tl.where(total == 0.0, float("-inf"), best + tl.log(total))
        tl.store(lse_ptr + number, lse, mask=g < G)


@triton.jit
def _join_kernel(
    partial_ptr, lse_ptr, out_ptr, DV: tl.constexpr, DB: tl.constexpr, SPLITS: tl.constexpr
):
    number = tl.program_id(0).to(tl.int64)
    s = tl.arange(0, SPLITS)
    d = tl.arange(0, DB)
    lse = tl.load(lse_ptr + number * SPLITS + s)
    weight = tl.exp(lse - tl.max(lse, axis=0))
    weight = weight / tl.sum(weight, axis=0)
    at = partial_ptr + (number * SPLITS + s[:, None]) * DV + d[None]
    part = tl.load(at, mask=d[None] < DV, other=0.0)
    out = tl.sum(part * weight[:, None], axis=0)
    tl.store(out_ptr + number * DV + d, out.to(out_ptr.dtype.element_ty), mask=d < DV)


def num_splits(rows: int, kv_heads: int, reach: int = 2, num_processors: int = 132) -> int:
    """Splits that fill the GPU about twice, a power of two, no more than the context is worth."""
    wanted = max(1, 2 * num_processors // max(rows * kv_heads, 1))
    return min((1, 8, 32)[reach], 1 << (wanted.bit_length() - 1))


def decode_attention(
    q: Tensor,
    q_rope: Tensor | None,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    scratch: tuple[Tensor, Tensor],
    positions: Tensor,
    page_table: Tensor,
    *,
    page_size: int,
    scale: float,
    window: int | None,
    splits: int,
) -> None:
    """Attend one row per sequence; the row's own key is already in the cache.

    Args:
        q: ``[N, H, DV]`` view; last dimension contiguous.
        q_rope: Latent attention: ``[N, H, R]``; else None.
        keys: One layer's ``[slots, KV, D]``.
        values: ``[slots, KV, DV]``; ignored under latent attention.
        out: ``[N, H, DV]``.
        scratch: (float32 ``[N, H, splits, DV]``, float32 ``[N, H, splits]``).
        positions: int32 ``[N]``.
        page_table: int32 ``[N, pages]``.
        page_size: Tokens per page.
        scale: Multiplies the scores.
        window: Newest tokens to attend to; None: all.
        splits: From ``num_splits``.
    """
    rows, heads, dv = out.shape
    kv = keys.shape[1]
    group = heads // kv
    latent = q_rope is not None
    block = 32 if latent else 64
    _split_kernel[(rows, kv, splits)](
        q, q_rope if q_rope is not None else q, keys, values, out, *scratch, positions,
        page_table, page_table.stride(0), scale, window or 0, q.stride(0), q.stride(1),
        H=heads, KV=kv, G=group, GB=max(16, triton.next_power_of_2(group)), D=keys.shape[-1],
        DV=dv, DB=triton.next_power_of_2(dv), R=q_rope.shape[-1] if q_rope is not None else 16,
        PAGE=page_size, BLOCK=block, SPLITS=splits, LATENT=latent,
        num_warps=8 if latent else 4, num_stages=2,
    )  # fmt: skip
    if splits > 1:
        _join_kernel[(rows * heads,)](
            *scratch, out, DV=dv, DB=triton.next_power_of_2(dv), SPLITS=splits, num_warps=2
        )
