"""Rows get their own request's operators: 64 requests in a batch equal 64 single runs of stock."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch

from actors.engine.bank import build_bank, vector_sha256
from actors.engine.batch import build_batch
from actors.engine.scheduler import Scheduler
from actors.engine.sequence import Sequence, Span
from actors.engine.steer import OPERATORS, apply_round, build_plan, fuse_rounds, plan_rows
from actors.request import STEERING_SITES, Bundle, Capture, Steering
from tests import oracle, tiny
from tests.mixed import different_requests, unit_vectors
from tests.tiny import ask


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_moe", "qwen3", "llama", "mistral"])
def test_64_different_requests_in_one_batch_equal_64_single_runs_of_stock_with_hooks(name):
    requests = different_requests(64)
    stock = tiny.stock_of(name)
    vectors = unit_vectors(stock.config.hidden_size)
    reply = tiny.run(tiny.engine(tiny.model_path(name)), requests, vectors)
    changed = 0
    for request, result in zip(requests, reply.results, strict=True):
        assert result.error is None
        length = len(request.token_ids)
        ids = request.token_ids + result.completion_ids
        logits, seen = oracle.forward(stock, ids, request, vectors)
        assert oracle.greedy_continuation(logits, length) == result.completion_ids, request.id
        plain, _ = oracle.forward(stock, ids)
        changed += oracle.greedy_continuation(plain, length) != result.completion_ids
        for reading in result.captures:
            for site, block in reading.values.items():
                for layer in range(3):
                    assert oracle.relative_error(block[layer], seen[site, layer]) <= 1e-4
        for entry, receipt in zip(request.steering, result.receipts, strict=True):
            # The last token's row runs only where a capture reads it.
            run = len(ids) if result.captures else len(ids) - 1
            positions = oracle.steered_positions(entry, length, run)
            assert receipt.num_rows == len(positions), entry
    assert changed > 40  # the steering is strong enough to show


def test_a_receipt_states_what_was_applied():
    vectors = unit_vectors(72)
    prompt = tiny.prompts(2, 20)[1]
    kinds = {"all": 27, "prompt": 20, "response": 7, "from:-1": 8, "from:3": 24, "at:0,25,26": 3}
    entries = tuple(
        Steering(layer=i % 3, vector="v1", coefficient=0.5 + i, positions=p)
        for i, p in enumerate(kinds)
    )
    reads = (Capture(layers=(0,), tokens="all"),)  # so that the last token's row runs too
    request = ask("r", prompt, 7, steering=entries, ignore_eos=True, capture=reads)
    receipts = (
        tiny.run(tiny.engine(tiny.model_path("qwen3")), [request], vectors).results[0].receipts
    )
    digest = hashlib.sha256(vectors["v1"].astype("<f4").tobytes()).hexdigest()
    assert [r.num_rows for r in receipts] == list(kinds.values())
    for entry, receipt in zip(entries, receipts, strict=True):
        assert receipt.vector_sha256 == digest == vector_sha256(vectors["v1"])
        assert (receipt.layer, receipt.site, receipt.operator) == (entry.layer, "resid_post", "add")
        assert (receipt.vector, receipt.coefficient) == ("v1", entry.coefficient)


@pytest.mark.parametrize("operator", ["add", "add_norm_matched", "ablate"])
def test_coefficient_0_is_bit_identical_to_no_steering(operator):
    vectors = unit_vectors(72)
    reads = (Capture(layers=(0, 1, 2), sites=STEERING_SITES, tokens="all"),)
    prompts = tiny.prompts(6, 40)
    entry = Steering(layer=1, vector="v0", coefficient=0.0, operator=operator, site="resid_mid")
    steered = [ask(i, p, 8, steering=(entry,), capture=reads) for i, p in enumerate(prompts)]
    plain = [ask(i, p, 8, capture=reads) for i, p in enumerate(prompts)]
    path = tiny.model_path("deepseek_v3")
    one, two = (tiny.run(tiny.engine(path), r, vectors) for r in (steered, plain))
    for a, b in zip(one.results, two.results, strict=True):
        assert a.completion_ids == b.completion_ids
        for site in STEERING_SITES:
            assert a.captures[0].values[site].tobytes() == b.captures[0].values[site].tobytes()
        assert [r.num_rows for r in a.receipts] == [0]  # nothing was changed


@pytest.mark.parametrize("name", ["llama", "deepseek_v3"])
def test_one_hot_vectors_never_reach_another_request(name, monkeypatch):
    """Request i adds 1000 to coordinate i alone: the captured rows show who got what."""
    preempted = []
    preempt = Scheduler._preempt
    monkeypatch.setattr(
        Scheduler, "_preempt", lambda self, s: (preempted.append(s), preempt(self, s))
    )
    path = tiny.model_path(name)
    width = tiny.stock_of(name).config.hidden_size
    count = 48
    vectors = {f"v{i}": np.eye(width, dtype="f4")[i] for i in range(count)}
    read = Capture(layers=(1,), sites=("attn_out",), tokens="all")
    requests = [
        ask(
            i,
            prompt,
            random.Random(i).choice([2, 12, 20]),
            ignore_eos=True,
            steering=(Steering(layer=1, vector=f"v{i}", coefficient=1e3, site="attn_out"),),
            capture=(read,),
        )
        for i, prompt in enumerate(tiny.prompts(count, 25, seed=2))
    ]
    probe = tiny.engine(path, kv_cache_bytes=1 << 20)
    few_pages = (1 << 20) // probe.info.num_pages * 30
    order = random.Random(3).sample(requests, count)
    for asked, options in (
        (requests, {"kv_cache_bytes": few_pages, "max_batch_tokens": 24}),
        (order, {"max_batch_tokens": 11, "max_batch_requests": 7}),
    ):
        reply = tiny.run(tiny.engine(path, **options), asked, vectors)
        for result in reply.results:
            rows = result.captures[0].values["attn_out"][0]
            mine = int(result.id)
            assert (np.abs(rows).argmax(axis=1) == mine).all()
            assert (np.delete(np.abs(rows), mine, axis=1) < 100).all()
            assert result.receipts[0].num_rows == len(rows)
    assert len(preempted) >= 3


def _bundle(*entries, prompt_length=5):
    vectors = {"a": np.array([3.0, 4.0, 0.0], "f4"), "b": np.array([0.0, 0.0, 2.0], "f4")}
    request = ask("r", range(3, 3 + prompt_length), 4, steering=tuple(entries))
    return Bundle(id="b", requests=(request,), vectors=vectors)


def _changed(entry: Steering, row: list[float]) -> list[float]:
    bundle = _bundle(entry)
    bank = build_bank(bundle, 3, torch.device("cpu"))
    plan = build_plan(bundle, bank, 16)
    sequence = Sequence(bundle.requests[0], 0, list(bundle.requests[0].token_ids), pages=[1, 2])
    batch = build_batch([Span(sequence, 0, 5)], 4, torch.device("cpu"))
    hidden = torch.tensor([row] * 5)
    for found in plan_rows(plan, batch)["resid_post", 0]:
        apply_round(hidden, found, bank)
    return [round(float(x), 5) for x in hidden[0]]


@pytest.mark.parametrize(
    ("operator", "coefficient", "expected"),
    [
        # v = (3, 4, 0), unit (0.6, 0.8, 0), row (1, 2, 2): projection 2.2, norm 3
        ("add", 0.5, [2.5, 4.0, 2.0]),
        ("add_norm_matched", 0.1, [1.9, 3.2, 2.0]),
        ("ablate", 1.0, [1 - 1.32, 2 - 1.76, 2.0]),
        ("ablate", 0.5, [1 - 0.66, 2 - 0.88, 2.0]),
        ("floor", 3.0, [1 + 0.48, 2 + 0.64, 2.0]),
        ("floor", 2.0, [1.0, 2.0, 2.0]),
        ("ceiling", 1.2, [1 - 0.6, 2 - 0.8, 2.0]),
        ("ceiling", 3.0, [1.0, 2.0, 2.0]),
        ("floor", 0.0, [1.0, 2.0, 2.0]),
        ("ceiling", 0.0, [1 - 1.32, 2 - 1.76, 2.0]),
    ],
)
def test_operators_by_hand(operator, coefficient, expected):
    entry = Steering(layer=0, vector="a", coefficient=coefficient, operator=operator)
    assert _changed(entry, [1.0, 2.0, 2.0]) == [round(x, 5) for x in expected]


def test_a_zero_vector_changes_nothing_under_any_operator():
    for operator in OPERATORS:
        bundle = _bundle(Steering(layer=0, vector="a", coefficient=2.0, operator=operator))
        bundle.vectors["a"][:] = 0
        bank = build_bank(bundle, 3, torch.device("cpu"))
        plan = build_plan(bundle, bank, 16)
        sequence = Sequence(bundle.requests[0], 0, [3, 4, 5, 6, 7], pages=[1, 2])
        batch = build_batch([Span(sequence, 0, 5)], 4, torch.device("cpu"))
        hidden = torch.ones(5, 3)
        for found in plan_rows(plan, batch)["resid_post", 0]:
            apply_round(hidden, found, bank)
        assert torch.equal(hidden, torch.ones(5, 3))


def test_a_bank_keeps_slot_0_empty_and_leaves_other_widths_out():
    vectors = {"b": np.ones(3, "f4"), "a": np.full(3, 2, "f4"), "wide": np.ones(7, "f4")}
    bank = build_bank(Bundle(id="x", requests=(), vectors=vectors), 3, torch.device("cpu"))
    assert bank.slot_of == {"a": 1, "b": 2}
    assert bank.vectors_VD.tolist() == [[0, 0, 0], [2, 2, 2], [1, 1, 1]]
    assert torch.allclose(bank.units_VD[1:].norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("width", [3, 4])
def test_a_bank_tells_vectors_apart_by_mark_and_names_them_by_digest(width):
    vectors = {f"v{i}": np.full(width, i / 7, "f4") for i in range(40)}
    banks = [
        build_bank(Bundle(id="x", requests=(), vectors=v), width, torch.device("cpu"))
        for v in (vectors, {**vectors, "v3": np.nextafter(vectors["v3"], np.float32(9))})
    ]
    assert {k for k in vectors if banks[0].marks[k] != banks[1].marks[k]} == {"v3"}
    assert len(set(banks[0].marks.values())) == 40
    for key, vector in vectors.items():
        assert banks[0].sha256(key) == hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()


def test_entries_of_one_place_apply_one_after_the_other():
    add = Steering(layer=0, vector="a", coefficient=1.0)
    ablate = Steering(layer=0, vector="a", coefficient=1.0, operator="ablate")
    for entries, expected in (((add, ablate), 0.0), ((ablate, add), 5.0)):
        bundle = _bundle(*entries)
        bank = build_bank(bundle, 3, torch.device("cpu"))
        plan = build_plan(bundle, bank, 16)
        sequence = Sequence(bundle.requests[0], 0, [3, 4, 5, 6, 7], pages=[1, 2])
        batch = build_batch([Span(sequence, 0, 5)], 4, torch.device("cpu"))
        rounds = plan_rows(plan, batch)["resid_post", 0]
        hidden = torch.ones(5, 3)
        for found in rounds:
            apply_round(hidden, found, bank)
        assert len(rounds) == 2
        along = float(hidden[0] @ torch.tensor([0.6, 0.8, 0.0]))
        assert abs(along - expected) < 1e-5


def test_prefix_keys_differ_exactly_where_steering_reaches_the_prompt_differently():
    def key(*entries, prompt_length=5):
        bundle = _bundle(*entries, prompt_length=prompt_length)
        bank = build_bank(bundle, 3, torch.device("cpu"))
        plan = build_plan(bundle, bank, 16)
        return plan.prefix_key(bundle.requests[0], prompt_length)

    def entry(**changes):
        return Steering(**{"layer": 0, "vector": "a", "coefficient": 1.0, **changes})

    assert key() == (b"", 5)
    assert key(entry(positions="response")) == (b"", 5)
    assert key(entry(coefficient=0.0)) == (b"", 5)
    assert key(entry(positions="from:3"))[1] == 3
    assert key(entry(positions="at:4,2"))[1] == 2
    keys = [
        key(entry()),
        key(entry(coefficient=2.0)),
        key(entry(vector="b")),
        key(entry(layer=1)),
        key(entry(site="mlp_out")),
        key(entry(operator="ablate")),
        key(entry(positions="prompt")),
        key(entry(positions="at:0")),
        key(entry(positions="at:0,1")),
        key(entry(), entry()),
        key(),
    ]
    assert len({k for k, _ in keys}) == len(keys)
    assert key(entry()) == key(entry())


def test_bfloat16_rows_are_steered_in_float32():
    bundle = _bundle(Steering(layer=0, vector="a", coefficient=2**-9))
    bank = build_bank(bundle, 3, torch.device("cpu"))
    plan = build_plan(bundle, bank, 16)
    sequence = Sequence(bundle.requests[0], 0, [3, 4, 5, 6, 7], pages=[1, 2])
    batch = build_batch([Span(sequence, 0, 5)], 4, torch.device("cpu"))
    hidden = torch.ones(5, 3, dtype=torch.bfloat16)
    for found in plan_rows(plan, batch)["resid_post", 0]:
        apply_round(hidden, found, bank)
    # 1 + 3/512 rounds to 1 + 1/128 in bfloat16, 1 + 4/512 is exactly that
    assert hidden[0].tolist() == [1.0078125, 1.0078125, 1.0]


def test_one_round_at_a_place_is_given_by_row_and_two_are_not():
    at = {"vector": "a", "coefficient": 0.5, "positions": "from:2"}
    bundle = _bundle(
        Steering(layer=0, **at),
        Steering(layer=1, vector="b", coefficient=-2.0, operator="ceiling", positions="at:1"),
        Steering(layer=2, **at),
        Steering(layer=2, **at),
        Steering(layer=3, vector="b", coefficient=3.0, positions="from:3"),
    )
    bank = build_bank(bundle, 3, torch.device("cpu"))
    plan = build_plan(bundle, bank, 16)
    sequence = Sequence(bundle.requests[0], 0, [3, 4, 5, 6, 7], pages=[1, 2])
    batch = build_batch([Span(sequence, 1, 5)], 4, torch.device("cpu"))
    rounds = plan_rows(plan, batch)
    fused = fuse_rounds(rounds, bank, batch.num_rows)
    assert set(fused) == {("resid_post", 0), ("resid_post", 1), ("resid_post", 3)}
    vectors, units, slots, kinds, coefficients = fused["resid_post", 0]
    assert vectors is bank.vectors_VD
    assert units is bank.units_VD
    assert slots.tolist() == [0, *[bank.slot_of["a"]] * 3]  # rows 0..3 are positions 1..4
    assert (slots.dtype, kinds.dtype) == (torch.int32, torch.int32)
    assert kinds.tolist() == [0, 0, 0, 0]
    assert coefficients.tolist() == [0.0, 0.5, 0.5, 0.5]
    _, _, slots, kinds, coefficients = fused["resid_post", 1]
    assert slots.tolist() == [bank.slot_of["b"], 0, 0, 0]
    assert kinds.tolist() == [OPERATORS.index("ceiling"), 0, 0, 0]
    assert coefficients.tolist() == [-2.0, 0.0, 0.0, 0.0]
    assert fused["resid_post", 3][2].tolist() == [0, 0, *[bank.slot_of["b"]] * 2]
    assert fused["resid_post", 3][4].tolist() == [0.0, 0.0, 3.0, 3.0]
    assert fuse_rounds({}, bank, 4) == {}
