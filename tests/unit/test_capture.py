"""Captured rows are the model's own: selectors and reductions equal plain slicing and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.engine.bank import build_bank
from actors.engine.batch import build_batch
from actors.engine.capture import Capturer
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence, Span
from actors.request import Bundle, Capture, Steering
from tests import oracle, tiny
from tests.tiny import ask

SELECTORS = (
    "prompt[-1]",
    "prompt[:]",
    "prompt[2:7]",
    "prompt[-4:-1]",
    "response[:5]",
    "response[:]",
    "response[0]",
    "response[-1]",
    "response[-3:]",
    "response[2:-2]",
    "response[50:]",
    "all",
    "all[3:9]",
    "all[-4:]",
    "all[:]",
)
PROMPT, NEW = 17, 11


def _slice(text: str, prompt: int, total: int) -> list[int]:
    """What Python itself makes of a selector."""
    frame, _, rest = text.partition("[")
    tokens = list(range(total))
    tokens = {"prompt": tokens[:prompt], "response": tokens[prompt:], "all": tokens}[frame]
    if not rest:
        return tokens
    parts = [int(p) if p else None for p in rest.rstrip("]").split(":")]
    if len(parts) == 1:
        index = parts[0]
        return tokens[index:][:1] if index >= 0 else tokens[index : index + 1 or None]
    return tokens[slice(*parts)]


@pytest.fixture(scope="module")
def sequence_of_stock():
    """(prompt, completion, every place's rows) of one greedy continuation by stock."""
    stock, prompt = tiny.stock_of("deepseek_v3"), tiny.prompts(2, PROMPT)[1]
    ids = oracle.generate(stock, prompt, NEW, min_new_tokens=NEW)
    _, seen = oracle.forward(stock, prompt + ids)
    return prompt, ids, seen


@pytest.mark.parametrize("chunk", [256, 5])
def test_every_selector_and_reduction_equals_slicing_all_rows(sequence_of_stock, chunk):
    prompt, ids, seen = sequence_of_stock
    layers, sites = (2, 0), ("resid_post", "mlp_out")
    bank = {f"b{i}": np.random.default_rng(i).normal(size=72).astype("f4") for i in range(3)}
    captures = [
        Capture(layers=layers, sites=sites, tokens=t, reduction=r, bank=tuple(bank))
        for t in SELECTORS
        for r in ("none", "mean", "sum", "projection")
    ]
    vectors_VD = np.stack(list(bank.values())).astype(np.float64)
    engine = tiny.engine(tiny.model_path("deepseek_v3"), max_batch_tokens=chunk)
    requests = [ask(n, prompt, NEW, ignore_eos=True, capture=(c,)) for n, c in enumerate(captures)]
    reply = tiny.run(engine, requests, bank)
    for capture, result in zip(captures, reply.results, strict=True):
        assert result.completion_ids == ids
        (reading,) = result.captures
        chosen = _slice(capture.tokens, PROMPT, PROMPT + NEW)
        assert reading.positions.tolist() == chosen, capture
        assert reading.positions.dtype == np.int32
        for site in sites:
            rows = np.stack([seen[site, layer][chosen] for layer in layers]).astype(np.float64)
            want = {
                "none": rows,
                "projection": rows @ vectors_VD.T,
                "sum": np.stack((rows.sum(1), (rows**2).sum(1)), axis=1),
                "mean": rows.sum(1) / len(chosen) if chosen else np.full((2, 72), np.nan),
            }[capture.reduction]
            got = reading.values[site]
            assert got.shape == want.shape, capture
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_several_captures_of_one_request_do_not_mix(sequence_of_stock):
    prompt, _, seen = sequence_of_stock
    captures = tuple(Capture(layers=(i % 3,), tokens=t) for i, t in enumerate(SELECTORS))
    again = (captures[0], captures[0])
    engine = tiny.engine(tiny.model_path("deepseek_v3"))
    requests = [ask("many", prompt, NEW, ignore_eos=True, capture=captures + again)]
    for reading in tiny.run(engine, requests).results[0].captures:
        chosen = _slice(reading.tokens, PROMPT, PROMPT + NEW)
        want = seen["resid_post", reading.layers[0]][chosen]
        np.testing.assert_allclose(reading.values["resid_post"][0], want, rtol=1e-4, atol=1e-4)


def test_layers_come_in_the_order_asked_and_twice_if_asked_twice(sequence_of_stock):
    prompt, _, seen = sequence_of_stock
    for reduction in ("none", "sum"):
        read = Capture(
            layers=(2, 0, 2, 1), sites=("attn_out", "attn_out"), tokens="all", reduction=reduction
        )
        engine = tiny.engine(tiny.model_path("deepseek_v3"))
        result = tiny.run(engine, [ask(0, prompt, NEW, ignore_eos=True, capture=(read,))])
        got = result.results[0].captures[0].values["attn_out"]
        assert got.shape[0] == 4
        for number, layer in enumerate((2, 0, 2, 1)):
            want = seen["attn_out", layer]
            want = np.stack((want.sum(0), (want**2).sum(0))) if reduction == "sum" else want
            np.testing.assert_allclose(got[number], want, rtol=1e-4, atol=1e-4)


def test_moments_of_a_class_equal_numpy_over_all_its_rows(monkeypatch):
    preempted = []
    preempt = Scheduler._preempt
    monkeypatch.setattr(
        Scheduler, "_preempt", lambda self, s: (preempted.append(s), preempt(self, s))
    )
    path, prompts = tiny.model_path("llama"), tiny.prompts(14, 25, seed=5)
    requests = []
    for i, prompt in enumerate(prompts):
        moments = Capture(
            layers=(2, 1),
            sites=("resid_post", "mlp_out"),
            tokens="response[:]",
            reduction="moments",
            moments_key=f"class{i % 2}",
        )
        rows = Capture(layers=(1, 2), sites=("resid_post", "mlp_out"), tokens="response[:]")
        requests.append(ask(i, prompt, 25, ignore_eos=True, capture=(moments, rows)))
    pages = (1 << 20) // tiny.engine(path, kv_cache_bytes=1 << 20).info.num_pages * 32
    engine = tiny.engine(path, kv_cache_bytes=pages, max_batch_tokens=32)
    reply = tiny.run(engine, requests)
    assert len(preempted) >= 2  # and nothing is counted twice
    assert [(m.key, m.layer, m.site) for m in reply.moments] == [
        (k, layer, site)
        for k in ("class0", "class1")
        for layer in (1, 2)
        for site in ("mlp_out", "resid_post")
    ]
    for moments in reply.moments:
        mine = reply.results[int(moments.key[-1]) :: 2]
        rows = np.concatenate([r.captures[1].values[moments.site][moments.layer - 1] for r in mine])
        rows = rows.astype(np.float64)
        assert moments.count == len(rows) == 7 * 25
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(moments.m2, rows.var(0) * len(rows), rtol=1e-4, atol=1e-6)
        assert moments.mean.dtype == moments.m2.dtype == np.float64
    for result in reply.results:
        assert result.captures[0].values == {}
        assert len(result.captures[0].positions) == 25


@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "projection", "moments"])
def test_values_that_are_not_finite_fail_their_request_by_name_and_no_other(reduction):
    path, prompts = tiny.model_path("qwen3_moe"), tiny.prompts(8, 20, shortest=4)
    vectors = {"v": np.ones(72, "f4"), "b": np.ones(72, "f4")}
    read = Capture(layers=(1,), tokens="all", reduction=reduction, bank=("b",), moments_key="all")
    broken = (Steering(layer=1, vector="v", coefficient=3e38, positions="from:2"),)
    requests = [
        ask(i, p, 6, ignore_eos=True, capture=(read,), steering=broken * 2 if i in (2, 5) else ())
        for i, p in enumerate(prompts)
    ]
    alone = [r for r in requests if not r.steering]
    got = tiny.run(tiny.engine(path), requests, vectors)
    want = tiny.run(tiny.engine(path), alone, vectors)
    for result in got.results:
        if result.id in ("2", "5"):
            assert result.error.type == "non_finite"
            assert f"request {result.id!r}" in result.error.message
            assert result.finish_reason == "error"
            assert result.captures == ()
            continue
        other = next(r for r in want.results if r.id == result.id)
        assert result.error is None
        assert result.completion_ids == other.completion_ids
        for site, values in result.captures[0].values.items():
            np.testing.assert_allclose(values, other.captures[0].values[site], rtol=1e-4, atol=1e-5)
    for moments in got.moments:
        assert np.isfinite(moments.mean).all()
        assert np.isfinite(moments.m2).all()


