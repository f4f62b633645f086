"""Triton kernels equal plain torch, run on a CPU by Triton's interpreter where Triton is installed.

The interpreter's bfloat16 dot products are wrong (triton 3.6), so everything here is float32.
"""

from __future__ import annotations

import math
import os
from importlib.metadata import version

import numpy
import pytest
import torch
from numpy.lib import NumpyVersion
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed: kernels are tested where it is")

from actors.engine.fast_choice import take_tokens
from actors.engine.fast_state import DecodeState, reach_of
from actors.engine.sampler import gumbel_noise
from actors.kernels import (
    choose,
    decode_attention,
    embed,
    exchange,
    pool,
    residual,
    rope_cache,
)
from actors.kernels.pool_plan import plan_chunks

TRITON = tuple(int(n) for n in version("triton").split(".")[:2])
LOOPS = pytest.mark.skipif(
    TRITON < (3, 7) and NumpyVersion(numpy.__version__) >= "2.4.0",
    reason="triton 3.6's interpreter cannot loop to a loaded bound with numpy 2.4 or later",
)
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1",
    reason="on a GPU tests/gpu runs the kernels compiled",
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_residual_adds_and_norms_as_the_reference() -> None:
    x, delta, weight = random(5, 72), random(5, 72, seed=1), random(72, seed=2)
    want, normed = residual.residual_norm_reference(x, delta, weight, 1e-6)
    out = torch.empty_like(x)
    residual.residual_norm(x, delta, weight, 1e-6, out)
    close(x, want)
    close(out, normed)


@pytest.mark.parametrize("kind", range(5))
def test_residual_steers_each_row_by_its_own_operator(kind: int) -> None:
    x, weight, bank = random(3, 40), torch.ones(40), random(4, 40, seed=3)
    bank[0] = 0
    units = bank / bank.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    before, out = x.clone(), torch.empty_like(x)
    coefficients = torch.tensor([0.7, 0.7, -0.4])
    steer = (bank, units, ints(2, 0, 3), ints(kind, kind, kind), coefficients)
    residual.residual_norm(x, None, weight, 1e-6, out, steer=steer)
    for row, slot, c in ((0, 2, 0.7), (2, 3, -0.4)):
        h, v, u = before[row], bank[slot], units[slot]
        along = h @ u
        want = (
            h + c * v,
            h + c * h.norm() * v,
            h - c * along * u,
            h + (c - along).clamp_min(0) * u,
            h + (c - along).clamp_max(0) * u,
        )[kind]
        close(x[row], want)
    assert torch.equal(x[1], before[1])


def test_residual_pools_only_live_rows_inside_their_interval() -> None:
    x, weight, totals = random(4, 24), torch.ones(24), torch.zeros(6, 24)
    rows = torch.zeros(3, 5, 24)
    capture = (totals, ints(5, 1, 2, 3), ints(7, 7, 7, 7), ints(0, 8, 0, 0), ints(8, 9, 7, 9),
               ints(2, 2, 2, 0))  # fmt: skip
    out = torch.empty_like(x)
    for _ in range(2):
        residual.residual_norm(
            x, None, weight, 1e-6, out, capture=capture, keep=(rows, torch.tensor([1]))
        )
    close(totals[5], 2 * x[0])
    assert torch.count_nonzero(totals[:5]) == 0
    assert torch.equal(rows[1, :4], x)
    assert torch.count_nonzero(rows[[0, 2]]) == 0


def test_silu_mul_is_silu_of_gate_times_up() -> None:
    both, out = random(3, 2 * 50), torch.empty(3, 50)
    residual.silu_mul(both, out)
    close(out, torch.nn.functional.silu(both[:, :50]) * both[:, 50:])


def test_embed_gives_zeros_for_tokens_of_other_ranks() -> None:
    table, out = random(10, 30), torch.empty(3, 30)
    embed.embed_local(torch.tensor([12, 3, 19]), table, out, start=10, stop=20)
    assert torch.equal(out[0], table[2])
    assert torch.equal(out[2], table[9])
    assert torch.count_nonzero(out[1]) == 0


