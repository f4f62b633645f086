"""A router's logits become each row's experts and their weights, in one kernel without a sort.

Softmax scores, or DeepSeek's (arXiv:2412.19437, section 2.1.2): sigmoid scores, a bias that only
moves the choice, and where the experts form groups, only those of the groups whose two best
experts score highest together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Routing(NamedTuple):
    """How a router turns logits into choices."""

    top_k: int
    sigmoid: bool
    """DeepSeek: sigmoid scores, a bias that only moves the choice. Else softmax."""
    normalise: bool
    scale: float
    num_shared: int
    """1 when the expert tensors end with a shared expert that every row uses."""
    num_groups: int = 1
    """Experts ``[0, E / num_groups)`` are the first group, and so on."""
    top_groups: int = 1
    """Groups that a row may choose from."""


@triton.jit
def _keep_best_groups(choice, G: tl.constexpr, GB: tl.constexpr, TOPG: tl.constexpr):
    """Of ``[GB, experts of a group]``: those outside the TOPG best groups become -inf."""
    column = tl.arange(0, choice.shape[1])
    best = tl.max(choice, axis=1)
    first = tl.argmax(choice, axis=1)
    others = tl.where(column[None] == first[:, None], float("-inf"), choice)
    score = best + tl.max(others, axis=1)
    group = tl.arange(0, GB)
    score = tl.where(group < G, score, float("-inf"))
    before = (score[None] > score[:, None]) | (
        (score[None] == score[:, None]) & (group[None] < group[:, None])
    )
    is_kept = tl.sum(before.to(tl.int32), axis=1) < TOPG
    return tl.where(is_kept[:, None], choice, float("-inf"))


@triton.jit
def _route_kernel(
    logits_ptr, bias_ptr, ids_ptr, weights_ptr, scale,
    E: tl.constexpr, G: tl.constexpr, GB: tl.constexpr, SB: tl.constexpr, TOPG: tl.constexpr,
    K: tl.constexpr, WIDTH: tl.constexpr, SIGMOID: tl.constexpr, NORMALISE: tl.constexpr,
    SHARED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    # Places hold the experts in order, each group from a place that is a multiple of SB.
    places = tl.arange(0, GB * SB)
    inside = (places // SB < G) & (places % SB < E // G)
    at = tl.where(inside, (places // SB) * (E // G) + places % SB, E)
    logits = tl.load(logits_ptr + row * E + at, mask=inside, other=float("-inf")).to(tl.float32)
    if SIGMOID:
        scores = tl.where(inside, tl.sigmoid(logits), 0.0)
        choice = scores + tl.load(bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
        choice = tl.where(inside, choice, float("-inf"))
    else:
        shifted = tl.exp(logits - tl.max(logits, axis=0))
        scores = shifted / tl.sum(shifted, axis=0)
        choice = tl.where(inside, scores, float("-inf"))
    if TOPG < G:
        kept = _keep_best_groups(tl.reshape(choice, [GB, SB]), G, GB, TOPG)
        choice = tl.reshape(kept, [GB * SB])
    slot = tl.arange(0, WIDTH)
    if GB * SB <= 128:
        # All places at once: an expert's place is the number of experts that go before it.
        before = (choice[None] > choice[:, None]) | (
            (choice[None] == choice[:, None]) & (places[None] < places[:, None])
        )
        place = tl.sum(before.to(tl.int32), axis=1)
        takes = (place[:, None] == slot[None]) & (slot[None] < K)
        ids = tl.sum(tl.where(takes, at[:, None], 0), axis=0)
        weights = tl.sum(tl.where(takes, scores[:, None], 0.0), axis=0)
    else:
        ids = tl.zeros([WIDTH], tl.int32)
        weights = tl.zeros([WIDTH], tl.float32)
        for k in tl.static_range(K):
            best = tl.argmax(choice, axis=0)
            is_best = places == best
            ids = tl.where(slot == k, tl.sum(tl.where(is_best, at, 0), axis=0), ids)
            weight = tl.sum(tl.where(is_best, scores, 0.0), axis=0)
            weights = tl.where(slot == k, weight, weights)
            choice = tl.where(is_best, float("-inf"), choice)
    ids = tl.minimum(ids, E - 1)  # logits that are not numbers share a place, or have none
    if NORMALISE:
        weights = weights / (tl.sum(weights, axis=0) + 1e-20)
    weights = weights * scale
    if SHARED:
        ids = tl.where(slot == K, E, ids)
        weights = tl.where(slot == K, 1.0, weights)
    total = K + SHARED
    tl.store(ids_ptr + row * total + slot, ids, mask=slot < total)
    tl.store(weights_ptr + row * total + slot, weights, mask=slot < total)


def choose_experts(
    logits_NE: Tensor, bias_E: Tensor | None, routing: Routing, ids: Tensor, weights: Tensor
) -> None:
    """Choose experts for rows.

    Args:
        logits_NE: float32 router logits, of the routed experts.
        bias_E: Moves the choice only; None: no bias.
        routing: How logits become choices.
        ids: int32 ``[N, top_k + num_shared]``, receives the experts.
        weights: float32, receives their weights.
    """
    rows, experts = logits_NE.shape
    groups = routing.num_groups
    _route_kernel[(rows,)](
        logits_NE, bias_E if bias_E is not None else logits_NE, ids, weights, routing.scale,
        E=experts, G=groups, GB=triton.next_power_of_2(groups),
        SB=triton.next_power_of_2(experts // groups), TOPG=routing.top_groups, K=routing.top_k,
        WIDTH=triton.next_power_of_2(routing.top_k + 1), SIGMOID=routing.sigmoid,
        NORMALISE=routing.normalise, SHARED=routing.num_shared, num_warps=4,
    )  # fmt: skip


def route_rows(logits_NE: Tensor, bias_E: Tensor | None, routing: Routing) -> tuple[Tensor, Tensor]:
    """(experts int32, weights float32), both ``[N, top_k + num_shared]``, as ``choose_experts``."""
    shape = (logits_NE.shape[0], routing.top_k + routing.num_shared)
    ids = torch.empty(shape, dtype=torch.int32, device=logits_NE.device)
    weights = torch.empty(shape, dtype=torch.float32, device=logits_NE.device)
    choose_experts(logits_NE, bias_E, routing, ids, weights)
    return ids, weights