@pytest.mark.parametrize("tokens", ["all", "prompt[:-1]", "all[-99:]"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "projection", "moments"])
def test_a_captured_row_that_is_not_finite_is_seen_though_all_logits_are(reduction, tokens):
    """Nothing reads the last layer's row of an earlier token, except the capture."""
    if reduction == "moments" and tokens.startswith("all["):
        tokens = "all[1:]"
    vectors = {"v": np.ones(96, "f4"), "b": np.ones(96, "f4")}
    broken = (Steering(layer=2, vector="v", coefficient=3e38, positions="at:1"),) * 2
    reads = Capture(
        layers=(1, 2), tokens=tokens, reduction=reduction, bank=("b",), moments_key="all"
    )
    prompt = tiny.prompts(2, 20)[1]
    requests = [
        ask("unread", prompt, 6, ignore_eos=True, steering=broken),
        ask("read", prompt, 6, ignore_eos=True, steering=broken, capture=(reads,)),
        ask("fine", prompt, 6, ignore_eos=True, capture=(reads,)),
    ]
    unread, read, fine = tiny.run(tiny.engine(tiny.model_path("llama")), requests, vectors).results
    assert unread.error is fine.error is None
    assert len(read.completion_ids) == 6
    assert read.completion_ids == unread.completion_ids == fine.completion_ids
    assert (read.finish_reason, read.captures, read.error.type) == ("error", (), "non_finite")
    assert "request 'read'" in read.error.message
    assert "captured values are not finite" in read.error.message
    assert read.num_non_finite > 0


