"""The two products of chosen experts over tiles of rows, of 16-bit weights or of FP8 ones.

FP8 weights have one scale per block and stay FP8 in memory. A tile of them becomes numbers of the
rows' own type on its way to the tensor cores (exactly: every e4m3 number is a bfloat16 number), and
its product is scaled in float32, so that no weight is rounded a second time.

The bits of an e4m3 number, moved to a bfloat16 number's place, are that number times 2^-120. Moving
them takes fewer instructions than converting, and products are lifted by 2^120 in float32, which
loses nothing but what lies below 2^-29 (the smallest float32 number, lifted).
"""

from __future__ import annotations

import triton
import triton.language as tl

_MOVE_BITS = tl.constexpr("""
{
.reg .b32 t, m;
prmt.b32 t, $2, 0, 0x1404;
and.b32 m, t, 0x7f007f00;
shr.u32 m, m, 4;
and.b32 t, t, 0x80008000;
or.b32 $0, t, m;
prmt.b32 t, $2, 0, 0x3424;
and.b32 m, t, 0x7f007f00;
shr.u32 m, m, 4;
and.b32 t, t, 0x80008000;
or.b32 $1, t, m;
}
""")
_LIFT = tl.constexpr(2.0**120)


@triton.jit
def _widen(stored, kind: tl.constexpr, BITS: tl.constexpr):
    """e4m3 numbers as ``kind``; with BITS, of bytes, as bfloat16 numbers times 2^-120."""
    if BITS:
        wide = tl.inline_asm_elementwise(
            asm=_MOVE_BITS, constraints="=r,=r,r", args=[stored], dtype=tl.bfloat16, is_pure=True,
            pack=4,
        )  # fmt: skip
    else:
        wide = stored.to(kind)
    return wide


@triton.jit
def gate_up_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, order_ptr, start_ptr, tile_expert_ptr, tile_rows_ptr,
    D, INNER, scale_rows, scale_columns, TOP: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr,
    BITS: tl.constexpr, TILE: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
) -> None:  # fmt: skip
    """Gate, up and SiLU of one tile; without ``start_ptr`` tiles are padded to their full size."""
    tile = tl.program_id(1)
    rows = tl.load(tile_rows_ptr + tile)
    if rows > 0:
        expert = tl.load(tile_expert_ptr + tile).to(tl.int64)
        m = tl.arange(0, TILE)
        first = tile * TILE if start_ptr is None else tl.load(start_ptr + tile)
        pair = tl.load(order_ptr + first + m, mask=m < rows, other=0)
        n = tl.program_id(0) * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        kind = out_ptr.dtype.element_ty
        x_at = x_ptr + (pair // TOP)[:, None].to(tl.int64) * D + k[None]
        gate_at = weight_ptr + expert * 2 * INNER * D + n[None].to(tl.int64) * D + k[:, None]
        up_at = gate_at + INNER.to(tl.int64) * D
        if scale_ptr is not None:
            lift = _LIFT if BITS else 1.0
            scale_at = scale_ptr + (expert * 2 * scale_rows + n // RB) * scale_columns
            up_scale_at = scale_at + scale_rows * scale_columns
        gate = tl.zeros([TILE, BN], tl.float32)
        up = tl.zeros([TILE, BN], tl.float32)
        for start in range(0, D, BK):
            inside = (n[None] < INNER) & (k[:, None] + start < D)
            x = tl.load(x_at + start, mask=(m < rows)[:, None] & (k[None] + start < D), other=0.0)
            if scale_ptr is None:
                gate += tl.dot(x, tl.load(gate_at + start, mask=inside, other=0.0))
                up += tl.dot(x, tl.load(up_at + start, mask=inside, other=0.0))
            else:  # all loads before the products, or many rows take 4 % longer (H100)
                gate_w = _widen(tl.load(gate_at + start, mask=inside, other=0.0), kind, BITS)
                up_w = _widen(tl.load(up_at + start, mask=inside, other=0.0), kind, BITS)
                gate_s = tl.load(scale_at + start // CB, mask=n < INNER, other=0.0)
                up_s = tl.load(up_scale_at + start // CB, mask=n < INNER, other=0.0)
                gate += tl.dot(x, gate_w) * lift * gate_s[None]
                up += tl.dot(x, up_w) * lift * up_s[None]
        gate = gate.to(kind).to(tl.float32)
        silu = (gate * tl.sigmoid(gate)).to(kind)
        out_at = out_ptr + pair[:, None].to(tl.int64) * INNER + n[None]
        tl.store(out_at, silu * up.to(kind), mask=(m < rows)[:, None] & (n[None] < INNER))


@triton.jit
def down_kernel(
    x_ptr, weight_ptr, scale_ptr, out_ptr, order_ptr, start_ptr, tile_expert_ptr, tile_rows_ptr,
    route_ptr, D, INNER, scale_rows, scale_columns, RB: tl.constexpr, CB: tl.constexpr,
    BITS: tl.constexpr, TILE: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
) -> None:  # fmt: skip
    """The second product of one tile, weighted; places and scales as for the first."""
    tile = tl.program_id(1)
    rows = tl.load(tile_rows_ptr + tile)
    if rows > 0:
        expert = tl.load(tile_expert_ptr + tile).to(tl.int64)
        m = tl.arange(0, TILE)
        first = tile * TILE if start_ptr is None else tl.load(start_ptr + tile)
        pair = tl.load(order_ptr + first + m, mask=m < rows, other=0)
        n = tl.program_id(0) * BN + tl.arange(0, BN)
        k = tl.arange(0, BK)
        kind = out_ptr.dtype.element_ty
        x_at = x_ptr + pair[:, None].to(tl.int64) * INNER + k[None]
        weight_at = weight_ptr + expert * D * INNER + n[None].to(tl.int64) * INNER + k[:, None]
        if scale_ptr is not None:
            lift = _LIFT if BITS else 1.0
            scale_at = scale_ptr + (expert * scale_rows + n // RB) * scale_columns
        acc = tl.zeros([TILE, BN], tl.float32)
        for start in range(0, INNER, BK):
            x = tl.load(
                x_at + start, mask=(m < rows)[:, None] & (k[None] + start < INNER), other=0.0
            )
            inside = (n[None] < D) & (k[:, None] + start < INNER)
            weight = tl.load(weight_at + start, mask=inside, other=0.0)
            if scale_ptr is None:
                acc += tl.dot(x, weight)
            else:
                scale = tl.load(scale_at + start // CB, mask=n < D, other=0.0)
                acc += tl.dot(x, _widen(weight, kind, BITS)) * lift * scale[None]
        route = tl.load(route_ptr + pair, mask=m < rows, other=0.0)
        acc = acc.to(kind).to(tl.float32) * route[:, None]
        out_at = out_ptr + pair[:, None].to(tl.int64) * D + n[None]
        tl.store(out_at, acc.to(kind), mask=(m < rows)[:, None] & (n[None] < D))