def rotated(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    half = x.shape[-1] // 2
    low, high = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def tables(length: int, half: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(length)[:, None] / 7.0 ** (torch.arange(half) / half)
    return angle.cos(), angle.sin()


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


@pytest.mark.parametrize("normed", [False, True])
def test_heads_are_normed_rotated_and_stored_in_their_pages(normed: bool) -> None:
    rows, heads, kv, width = 3, 4, 2, 12
    qkv = random(rows, (heads + 2 * kv) * width)
    keys, values = torch.zeros(16, kv, width), torch.zeros(16, kv, width)
    cos, sin = tables(20, width // 2)
    positions, pages = ints(5, 0, 9), ints(1, 2, 0, 3, 0, 0, 0, 0, 1).view(3, 3)
    norms = (random(width, seed=4), random(width, seed=5)) if normed else None
    q = torch.empty(rows, heads, width)
    rope_cache.rotate_and_store(
        qkv, q, keys, values, (cos, sin), norms, positions, pages, page_size=4, eps=1e-6
    )
    parts = qkv.view(rows, heads + 2 * kv, width)
    for row, position in enumerate(positions.tolist()):
        slot = int(pages[row, position // 4]) * 4 + position % 4
        want_q, want_k = parts[row, :heads], parts[row, heads : heads + kv]
        if norms:
            want_q, want_k = rms(want_q, norms[0], 1e-6), rms(want_k, norms[1], 1e-6)
        close(q[row], rotated(want_q, cos[position], sin[position], False))
        close(keys[slot], rotated(want_k, cos[position], sin[position], False))
        assert torch.equal(values[slot], parts[row, heads + kv :])


@pytest.mark.parametrize("interleaved", [False, True])
def test_latents_are_normed_rotated_and_stored(interleaved: bool) -> None:
    wide, latent, rope = 28, 20, 8
    a, q_out, cache = random(2, wide + latent + rope), torch.empty(2, wide), torch.zeros(12, 1, 28)
    gains = (random(wide, seed=6), random(latent, seed=7))
    cos, sin = tables(10, rope // 2)
    slots = torch.tensor([7, 2])
    rope_cache.norm_and_store_latents(
        a, q_out, cache, (cos, sin), gains, ints(3, 9), slots,
        latent=latent, page_size=0, eps=(1e-6, 1e-5), interleaved=interleaved,
    )  # fmt: skip
    close(q_out, rms(a[:, :wide], gains[0], 1e-6))
    for row, (slot, position) in enumerate(((7, 3), (2, 9))):
        close(cache[slot, 0, :latent], rms(a[row, wide : wide + latent], gains[1], 1e-5))
        want = rotated(a[row, wide + latent :], cos[position], sin[position], interleaved)
        close(cache[slot, 0, latent:], want)
    q, out = random(2, 3, 10 + rope, seed=8), torch.empty(2, 3, rope)
    rope_cache.rotate_queries(q, out, (cos, sin), ints(3, 9), nope=10, interleaved=interleaved)
    for row, position in enumerate((3, 9)):
        close(out[row], rotated(q[row, :, 10:], cos[position], sin[position], interleaved))


@LOOPS
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("window", [None, 9])
def test_paged_attention_equals_softmax_over_the_context(splits: int, window: int | None) -> None:
    heads, kv, width, page = 6, 2, 16, 4
    lengths = (1, 30, 13)
    keys, values = random(80, kv, width, seed=1), random(80, kv, width, seed=2)
    pages = torch.randperm(19, generator=torch.Generator().manual_seed(0))[:24].int() + 1
    table = torch.zeros(3, 8, dtype=torch.int32)
    used = 0
    for row, length in enumerate(lengths):
        count = math.ceil(length / page)
        table[row, :count] = pages[used : used + count]
        used += count
    q, out = random(3, heads, width), torch.empty(3, heads, width)
    scratch = (torch.empty(3, heads, splits, width), torch.empty(3, heads, splits))
    positions = ints(*(n - 1 for n in lengths))
    decode_attention.decode_attention(
        q, None, keys, values, out, scratch, positions, table,
        page_size=page, scale=0.25, window=window, splits=splits,
    )  # fmt: skip
    for row, length in enumerate(lengths):
        at = torch.arange(max(0, length - window) if window else 0, length)
        slots = table[row, at // page].long() * page + at % page
        for head in range(heads):
            k, v = keys[slots, head // 3], values[slots, head // 3]
            close(out[row, head], (0.25 * (k @ q[row, head])).softmax(0) @ v)


@LOOPS
def test_latent_attention_reads_values_from_the_keys() -> None:
    heads, latent, rope = 4, 32, 16
    keys = random(40, 1, latent + rope, seed=3)
    q, q_rope, out = (
        random(2, heads, latent),
        random(2, heads, rope, seed=9),
        torch.empty(2, heads, latent),
    )
    table = torch.arange(40, dtype=torch.int32).view(2, 20)
    scratch = (torch.empty(2, heads, 2, latent), torch.empty(2, heads, 2))
    decode_attention.decode_attention(
        q, q_rope, keys, keys, out, scratch, ints(19, 6), table,
        page_size=1, scale=0.2, window=None, splits=2,
    )  # fmt: skip
    for row, length in enumerate((20, 7)):
        k = keys[table[row, :length].long(), 0]
        scores = q[row] @ k[:, :latent].T + q_rope[row] @ k[:, latent:].T
        close(out[row], (0.2 * scores).softmax(-1) @ k[:, :latent])


def test_choice_is_greedy_or_the_samplers_own_gumbel_noise() -> None:
    logits = random(4, 5000)
    logits[:, 4990:] = 99.0  # columns beyond the real ones
    keys, positions = torch.tensor([11, -5, 7, 3]), ints(4, 0, 9, 2)
    heat = torch.tensor([0.0, 1.0, 0.6, 2.0])
    scratch = (torch.empty(4, 3), torch.empty(4, 3, dtype=torch.int32))
    out = torch.empty(4, 2)
    choose.choose_local(logits, keys, positions, heat, scratch, out, held=4990, start=100)
    ids = torch.arange(4990) + 100
    noise = gumbel_noise(keys, positions.long() + 1, ids)
    real = logits[:, :4990]
    scores = torch.where(heat[:, None] > 0, real / heat[:, None].clamp_min(1e-9) + noise, real)
    assert out[:, 1].contiguous().view(torch.int32).tolist() == (scores.argmax(-1) + 100).tolist()
    logits[2, 17] = float("nan")
    choose.choose_local(logits, keys, positions, heat, scratch, out, held=4990, start=100)
    assert out[2, 1:].contiguous().view(torch.int32).item() == -1


def test_advance_joins_ranks_and_ends_sequences() -> None:
    gathered = torch.empty(2, 3, 2)
    gathered[..., 0] = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 2.0]])
    gathered[..., 1] = ints(10, 11, 12, 90, 91, 92).view(2, 3).view(torch.float32)
    tokens, positions = torch.zeros(3, dtype=torch.int64), ints(5, 6, 7)
    live, left, step = ints(2, 2, 1), ints(4, 4, 0), torch.zeros(1, dtype=torch.int64)
    eos = torch.full((3, 8), -2, dtype=torch.int32)
    eos[1, 3] = 11
    history = torch.zeros(4, 3, dtype=torch.int32)
    choose.advance(gathered, tokens, positions, live, eos, left, history, step)
    assert tokens.tolist() == [90, 11, 12]  # the lower rank wins a tie
    assert positions.tolist() == [6, 7, 8]
    assert live.tolist() == [2, 1, 0]
    assert left.tolist() == [3, 3, -1]
    assert history[0].tolist() == [90, 11, 12]
    assert step.item() == 1


@LOOPS
@pytest.mark.parametrize("length", [0, 2, 63, 64, 150])
def test_pooled_sums_add_each_owners_rows(length: int) -> None:
    x = random(200, 300)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))[: length + 3]
    spans, bounds = plan_chunks(numpy.array([0, length, length + 3], numpy.int32))
    chunks = pool.Chunks(torch.from_numpy(spans), torch.from_numpy(bounds))
    got = pool.pooled_sums(x, order, chunks, squares=True)
    close(got[0, 0], x[order[:length]].sum(0), 1e-4)
    close(got[1, 1], (x[order[length:]] ** 2).sum(0), 1e-4)
    close(pool.pooled_sums(x, order, chunks, squares=False), got[:, :1])


@pytest.mark.parametrize(("length", "reach"), [(1, 0), (256, 0), (257, 1), (2048, 1), (2049, 2)])
def test_reach_is_the_class_of_the_context(length: int, reach: int) -> None:
    assert reach_of(length) == reach


def test_splits_fill_the_gpu_but_no_more_than_the_context_is_worth() -> None:
    assert decode_attention.num_splits(1, 1, 0) == 1
    assert decode_attention.num_splits(1, 1, 1) == 8
    assert decode_attention.num_splits(1, 2, 2) == 32
    assert decode_attention.num_splits(16, 2, 2) == 8
    assert decode_attention.num_splits(300, 2, 2) == 1


def bits(*shape: int, seed: int = 0) -> Tensor:
    return random(*shape, seed=seed).to(torch.bfloat16)


@pytest.mark.parametrize("width", [64, 72])
def test_exchange_alone_is_the_residual_step(width: int) -> None:
    x, delta, weight = bits(3, width), bits(3, width, seed=1), bits(width, seed=2)
    other, want, got = x.clone(), torch.empty_like(x), torch.empty_like(x)
    residual.residual_norm(other, delta, weight, 1e-6, want)
    exchange.exchange_residual(delta, x, weight, 1e-6, got, exchange.alone(x.device))
    assert torch.equal(x, other)
    assert torch.equal(got, want)


def test_exchange_adds_the_parts_of_a_row_before_it_rounds() -> None:
    x, parts, weight = bits(2, 40), bits(2, 5, 40, seed=1), torch.ones(40, dtype=torch.bfloat16)
    want = (x.float() + parts.float().sum(1).to(torch.bfloat16).float()).to(torch.bfloat16)
    out = torch.empty_like(x)
    exchange.exchange_residual(parts, x, weight, 1e-6, out, exchange.alone(x.device))
    close(x.float(), want.float(), 2**-6)  # the interpreter cuts bfloat16 where a GPU rounds


def test_exchange_steers_pools_and_keeps_as_the_residual_step_does() -> None:
    x, delta, weight, bank = bits(4, 24), bits(4, 24, seed=1), bits(24, seed=2), random(3, 24)
    bank[0] = 0
    steer = (bank, bank / bank.norm(dim=-1, keepdim=True).clamp_min(1e-30), ints(1, 0, 2, 2),
             ints(0, 0, 1, 4), torch.tensor([0.5, 1.0, -0.2, 0.1]))  # fmt: skip
    found = []
    for step in (residual.residual_norm, None):
        totals, kept, mine = torch.zeros(5, 24), torch.zeros(3, 4, 24).bfloat16(), x.clone()
        capture = (totals, ints(4, 1, 2, 3), ints(7, 7, 7, 7), ints(0, 8, 0, 0),
                   ints(8, 9, 7, 9), ints(2, 2, 2, 0))  # fmt: skip
        keep, out = (kept, torch.tensor([2])), torch.empty_like(x)
        ask = {"steer": steer, "capture": capture, "keep": keep}
        if step is not None:
            step(mine, delta, weight, 1e-6, out, **ask)
        else:
            exchange.exchange_residual(
                delta, mine, weight, 1e-6, out, exchange.alone(x.device), **ask
            )
        found.append((mine, totals, kept, out))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(found[0][2][2], found[0][0])


def test_tokens_from_elsewhere_move_rows_as_a_step_does() -> None:
    state = DecodeState(num_layers=1, max_rows=8, max_pages=3, width=2, device=torch.device("cpu"))
    state.step.fill_(7)
    state.positions[:6] = ints(4, 4, 9, 1, 2, 3)
    state.left[:6] = ints(5, 5, 5, 1, 5, 5)
    state.live[:6] = ints(2, 2, 2, 2, 1, 2)
    state.eos.fill_(-2)
    state.eos[1, 3] = 163839
    take_tokens(state, torch.tensor([5, 163839, -1, 8, 9]))
    assert state.tokens[:6].tolist() == [5, 163839, 0, 8, 9, 0]
    assert state.positions[:6].tolist() == [5, 5, 10, 2, 3, 3]  # the last is not one of them
    assert state.left[:6].tolist() == [4, 4, 4, 0, 4, 5]
    # It goes on, met its end token, is no number, was the last one, was over.
    assert state.live[:6].tolist() == [2, 1, 1, 1, 0, 2]
    assert state.history[0, :5].tolist() == [5, 163839, -1, 8, 9]
