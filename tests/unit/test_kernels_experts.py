"""Kernels that choose and run experts, in FP8 too, equal transformers' router and plain torch.

Run as ``test_kernels``: by Triton's interpreter, in float32.
"""

from __future__ import annotations

import operator
import os
import re

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: kernels are tested where it is")

from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from actors.kernels import expert_products, moe, moe_fp8, route
from actors.model.block_scales import FP8, BlockScaled
from tests.unit.test_kernels import LOOPS, close, random

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1",
    reason="on a GPU tests/gpu runs the kernels compiled",
)


@pytest.mark.parametrize("experts", [6, 128, 130])
def test_routing_takes_the_best_experts_and_the_first_of_equals(experts: int) -> None:
    routing = route.Routing(4, False, True, 1.0, 0)
    logits = random(5, experts)
    logits[0, 3] = logits[0, 5] = logits[0].max() + 1  # equal: the lower id goes first
    logits[4] = float("nan")
    scratch = moe.make_scratch(5, 4, experts, 8, 8, logits)
    route.choose_experts(logits, None, routing, scratch.ids, scratch.weights)
    for row in range(4):
        want = torch.sort(logits[row].softmax(-1), descending=True, stable=True)
        assert scratch.ids[row].tolist() == want.indices[:4].tolist()
        close(scratch.weights[row], want.values[:4] / want.values[:4].sum())
    assert ((scratch.ids[4] >= 0) & (scratch.ids[4] < experts)).all(), "an id outside is a crash"


@LOOPS
@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize("shared", [0, 1])
def test_experts_equal_a_loop_over_rows(rows: int, shared: int) -> None:
    experts, width, hidden, top = 6, 24, 40, 2
    routing = route.Routing(top, True, True, 2.5, shared)
    x, logits, bias = random(rows, hidden), random(rows, experts, seed=1), random(experts, seed=2)
    gate_up = random(experts + shared, 2 * width, hidden, seed=3) / 6
    down = random(experts + shared, hidden, width, seed=4) / 5
    scratch = moe.make_scratch(rows, top + shared, experts + shared, width, hidden, x)
    out = torch.empty(rows, hidden)
    route.choose_experts(logits, bias, routing, scratch.ids, scratch.weights)
    moe.add_parts(moe.run_experts(x, gate_up, down, scratch), out)
    assert scratch.is_grouped == (rows == 12)
    for row in range(rows):
        scores = logits[row].sigmoid()
        chosen = (scores + bias).topk(top).indices
        weights = 2.5 * scores[chosen] / scores[chosen].sum()
        parts = list(zip(chosen.tolist(), weights.tolist(), strict=True))
        parts += [(experts, 1.0)] if shared else []
        want = torch.zeros(hidden)
        for expert, weight in parts:
            gate, up = (gate_up[expert] @ x[row]).chunk(2)
            want += weight * (down[expert] @ (torch.nn.functional.silu(gate) * up))
        close(out[row], want, 1e-4)


def test_softmax_routing_keeps_or_rescales_the_chosen_weights() -> None:
    logits = random(4, 10)
    for normalise in (False, True):
        scratch = moe.make_scratch(4, 3, 10, 8, 8, logits)
        routing = route.Routing(3, False, normalise, 1.0, 0)
        route.choose_experts(logits, None, routing, scratch.ids, scratch.weights)
        weights, ids = logits.softmax(-1).topk(3)
        if normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        assert torch.equal(scratch.ids.long(), ids)
        close(scratch.weights, weights)


@pytest.mark.parametrize(
    ("experts", "groups", "top_groups", "top_k"),
    [(256, 8, 4, 8), (48, 6, 3, 4), (20, 5, 2, 3), (16, 4, 4, 3), (8, 1, 1, 8)],
)
def test_groups_of_experts_are_chosen_as_transformers_chooses_them(
    experts: int, groups: int, top_groups: int, top_k: int
) -> None:
    config = DeepseekV3Config(
        n_routed_experts=experts,
        n_group=groups,
        topk_group=top_groups,
        num_experts_per_tok=top_k,
        hidden_size=32,
        routed_scaling_factor=2.5,
    )
    router = DeepseekV3TopkRouter(config)
    generator = torch.Generator().manual_seed(experts)
    torch.nn.init.normal_(router.weight, generator=generator)
    torch.nn.init.normal_(router.e_score_correction_bias, std=0.3, generator=generator)
    with torch.no_grad():
        logits, want, chosen = router(random(17, 32, seed=5))
    bias = router.e_score_correction_bias
    routing = route.Routing(top_k, True, True, 2.5, 0, groups, top_groups)
    ids, weights = route.route_rows(logits, bias, routing)
    ours, theirs = ids.sort(dim=-1), chosen.sort(dim=-1)
    assert torch.equal(ours.values.long(), theirs.values)
    close(weights.gather(-1, ours.indices), want.gather(-1, theirs.indices))
    nothing = torch.full_like(logits, float("nan"))
    ids, _ = route.route_rows(nothing, bias, routing)
    assert ((ids >= 0) & (ids < experts)).all(), "an id outside is a crash"


