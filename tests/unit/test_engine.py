"""Tokens and every site equal stock transformers, whatever the batch, the chunks, the pages."""

from __future__ import annotations

import dataclasses
import functools
import random

import numpy as np
import pytest
import torch

from actors.engine.agreement import RanksDisagree
from actors.request import STEERING_SITES, Bundle, Capture, Steering
from tests import mixed, oracle, tiny
from tests.tiny import ask


def _tokens(reply):
    return [r.completion_ids for r in reply.results]


def _all_sites(name: str) -> tuple[Capture, ...]:
    """Captures of all that a family offers, at all tokens."""
    everything = [Capture(layers=(0, 1, 2), sites=STEERING_SITES, tokens="all")]
    if name in tiny.LATENT:
        everything.append(Capture(layers=(0, 1, 2), sites=("mla_latent",), tokens="all"))
    if name in tiny.ROUTED:
        layers = (0, 1, 2) if name == "qwen3_moe" else (1, 2)
        everything.append(Capture(layers=layers, sites=("router",), tokens="all"))
    return tuple(everything)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_greedy_tokens_of_32_prompts_equal_stock_one_by_one(name):
    prompts = tiny.prompts(32, 200)
    engine = tiny.engine(tiny.model_path(name))
    reply = tiny.run(engine, [ask(i, p, 12) for i, p in enumerate(prompts)])
    stock = tiny.stock_of(name)
    for number, (prompt, tokens) in enumerate(zip(prompts, _tokens(reply), strict=True)):
        assert len(tokens) == 12 or tokens[-1] == 2
        assert 2 not in tokens[:-1]
        logits, _ = oracle.forward(stock, prompt + tokens)
        assert oracle.greedy_continuation(logits, len(prompt)) == tokens
        if number % 8 == 1:
            assert oracle.generate(stock, prompt, 12) == tokens
    assert len({t for tokens in _tokens(reply) for t in tokens}) > 50  # no degenerate model


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_site_of_every_layer_equals_stock_hooks_at_every_token(name):
    prompts = tiny.prompts(5, 40, seed=3)
    captures = _all_sites(name)
    # Chunks of 16 rows: prefill in pieces, beside decoding rows of the others.
    engine = tiny.engine(tiny.model_path(name), max_batch_tokens=16)
    reply = tiny.run(engine, [ask(i, p, 9, capture=captures) for i, p in enumerate(prompts)])
    seen: set[str] = set()
    for prompt, result in zip(prompts, reply.results, strict=True):
        ids = prompt + result.completion_ids
        _, want = oracle.forward(tiny.stock_of(name), ids)
        for reading in result.captures:
            assert reading.positions.tolist() == list(range(len(ids)))  # the last token too
            seen |= reading.values.keys()
        error, site, layer, _ = oracle.worst_site(result, want)
        assert error <= 1e-4, (site, layer)
    assert set(STEERING_SITES) <= seen
    assert ("router_experts" in seen) == (name in tiny.ROUTED)
    assert ("mla_latent" in seen) == (name in tiny.LATENT)


def test_expert_weights_stay_beside_their_experts():
    prompt = tiny.prompts(2, 30)[1]
    capture = Capture(layers=(2,), sites=("router",), tokens="all")
    engine = tiny.engine(tiny.model_path("qwen3_moe"))
    result = tiny.run(engine, [ask(0, prompt, 4, capture=(capture,))]).results[0]
    values = result.captures[0].values
    _, want = oracle.forward(tiny.stock_of("qwen3_moe"), prompt + result.completion_ids)
    dense_got, dense_want = np.zeros((34, 6)), np.zeros((34, 6))
    np.put_along_axis(dense_got, values["router_experts"][0], values["router_weights"][0], 1)
    np.put_along_axis(dense_want, want["router_experts", 2], want["router_weights", 2], 1)
    assert values["router_experts"].dtype == np.int32
    assert oracle.relative_error(dense_got, dense_want) <= 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "deepseek_v3",
        # At two ranks, always: test_tp_schedule.py.
        pytest.param("qwen3_moe", marks=pytest.mark.long),
        pytest.param("mistral", marks=pytest.mark.long),
    ],
)
def test_preemption_chunks_order_and_batch_size_change_nothing(name, preempted):
    path = tiny.model_path(name)
    engine = functools.partial(tiny.engine, path, decode=mixed.spell)
    requests, vectors = mixed.requests(tiny.stock_of(name).config.hidden_size)
    want = tiny.run(engine(max_batch_tokens=512), requests, vectors)
    small = engine(kv_cache_bytes=mixed.bytes_for_pages(path, 22), max_batch_tokens=64)
    assert {r.finish_reason for r in want.results} >= {"stop", "length"}
    mixed.assert_same_answers(tiny.run(small, requests, vectors), want)
    assert len(preempted) >= 3
    chunked = engine(max_batch_tokens=7)
    mixed.assert_same_answers(tiny.run(chunked, requests, vectors), want)
    shuffled = random.Random(1).sample(requests, len(requests))
    mixed.assert_same_answers(tiny.run(engine(), shuffled, vectors), want)
    alone = engine(max_batch_requests=1)
    mixed.assert_same_answers(tiny.run(alone, requests, vectors), want)