def test_a_request_that_ends_early_returns_what_it_has(sequence_of_stock):
    prompt, ids, seen = sequence_of_stock
    captures = tuple(
        Capture(layers=(1,), tokens=t, reduction=r)
        for t in ("response[:5]", "response[-3:]", "response[4:]")
        for r in ("none", "mean")
    )
    engine = tiny.engine(tiny.model_path("deepseek_v3"))
    stop = ids[2]
    last = ids.index(stop) + 1
    request = ask(0, prompt, NEW, ignore_eos=True, stop_ids=(stop,), capture=captures)
    result = tiny.run(engine, [request]).results[0]
    assert result.completion_ids == ids[:last]
    for reading in result.captures:
        chosen = _slice(reading.tokens, PROMPT, PROMPT + last)
        rows = seen["resid_post", 1][chosen]
        if reading.reduction == "mean":
            rows = rows.mean(0) if chosen else np.full(72, np.nan)
        assert reading.positions.tolist() == chosen
        np.testing.assert_allclose(reading.values["resid_post"][0], rows, rtol=1e-4, atol=1e-4)
    assert result.num_non_finite == 0  # a mean of nothing is no broken value


def _capturer(capture: Capture, tokens: int = 6):
    request = ask("r", range(3, 3 + tokens), 4, capture=(capture,))
    bundle = Bundle(id="b", requests=(request,))
    device = torch.device("cpu")
    capturer = Capturer(bundle, build_bank(bundle, 2, device), device)
    return capturer, Sequence(request, 0, list(request.token_ids), pages=[1, 2, 3])


def _step(capturer, sequence, start, stop, values):
    capturer.begin(build_batch([Span(sequence, start, stop)], 4, torch.device("cpu")))
    capturer.visit("resid_post", 0, values)
    capturer.end()
    sequence.num_captured = max(sequence.num_captured, stop)


def test_rows_below_the_watermark_are_not_read_again():
    for reduction, expected in (("sum", [[15.0, 15.0], [55.0, 55.0]]), ("mean", [2.5, 2.5])):
        capturer, sequence = _capturer(Capture(layers=(0,), tokens="all", reduction=reduction))
        values = torch.arange(6.0)[:, None].expand(6, 2)
        _step(capturer, sequence, 0, 4, values[:4])
        _step(capturer, sequence, 0, 6, values)  # preempted: run again from the start
        (result,), bad = capturer.results(sequence)
        assert result.positions.tolist() == [0, 1, 2, 3, 4, 5]
        assert result.values["resid_post"][0].tolist() == expected
        assert bad == 0


def test_bfloat16_rows_are_returned_as_their_bits_and_reduced_in_float32():
    capturer, sequence = _capturer(Capture(layers=(0,), tokens="all[2:4]"))
    values = torch.tensor([[1.0, -2.0]]).expand(6, 2).bfloat16()
    _step(capturer, sequence, 0, 6, values)
    (result,), _ = capturer.results(sequence)
    assert result.dtype == "bfloat16"
    assert result.values["resid_post"].tolist() == [[[0x3F80, 0xC000]] * 2]
    for broken in (float("inf"), float("nan")):
        capturer, sequence = _capturer(Capture(layers=(0,), tokens="all"))
        _step(capturer, sequence, 0, 6, torch.full((6, 2), broken).bfloat16())
        assert capturer.results(sequence)[1] == 12
    capturer, sequence = _capturer(Capture(layers=(0,), tokens="all", reduction="sum"))
    _step(capturer, sequence, 0, 6, torch.full((6, 2), 257.0).bfloat16())
    (result,), _ = capturer.results(sequence)
    assert result.dtype == "float32"
    # bfloat16 holds 256; 6 x 256 and 6 x 256 squared would not fit its 8 bits
    assert result.values["resid_post"].tolist() == [[[1536.0] * 2, [393216.0] * 2]]


def test_only_the_sites_that_somebody_reads_are_wanted():
    capturer, sequence = _capturer(Capture(layers=(0,), sites=("router",), tokens="prompt[-2:]"))
    assert capturer.wants("router_experts")
    assert not capturer.wants("resid_post")
    assert [capturer.may_read(sequence.request, p) for p in range(7)] == [False] * 4 + [
        True,
        True,
        False,
    ]
    other = ask("other", (3, 4), 1)
    assert not capturer.may_read(other, 0)


def test_a_waiting_request_has_no_readings_before_its_turn_and_none_after_its_end():
    capture = Capture(layers=(0, 1), tokens="response[:]", reduction="mean")
    requests = [ask(i, (3, 4, 5), 2, capture=(capture,)) for i in range(300)]
    engine = tiny.engine(tiny.model_path("qwen3"), max_batch_requests=4)
    runs, most, step = [], [], engine._step

    def watched(run):
        step(run)
        runs.append(run)
        most.append(len(run.capturer._readings))

    engine._step = watched
    reply = tiny.run(engine, requests)
    assert all(len(r.captures[0].positions) == 2 for r in reply.results)
    assert max(most) <= 9  # four that run, four that ended in this step, the head of the queue
    assert not runs[-1].capturer._readings
