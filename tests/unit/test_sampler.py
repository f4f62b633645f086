"""Draws follow softmax exactly, filters are transformers' own, and neighbours change nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from actors.engine import sampler
from actors.engine.collectives import Collectives
from actors.engine.sampler import NOT_FINITE, gumbel_noise, request_key, sample
from actors.engine.sequence import Sequence
from tests import oracle, tiny
from tests.tiny import ask

PINNED = [0.745997, -0.666470, 2.481641, 1.359724]
ALONE = Collectives(0, 1, None)


def _choose(logits, requests, tokens=None):
    """One step for requests whose prompts are given; the engine's own chosen ids."""
    sequences = tuple(
        Sequence(r, i, list(tokens[i] if tokens else r.token_ids)) for i, r in enumerate(requests)
    )
    width = logits.shape[-1]
    return sample(logits.clone(), sequences, vocab_start=0, vocab_stop=width, collectives=ALONE)


def _chi_square(counts: np.ndarray, probability: np.ndarray) -> float:
    """Sum of (seen - expected)^2 / expected over cells that may occur; the last cells pooled."""
    expected = probability * counts.sum()
    rare = expected < 5
    seen, want = counts[~rare], expected[~rare]
    if rare.any() and expected[rare].sum() > 1:
        seen = np.append(seen, counts[rare].sum())
        want = np.append(want, expected[rare].sum())
    statistic = float(((seen - want) ** 2 / want).sum())
    freedom = len(seen) - 1
    # Wilson and Hilferty: the cube root of chi-square / freedom is nearly normal.
    return ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5


def _expected(logits, ids, **options) -> np.ndarray:
    """Transformers' processors, in the order in which generate() builds them."""
    processors = LogitsProcessorList()
    if options.get("repetition_penalty", 1.0) != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    processors.append(TemperatureLogitsWarper(float(options["temperature"])))
    if options.get("top_k"):
        processors.append(TopKLogitsWarper(options["top_k"]))
    if options.get("top_p", 1.0) < 1:
        processors.append(TopPLogitsWarper(options["top_p"]))
    if options.get("min_p"):
        processors.append(MinPLogitsWarper(options["min_p"]))
    scores = processors(torch.tensor([ids]), logits[None].clone())
    return scores.softmax(-1)[0].double().numpy()


OPTIONS = (
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 1.0, "repetition_penalty": 1.8},
    {"temperature": 1.2, "repetition_penalty": 0.6, "top_p": 0.7},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_8000_draws_pass_chi_square_against_transformers_own_filters(options):
    logits = torch.from_numpy(np.random.default_rng(3).normal(size=60).astype("f4") * 1.5)
    ids = (4, 17, 17, 33)
    want = _expected(logits, ids, **options)
    count = 8000
    requests = [ask(f"r{i}", ids, 1, seed=7, **options) for i in range(count)]
    chosen = _choose(logits.expand(count, -1), requests).token_ids.numpy()
    counts = np.bincount(chosen, minlength=60).astype(np.float64)
    assert counts[want == 0].sum() == 0  # what a filter drops is never drawn
    assert (counts > 0).sum() >= min(5, (want > 0).sum())
    assert abs(_chi_square(counts, want)) < 4


def test_draws_at_successive_positions_and_seeds_are_independent():
    logits = torch.zeros(1, 8)
    by_position = [
        int(_choose(logits, [ask("a", (1,) * n, 1, temperature=1.0)]).token_ids)
        for n in range(1, 900)
    ]
    by_seed = [
        int(_choose(logits, [ask("a", (1,), 1, temperature=1.0, seed=n)]).token_ids)
        for n in range(900)
    ]
    for draws in (by_position, by_seed):
        counts = np.bincount(draws, minlength=8).astype(np.float64)
        assert abs(_chi_square(counts, np.full(8, 1 / 8))) < 4
        pairs = np.bincount(np.array(draws[:-1]) * 8 + draws[1:], minlength=64).astype(np.float64)
        assert abs(_chi_square(pairs, np.full(64, 1 / 64))) < 4


def test_gumbel_noise_has_the_mean_and_variance_of_gumbel():
    keys = torch.tensor([request_key(0, str(i)) for i in range(200)])
    noise = gumbel_noise(keys, torch.arange(200), torch.arange(1000)).double().numpy()
    assert abs(noise.mean() - 0.5772) < 0.01
    assert abs(noise.var() - np.pi**2 / 6) < 0.03
    assert np.isfinite(noise).all()
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.1