@pytest.fixture
def preempted():
    """Ids of the requests that gave their pages back, in order."""
    with mixed.preemptions() as found:
        yield found


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_one_prompt_of_10_requests_runs_once_when_only_the_response_is_steered(name):
    path, prompt = tiny.model_path(name), tiny.prompts(2, 43)[1]
    width = tiny.stock_of(name).config.hidden_size
    vectors = {"v": np.random.default_rng(0).normal(size=width).astype("f4")}
    requests = [
        ask(
            i,
            prompt,
            10,
            ignore_eos=True,
            steering=(
                Steering(layer=i % 3, vector="v", coefficient=0.1 * i, positions="response"),
            ),
        )
        for i in range(10)
    ]
    reply = tiny.run(tiny.engine(path), requests, vectors)
    # 43 rows once; ten full pages of four are shared, so nine others run three rows each.
    assert reply.num_prefill_tokens == 43 + 9 * 3
    for request, result in zip(requests, reply.results, strict=True):
        alone = tiny.run(tiny.engine(path), [request], vectors)
        assert alone.num_prefill_tokens == 43
        assert alone.results[0].completion_ids == result.completion_ids
        logits, _ = oracle.forward(
            tiny.stock_of(name), prompt + result.completion_ids, request, vectors
        )
        assert oracle.greedy_continuation(logits, 43) == result.completion_ids
    assert len({r.completion_ids for r in reply.results}) > 3


@pytest.mark.parametrize("positions", ["all", "prompt", "at:0", "at:41", "from:20", "from:-1"])
def test_two_steerings_of_one_prompt_never_share_what_steering_reached(positions):
    path, prompt = tiny.model_path("llama"), tiny.prompts(2, 43)[1]
    rng = np.random.default_rng(1)
    vectors = {k: rng.normal(size=96).astype("f4") for k in ("a", "b")}
    steerings = [
        (),
        (Steering(layer=0, vector="a", coefficient=0.9, positions=positions),),
        (Steering(layer=0, vector="b", coefficient=0.9, positions=positions),),
        (Steering(layer=0, vector="a", coefficient=-0.9, positions=positions),),
        (Steering(layer=0, vector="a", coefficient=0.9, positions=positions),),
    ]
    requests = [ask(i, prompt, 8, ignore_eos=True, steering=s) for i, s in enumerate(steerings)]
    reply = tiny.run(tiny.engine(path), requests, vectors)
    for request, result in zip(requests, reply.results, strict=True):
        logits, _ = oracle.forward(
            tiny.stock_of("llama"), prompt + result.completion_ids, request, vectors
        )
        assert oracle.greedy_continuation(logits, 43) == result.completion_ids, request.id
    # Pages before the first steered position, and all pages of equal steerings, are shared.
    first = {"from:20": 20, "at:41": 40, "from:-1": 40}.get(positions, 0)
    assert reply.num_prefill_tokens == 43 + 3 * (43 - first) + 3


def test_steered_and_unsteered_known_completions_do_not_share_pages():
    """Response steering reaches tokens that are given, not generated: they lie on prompt pages."""
    path, ids = tiny.model_path("qwen3"), tiny.prompts(2, 40)[1]
    vectors = {"v": np.random.default_rng(2).normal(size=72).astype("f4")}
    steering = (Steering(layer=0, vector="v", coefficient=2.0, positions="response"),)
    common = {"num_prompt_tokens": 8, "num_top_logprobs": 5}
    requests = [ask("plain", ids, 1, **common), ask("steered", ids, 1, **common, steering=steering)]
    reply = tiny.run(tiny.engine(path), requests, vectors)
    assert reply.num_prefill_tokens == 40 + 32
    for request, result in zip(requests, reply.results, strict=True):
        logits, _ = oracle.forward(tiny.stock_of("qwen3"), ids, request, vectors)
        want = torch.from_numpy(logits[-1]).log_softmax(-1)
        assert abs(float(want.max()) - float(result.logprobs.top[0, 0])) < 1e-4
    assert reply.results[1].receipts[0].num_rows == 32


