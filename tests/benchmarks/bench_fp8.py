"""Products of FP8 experts beside those of bfloat16 and their floor, kernel by kernel.

``python -m tests.benchmarks.bench_fp8 --out FILE`` on one GPU. Random experts with the widths of
one rank; the floor is the bytes of the experts that are hit over the copy bandwidth of this run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from actors.kernels import moe, moe_fp8, moe_prefill, route
from actors.model.block_scales import FP8, BlockScaled
from tests.benchmarks.bench_decode import copy_bandwidth, timed


class Width(NamedTuple):
    """Experts of one layer on one rank."""

    experts: int
    hidden: int
    inner: int
    shared: int


WIDTHS = {
    "Kimi K2 at 8 ranks": Width(385, 7168, 256, 1),
    "Kimi K2 at 4 ranks": Width(385, 7168, 512, 1),
    "Qwen3-235B at 4 ranks": Width(128, 4096, 384, 0),
}
FEW, MANY, TOP = (1, 8, 32, 128, 256), 8192, 8


def scaled(experts: int, rows: int, columns: int) -> BlockScaled:
    """Random FP8 matrices with scales that keep outputs small."""
    bits = torch.randint(0, 120, (experts, rows, columns), dtype=torch.uint8, device="cuda")
    scales = torch.rand(experts, rows // 128, columns // 128, device="cuda") * 0.01
    return BlockScaled(bits.view(FP8), scales, (128, 128))


def plain(like: BlockScaled) -> Tensor:
    """Random bfloat16 matrices of the same shape."""
    return torch.randn(like.shape, dtype=torch.bfloat16, device="cuda")


def measure(name: str, width: Width, bandwidth: float) -> list[dict[str, Any]]:
    """Microseconds of both products for few rows and for many."""
    experts, hidden, inner, shared = width
    in_fp8 = scaled(experts, 2 * inner, hidden), scaled(experts, hidden, inner)
    in_bf16 = plain(in_fp8[0]), plain(in_fp8[1])
    routing = route.Routing(TOP, False, True, 1.0, shared)
    found = []
    for rows in (*FEW, MANY):
        x = torch.randn(rows, hidden, dtype=torch.bfloat16, device="cuda")
        logits = torch.randn(rows, experts - shared, device="cuda")
        ids, weights = route.route_rows(logits, None, routing)
        out = torch.empty_like(x)
        row: dict[str, Any] = {"experts": name, "rows": rows, "hit": int(ids.unique().numel())}
        if rows == MANY:
            ways = {
                "fp8_us": lambda: moe_fp8.fp8_experts_for_many(x, ids, weights, *in_fp8, out),  # noqa: B023
                "bfloat16_us": lambda: moe_prefill.experts_for_many(x, ids, weights, *in_bf16, out),  # noqa: B023
            }
        else:
            scratch = moe.make_scratch(rows, TOP + shared, experts, inner, hidden, x)
            scratch.ids.copy_(ids)
            scratch.weights.copy_(weights)
            ways = {
                "fp8_us": lambda: moe_fp8.run_fp8_experts(x, *in_fp8, scratch),  # noqa: B023
                "bfloat16_us": lambda: moe.run_experts(x, *in_bf16, scratch),  # noqa: B023
            }
            row["fp8_floor_us"] = row["hit"] * 3 * inner * hidden / bandwidth * 1e6
        for label, call in ways.items():
            row[label] = timed(call, 5, 5) * 1e3
        found.append({k: round(v, 1) if isinstance(v, float) else v for k, v in row.items()})
        print(found[-1], flush=True)
    return found


def main() -> None:
    """Measure all widths, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=None)
    args = parser.parse_args()
    bandwidth = copy_bandwidth()
    rows = [row for name, width in WIDTHS.items() for row in measure(name, width, bandwidth)]
    if args.out:
        found = {"copy_bytes_per_s": bandwidth, "rows": rows}
        Path(args.out).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