def _noise_by_hand(key: int, position: int, token: int) -> float:
    """SplitMix64 in Python's own integers, as its authors print it."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    stream = mix((key + position * golden) & mask)
    bits = mix((stream + (token + 1) * golden) & mask) >> 11
    return -math.log(-math.log((bits + 0.5) / 2**53))


def test_noise_is_the_written_down_hash_of_key_position_and_token():
    keys, positions, ids = [request_key(3, "a"), -5, 2**62], [0, 9, 4000], [0, 1, 160, 163_839]
    got = gumbel_noise(torch.tensor(keys), torch.tensor(positions), torch.tensor(ids))
    want = [[_noise_by_hand(k, p, t) for t in ids] for k, p in zip(keys, positions, strict=True)]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, atol=1e-6)
    assert got[0].tolist() == pytest.approx(PINNED, abs=2e-6)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_noise_does_not_depend_on_how_much_of_it_is_made_at_once(block, monkeypatch):
    keys = torch.tensor([request_key(0, str(i)) for i in range(9)])
    several = torch.from_numpy(np.random.default_rng(1).integers(0, 999, (9, 50)))
    want = [gumbel_noise(keys, torch.arange(9), ids) for ids in (torch.arange(50), several)]
    monkeypatch.setattr(sampler, "NOISE_BLOCK", block)
    got = [gumbel_noise(keys, torch.arange(9), ids) for ids in (torch.arange(50), several)]
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_noise_is_made_for_the_rows_and_tokens_that_it_can_decide(monkeypatch):
    made = []

    def spy(keys, positions, ids):
        made.append((len(keys), ids.shape[-1]))
        return gumbel_noise(keys, positions, ids)

    monkeypatch.setattr(sampler, "gumbel_noise", spy)
    kinds = [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 4}, {"temperature": 0.5}]
    requests = [ask(str(i), (1, 2), 1, **kind) for i, kind in enumerate(kinds)]
    _choose(torch.zeros(4, 3000), requests)
    assert made == [(2, 3000), (1, 1024)]
    made.clear()
    _choose(torch.zeros(1, 3000), requests[:1])
    assert made == []


def test_a_draw_depends_on_seed_request_and_position_and_on_no_neighbour():
    rng = np.random.default_rng(5)
    logits = torch.from_numpy(rng.normal(size=(40, 161)).astype("f4"))
    requests = [
        ask(f"r{i}", range(3, 4 + i), 1, seed=i % 3, **OPTIONS[i % len(OPTIONS)]) for i in range(40)
    ]
    together = _choose(logits, requests).token_ids.tolist()
    alone = [int(_choose(logits[i : i + 1], requests[i : i + 1]).token_ids) for i in range(40)]
    order = rng.permutation(40)
    shuffled = _choose(logits[order], [requests[i] for i in order]).token_ids.numpy()
    assert together == alone
    assert shuffled.tolist() == [together[i] for i in order]
    moved = [
        ask(f"r{i}", range(3, 4 + i), 1, seed=9, **OPTIONS[i % len(OPTIONS)]) for i in range(40)
    ]
    assert _choose(logits, moved).token_ids.tolist() != together


def test_greedy_takes_the_smallest_id_among_equals_also_beside_sampling():
    logits = torch.zeros(3, 12)
    logits[0, [4, 9]] = 2.0
    logits[1, [0, 11]] = -1.0
    requests = [ask("a", (1,), 1), ask("b", (1,), 1), ask("c", (1,), 1, temperature=1.0, top_k=3)]
    assert _choose(logits, requests).token_ids.tolist()[:2] == [4, 1]
    assert _choose(logits[:2], requests[:2]).token_ids.tolist() == [4, 1]


def test_filters_keep_at_least_the_likeliest_token():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).expand(50, -1)
    for options in ({"top_p": 1e-6}, {"min_p": 1.0}, {"top_k": 1}):
        requests = [ask(f"r{i}", (1,), 1, temperature=5.0, **options) for i in range(50)]
        assert set(_choose(logits, requests).token_ids.tolist()) == {1}


def test_a_filter_wider_than_the_vocabulary_filters_nothing():
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(500, 30)).astype("f4"))
    free = [ask(f"r{i}", (1,), 1, temperature=1.0) for i in range(500)]
    wide = [ask(f"r{i}", (1,), 1, temperature=1.0, top_k=30) for i in range(500)]
    assert _choose(logits, free).token_ids.tolist() == _choose(logits, wide).token_ids.tolist()


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}])
def test_a_row_of_nan_chooses_no_token_and_leaves_the_others_alone(options):
    logits = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 20)).astype("f4"))
    requests = [ask(f"r{i}", (1, 2), 1, num_top_logprobs=2, **options) for i in range(3)]
    want = _choose(logits, requests)
    broken = logits.clone()
    broken[1, 7] = float("nan")
    got = _choose(broken, requests)
    assert got.token_ids[1] == NOT_FINITE
    for row in (0, 2):
        assert got.token_ids[row] == want.token_ids[row]
        assert torch.equal(got.top[row], want.top[row])


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_log_probabilities_equal_log_softmax_of_stock(name):
    prompts = tiny.prompts(6, 40, seed=7)
    named = (0, 160, 77, 3)
    kinds = [{}, {"temperature": 0.7}, {"temperature": 1.5, "top_k": 4, "top_p": 0.8}]
    requests = [
        ask(i, p, 8, num_top_logprobs=[20, 5, 0][i % 3], logprob_token_ids=named[: i % 4 + 1], **k)
        for i, (p, k) in enumerate(zip(prompts, kinds * 2, strict=True))
    ]
    requests.append(ask("none", prompts[0], 8))
    reply = tiny.run(tiny.engine(tiny.model_path(name)), requests)
    for request, result in zip(requests, reply.results, strict=True):
        if request.id == "none":
            assert result.logprobs is None
            continue
        logits, _ = oracle.forward(tiny.stock_of(name), request.token_ids + result.completion_ids)
        rows = torch.from_numpy(logits[len(request.token_ids) - 1 : -1]).double()
        want = (rows / (request.sampling.temperature or 1.0)).log_softmax(-1).numpy()
        got, count = result.logprobs, len(result.completion_ids)
        at = np.arange(count)
        np.testing.assert_allclose(got.chosen, want[at, list(result.completion_ids)], atol=2e-4)
        assert got.named.shape == (count, len(request.logprob_token_ids))
        np.testing.assert_allclose(got.named, want[:, list(request.logprob_token_ids)], atol=2e-4)
        most = request.num_top_logprobs
        assert got.top.shape == got.top_ids.shape == (count, most)
        np.testing.assert_allclose(got.top, -np.sort(-want, axis=1)[:, :most], atol=2e-4)
        np.testing.assert_allclose(want[at[:, None], got.top_ids], got.top, atol=2e-4)


@pytest.mark.parametrize("penalty", [1.5, 0.5])
def test_a_penalised_greedy_completion_equals_stock_generate(penalty):
    prompts = tiny.prompts(6, 30, seed=11)
    requests = [ask(i, p, 12, repetition_penalty=penalty) for i, p in enumerate(prompts)]
    reply = tiny.run(tiny.engine(tiny.model_path("mistral")), requests)
    stock = tiny.stock_of("mistral")
    for prompt, result in zip(prompts, reply.results, strict=True):
        want = oracle.generate(stock, prompt, 12, repetition_penalty=penalty)
        assert result.completion_ids == want


def test_a_sampled_completion_repeats_whatever_runs_beside_it():
    path, prompts = tiny.model_path("deepseek_v3"), tiny.prompts(10, 40, seed=13)
    requests = [ask(i, p, 10, seed=5, **OPTIONS[i % len(OPTIONS)]) for i, p in enumerate(prompts)]
    together = tiny.run(tiny.engine(path), requests)
    alone = tiny.engine(path, max_batch_requests=1, max_batch_tokens=9)
    again = tiny.run(alone, requests[::-1]).results[::-1]
    assert [r.completion_ids for r in again] == [r.completion_ids for r in together.results]


class _Weighed(Collectives):
    """Two ranks, of which this is both; remembers how many values a row sends."""

    def __init__(self):
        super().__init__(0, 2, None)
        self.sent: list[int] = []

    def all_gather(self, tensor):
        self.sent.append(tensor.numel() // len(tensor))
        return torch.stack((tensor, tensor))

    def all_reduce(self, tensor):
        self.sent.append(tensor.numel() // len(tensor))
        return tensor


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, 2),  # the best value and its id
        ({"temperature": 1.0}, 2),
        ({"num_top_logprobs": 20}, 2 * 20),
        ({"temperature": 0.7, "num_top_logprobs": 1, "logprob_token_ids": (1, 2, 9999)}, 2 * 20),
        ({"temperature": 1.0, "top_p": 0.9}, 2 * 1024),
    ],
)
def test_ranks_exchange_candidates_and_never_whole_logits(fields, most):
    ranks = _Weighed()
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 50_000)).astype("f4"))
    requests = [ask(str(i), (1, 2), 1, **fields) for i in range(6)]
    sequences = tuple(Sequence(r, i, [1, 2]) for i, r in enumerate(requests))
    sample(logits, sequences, vocab_start=0, vocab_stop=50_000, collectives=ranks)
    assert ranks.sent
    assert max(ranks.sent) <= most