def test_a_capture_of_the_prompt_runs_all_its_rows_even_when_pages_could_be_shared():
    path, prompt = tiny.model_path("mistral"), tiny.prompts(2, 40)[1]
    read = Capture(layers=(1,), tokens="prompt[:]")
    reply = tiny.run(tiny.engine(path), [ask("a", prompt, 2), ask("b", prompt, 2, capture=(read,))])
    _, want = oracle.forward(tiny.stock_of("mistral"), prompt)
    got = reply.results[1].captures[0]
    assert got.positions.tolist() == list(range(40))
    assert oracle.relative_error(got.values["resid_post"][0], want["resid_post", 1]) <= 1e-4


def test_known_text_is_read_and_nothing_is_generated():
    path, ids = tiny.model_path("deepseek_v3"), tiny.prompts(2, 50)[1]
    reads = tuple(Capture(layers=(2, 0), tokens=t) for t in ("prompt[:]", "response[:]", "all[-2]"))
    request = ask(0, ids, 0, num_prompt_tokens=30, capture=reads)
    reply = tiny.run(tiny.engine(path, max_batch_tokens=16), [request, ask(1, ids, 0)])
    result = reply.results[0]
    _, want = oracle.forward(tiny.stock_of("deepseek_v3"), ids)
    assert (result.completion_ids, result.finish_reason) == ((), "length")
    spans = [range(30), range(30, 50), range(48, 49)]
    for reading, span in zip(result.captures, spans, strict=True):
        assert reading.positions.tolist() == list(span)
        for number, layer in enumerate((2, 0)):  # in the order asked
            error = oracle.relative_error(
                reading.values["resid_post"][number], want["resid_post", layer][list(span)]
            )
            assert error <= 1e-4
    assert reply.results[1].completion_ids == ()


def test_a_sequence_may_fill_the_whole_cache_and_one_token_more_is_refused():
    path = tiny.model_path("llama")
    engine = tiny.engine(path, kv_cache_bytes=mixed.bytes_for_pages(path, 11))
    capacity = engine.limits.max_tokens
    assert capacity == 40  # page 0 belongs to nobody
    ids = tiny.prompts(2, 40)[1]
    requests = [
        ask("read", ids, 0),
        ask("write", ids[:3], 37, ignore_eos=True),
        ask("late", ids[:39], 1, capture=(Capture(layers=(0,), tokens="all"),)),
        ask("long", ids, 1),
    ]
    reply = tiny.run(engine, requests)
    assert [len(r.completion_ids) for r in reply.results] == [0, 37, 1, 0]
    assert len(reply.results[2].captures[0].positions) == 40
    assert reply.results[3].error.type == "too_long"


def test_a_prompt_far_longer_than_a_batch_is_read_in_chunks():
    path, prompt = tiny.model_path("qwen3_windows"), tiny.prompts(2, 450)[1]
    reply = tiny.run(tiny.engine(path, max_batch_tokens=8), [ask(0, prompt, 6)])
    assert reply.results[0].completion_ids == oracle.generate(
        tiny.stock_of("qwen3_windows"), prompt, 6
    )
    assert reply.num_steps >= 450 // 8


def test_sequences_end_at_eos_stop_ids_stop_strings_and_length():
    path = tiny.model_path("llama")
    prompt = next(p for p in tiny.prompts(20, 30, seed=8) if len(p) > 5)
    free = tiny.run(tiny.engine(path), [ask(0, prompt, 20, ignore_eos=True)]).results[0]
    full = free.completion_ids
    engine = tiny.engine(path, decode=lambda ids: " ".join(f"<{i}>" for i in ids))
    word = f"> <{full[4]}> <{full[5]}"  # crosses tokens
    reply = tiny.run(
        engine,
        [
            ask("length", prompt, 7, ignore_eos=True),
            ask("ids", prompt, 20, stop_ids=(full[3],), ignore_eos=True),
            ask("text", prompt, 20, stop_strings=("never", word), ignore_eos=True),
        ],
    )
    by_id = {r.id: r for r in reply.results}
    assert by_id["length"].completion_ids == full[:7]
    assert by_id["length"].finish_reason == "length"
    assert by_id["ids"].completion_ids == full[: full.index(full[3]) + 1]  # the stop id included
    assert by_id["ids"].finish_reason == "stop"
    assert by_id["text"].completion_ids == full[:6]
    assert by_id["text"].finish_reason == "stop"