def test_a_bias_moves_the_choice_between_groups_but_no_weight() -> None:
    logits = torch.zeros(1, 8)
    bias = torch.tensor([0.0, 0, 0, 0, 0.1, 0.1, 0.9, -9.0])
    routing = route.Routing(2, True, False, 1.0, 0, 2, 1)
    # The second group's best two are worth more together, its worst one notwithstanding.
    ids, weights = route.route_rows(logits, bias, routing)
    assert ids.tolist() == [[6, 4]]
    close(weights, torch.full((1, 2), 0.5))


def _blocks(
    experts: int, rows: int, columns: int, block: tuple[int, int], seed: int
) -> tuple[BlockScaled, torch.Tensor]:
    """FP8 matrices, and the float32 numbers that they stand for."""
    values = random(experts, rows, columns, seed=seed).to(FP8)
    counts = (-(-rows // block[0]), -(-columns // block[1]))
    scales = random(experts, *counts, seed=seed + 1).abs() * 0.1 + 0.01
    scaled = BlockScaled(values, scales, block)
    return scaled, torch.stack([scaled.expert(e, torch.float32) for e in range(experts)])


WIDTHS = {
    "whole blocks": (96, 64, (32, 32), (32, 32)),
    "cut rows, Qwen3-235B at 8 ranks": (100, 192, (64, 128), (128, 64)),
    "short blocks": (72, 32, (16, 32), (16, 32)),
}


@LOOPS
@pytest.mark.parametrize(("rows", "shared"), [(1, 0), (2, 1), (12, 0), (12, 1), (70, 1)])
@pytest.mark.parametrize("name", WIDTHS)
def test_fp8_experts_equal_experts_of_the_numbers_meant(name: str, rows: int, shared: int) -> None:
    hidden, width, at_gate, at_down = WIDTHS[name]
    experts, top = 6 + shared, 2
    gate_up, gate_up_meant = _blocks(experts, 2 * width, hidden, at_gate, 3)
    down, down_meant = _blocks(experts, hidden, width, at_down, 5)
    x, logits = random(rows, hidden), random(rows, 6, seed=1)
    scratch = moe.make_scratch(rows, top + shared, experts, width, hidden, x)
    routing = route.Routing(top, False, True, 1.0, shared)
    route.choose_experts(logits, None, routing, scratch.ids, scratch.weights)
    want = torch.zeros(rows, hidden)
    for row in range(rows):
        for expert, weight in zip(scratch.ids[row].tolist(), scratch.weights[row], strict=True):
            gate, up = (gate_up_meant[expert] @ x[row]).chunk(2)
            inner = torch.nn.functional.silu(gate) * up
            want[row] += weight * (down_meant[expert] @ inner)
    few, many = torch.empty(rows, hidden), torch.empty(rows, hidden)
    moe.add_parts(moe_fp8.run_fp8_experts(x, gate_up, down, scratch), few)
    moe_fp8.fp8_experts_for_many(x, scratch.ids, scratch.weights, gate_up, down, many)
    close(few, want, 1e-4)
    close(many, want, 1e-4)


def test_a_step_never_leaves_its_block() -> None:
    assert moe_fp8._depth(moe_fp8.Way(64, 128, 3), 128) == 128
    assert moe_fp8._depth(moe_fp8.Way(64, 128, 3), 96) == 32
    assert moe_fp8._depth(moe_fp8.Way(64, 64, 3), 32) == 32


def _moved(asm: str, word: int) -> list[int]:
    """The two registers that a few PTX instructions leave of one, read by the book."""
    held: dict[str, int] = {"$2": word}

    def value(name: str) -> int:
        return held[name] if name in held else int(name, 0)

    for line in re.findall(r"^(\w+)\.b32 (.*);$|^(shr)\.u32 (.*);$", asm, re.MULTILINE):
        kind, target, *rest = (line[0] or line[2], *(line[1] or line[3]).split(", "))
        numbers = [value(name) for name in rest]
        if kind == "prmt":  # each nibble of the last names a byte of the first two
            eight = numbers[0].to_bytes(4, "little") + numbers[1].to_bytes(4, "little")
            picked = [eight[(numbers[2] >> 4 * i) & 7] for i in range(4)]
            held[target] = int.from_bytes(bytes(picked), "little")
        else:
            step = {"and": operator.and_, "or": operator.or_, "shr": operator.rshift}[kind]
            held[target] = step(*numbers)
    return [held["$0"], held["$1"]]


def test_moved_bits_are_every_fp8_number_times_a_power_of_two() -> None:
    """The interpreter knows no PTX, so the instructions are read here."""
    numbers = torch.arange(256, dtype=torch.uint8)
    words = numbers.view(torch.int32).tolist()
    halves = [
        half for word in words for half in _moved(expert_products._MOVE_BITS.value, word % 2**32)
    ]
    moved = torch.tensor(halves, dtype=torch.int64).to(torch.uint32).view(torch.bfloat16)
    want, got = numbers.view(FP8).double(), moved.double() * expert_products._LIFT.value
    real = ~want.isnan()
    assert int(real.sum()) == 254
    assert torch.equal(got[real], want[real])
    assert torch.equal(got.signbit()[real], want.signbit()[real])