def test_end_of_sequence_ends_unless_it_is_ignored():
    path, prompt = tiny.model_path("llama"), tiny.prompts(3, 20, seed=9)[1]
    engine = tiny.engine(path)
    full = tiny.run(engine, [ask(0, prompt, 12, ignore_eos=True)]).results[0].completion_ids
    engine.model.facts = dataclasses.replace(engine.model.facts, eos_ids=(150, full[5]))
    first = full.index(full[5])
    ended, ignored = tiny.run(
        engine, [ask("a", prompt, 12), ask("b", prompt, 12, ignore_eos=True)]
    ).results
    assert (ended.completion_ids, ended.finish_reason) == (full[: first + 1], "eos")
    assert (ignored.completion_ids, ignored.finish_reason) == (full, "length")


def test_tokens_stream_in_the_order_of_each_completion(preempted):
    path = tiny.model_path("mistral")
    engine = tiny.engine(path, kv_cache_bytes=mixed.bytes_for_pages(path, 25))
    streamed: dict[str, list[int]] = {}

    def take(token):
        mine = streamed.setdefault(token.request_id, [])
        assert token.index == len(mine)
        mine.append(token.token_id)

    prompts = tiny.prompts(12, 20, seed=4)
    reply = tiny.run(engine, [ask(i, p, 30) for i, p in enumerate(prompts)], on_token=take)
    assert preempted  # no token is sent twice
    assert streamed == {r.id: list(r.completion_ids) for r in reply.results}


def test_an_engine_answers_after_a_bundle_that_raised():
    engine, prompts = tiny.engine(tiny.model_path("deepseek_v3")), tiny.prompts(6, 40)
    requests = [ask(i, p, 9) for i, p in enumerate(prompts)]
    want = tiny.run(engine, requests)

    def fail(token):
        if token.index == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.run(engine, requests, on_token=fail)
    again = tiny.run(engine, requests)
    assert _tokens(again) == _tokens(want)
    assert again.digest == want.digest


def test_a_digest_names_schedule_and_tokens_and_a_difference_is_an_error(monkeypatch):
    path, prompts = tiny.model_path("qwen3"), tiny.prompts(4, 30)
    requests = [ask(i, p, 5) for i, p in enumerate(prompts)]
    one, two = tiny.run(tiny.engine(path), requests), tiny.run(tiny.engine(path), requests)
    chunked = tiny.run(tiny.engine(path, max_batch_tokens=9), requests)
    assert len(one.digest) == 64
    assert one.digest == two.digest != chunked.digest
    engine = tiny.engine(path)
    monkeypatch.setattr(
        engine.collectives, "all_gather", lambda mine: torch.stack((mine, mine.flip(0)))
    )
    with pytest.raises(RanksDisagree, match=r"ranks \[1\]"):
        tiny.run(engine, requests)


def test_an_empty_bundle_and_a_bundle_of_refused_requests_have_replies():
    engine = tiny.engine(tiny.model_path("qwen3"))
    assert tiny.run(engine, []).results == ()
    reply = tiny.run(engine, [ask("bad", (), 5)])
    assert reply.results[0].finish_reason == "error"
    assert reply.num_steps == 0
    assert set(engine.check(Bundle(id="b", requests=(ask("bad", (), 5),)))) == {"bad"}


def test_model_info_states_the_checkpoint():
    info = tiny.engine(tiny.model_path("qwen3_moe")).info
    assert (info.model_type, info.num_layers, info.hidden_size) == ("qwen3_moe", 3, 72)
    assert (info.vocab_size, info.num_heads, info.num_kv_heads) == (161, 8, 2)
    assert (info.max_position, info.eos_ids, info.dtype) == (512, (2,), "float32")
    # 8 MiB / (2 heads x (12 + 12) values x 3 layers x 4 bytes x 4 tokens)
    assert (info.num_pages, info.page_size) == (8 * 2**20 // (2 * 24 * 3 * 4 * 4), 4)
    stock = tiny.stock_of("qwen3_moe")
    assert info.weight_bytes == sum(p.numel() * 4 for p in stock.parameters())
