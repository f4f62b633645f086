"""Bursts of decode steps give what single steps give, on one rank and on two."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch.distributed as dist

from actors.engine.bundle_run import BundleRun
from actors.engine.engine import Engine
from actors.engine.fast_state import MAX_RAW_BURST
from actors.engine.sites import StepSites
from actors.request import Bundle, Capture, Reply, Request, Sampling, Steering
from tests import tiny
from tests.reference_decoder import ReferenceDecoder

OPERATORS = ("add", "ablate", "floor", "ceiling", "add_norm_matched")
RAW_LAYERS = ((0, 1, 2), (2,), (1, 0))
RAW_TOKENS = ("all", "response[:]", "response[1:6]", "response[-3:]")
TOKENS = ("response[:4]", "response[:]", "all", "prompt[-1]", "response[2:9]")


def bundle(width: int, *, count: int = 20, new: int = 13) -> Bundle:
    rng, draw = random.Random(3), np.random.default_rng(3)
    vectors = {f"v{i}": draw.standard_normal(width).astype(np.float32) for i in range(4)}
    made = []
    for i in range(count):
        steering: tuple[Steering, ...] = ()
        if i % 3:
            positions = ("all", "response", "from:2")[i % 3]
            steering = (
                Steering(
                    layer=i % 3, vector=f"v{i % 4}", coefficient=0.4,
                    operator=OPERATORS[i % 5], positions=positions,
                ),
            )  # fmt: skip
        pooled = Capture(layers=(0, 2), tokens=TOKENS[i % 5], reduction="mean")
        raw = Capture(layers=RAW_LAYERS[i % 3], tokens=RAW_TOKENS[i % 4])
        capture = ((pooled,), (raw,), (pooled, raw))[i % 3]
        made.append(
            Request(
                id=f"r{i}",
                token_ids=tuple(rng.randrange(3, 161) for _ in range(rng.randrange(1, 30))),
                sampling=Sampling(max_new_tokens=1 + i % new, temperature=0.9 * (i % 2), seed=i),
                steering=steering,
                capture=capture if i % 4 else (),
            )
        )
    return Bundle(id="b", requests=tuple(made), vectors=vectors)


def assert_same(ours: Reply, theirs: Reply) -> None:
    for x, y in zip(ours.results, theirs.results, strict=True):
        assert x.error is None, x.error
        assert (x.id, x.completion_ids, x.finish_reason) == (
            y.id,
            y.completion_ids,
            y.finish_reason,
        )
        assert x.receipts == y.receipts
        for a, b in zip(x.captures, y.captures, strict=True):
            assert a.positions.tolist() == b.positions.tolist()
            for site, values in a.values.items():
                # float32 sums in another order
                np.testing.assert_allclose(values, b.values[site], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3", "mistral"])
def test_bursts_equal_single_steps(name: str, tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save(name, tmp_path))
    work = bundle(engine.info.hidden_size)
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine)
    burst = engine.run(work)
    assert engine.fast.num_steps > 10
    assert_same(burst, single)
    assert burst.num_decode_tokens == single.num_decode_tokens
    assert any(features.keeps for _, features in engine.fast.prepared)


def test_waiting_requests_are_admitted_between_bursts(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("qwen3_moe", tmp_path), max_batch_requests=4)
    work = bundle(engine.info.hidden_size, count=14)
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine, max_rows=4)
    assert_same(engine.run(work), single)


def test_a_cache_too_small_for_a_burst_preempts_and_loses_nothing(tmp_path: Path) -> None:
    path = tiny.save("qwen3_moe", tmp_path)
    roomy = tiny.engine(path)
    work = bundle(roomy.info.hidden_size, count=10)
    single = roomy.run(work)
    small = tiny.engine(path, kv_cache_bytes=44 * 4 * 2 * 2 * 12 * 3 * 4)
    assert small.info.num_pages == 44
    small.fast = ReferenceDecoder(small)
    assert_same(small.run(work), single)


def test_requests_beyond_the_fused_step_take_the_general_one(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("qwen3_moe", tmp_path))
    decoder = engine.fast = ReferenceDecoder(engine)
    options: list[dict[str, Any]] = [
        {"sampling": Sampling(max_new_tokens=4, temperature=1.0, top_k=3)},
        {"num_top_logprobs": 2, "sampling": Sampling(max_new_tokens=4)},
        {"capture": (Capture(layers=(1,), sites=("attn_out",), tokens="response[:]"),)},
        {"capture": (Capture(layers=(1,), tokens="response[-2:]", reduction="mean"),)},
    ]
    for number, option in enumerate(options):
        request = Request(**{"id": str(number), "token_ids": (5, 6, 7), **option})
        reply = engine.run(Bundle(id="b", requests=(request,)))
        assert reply.results[0].error is None
        assert decoder.num_steps == 0, option


@pytest.mark.parametrize(
    "tokens", [("prompt", "response"), ("response", "prompt[-1]"), ("response[:4]", "response[:]")]
)
def test_two_means_of_one_request_each_get_their_own_rows(
    tokens: tuple[str, str], tmp_path: Path
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    captures = tuple(Capture(layers=(0, 1), tokens=t, reduction="mean") for t in tokens)
    sampling = Sampling(max_new_tokens=12, ignore_eos=True)
    asked = tuple(
        Request(id=str(i), token_ids=tuple(range(5 + i, 15)), sampling=sampling, capture=captures)
        for i in range(3)
    )
    work = Bundle(id="b", requests=asked)
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    assert decoder.num_steps > 5


def test_rows_that_wait_for_the_host_are_not_those_the_next_burst_writes(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_batch_requests=1)
    raw = (Capture(layers=(1,), tokens="all"),)
    sampling = Sampling(max_new_tokens=20, ignore_eos=True)
    request = Request(id="r", token_ids=(5, 6, 7), sampling=sampling, capture=raw)
    work = Bundle(id="b", requests=(request,))
    single = engine.run(work)
    engine.fast = ReferenceDecoder(engine, max_rows=1)
    assert_same(engine.run(work), single)


def test_kept_rows_of_a_long_burst_leave_in_several_runs(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine.info.hidden_size, count=8)
    kept = (Capture(layers=(1, 2), tokens="all"), Capture(layers=(0,), tokens="response[3:21]"))
    fixed = tuple(
        replace(
            r,
            sampling=replace(r.sampling, max_new_tokens=20 + i, ignore_eos=True),
            capture=kept[i % 2 :][:1],
        )
        for i, r in enumerate(work.requests)
    )
    work = replace(work, requests=fixed)
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    assert decoder.num_steps > 2 * MAX_RAW_BURST


def test_an_answered_bundle_holds_no_memory_until_the_collector_comes(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    engine.fast = ReferenceDecoder(engine)
    work, seen = bundle(engine.info.hidden_size), []

    def remember(*args: Any, **options: Any) -> BundleRun:
        run = BundleRun(*args, **options)
        seen.append(weakref.ref(run))
        seen.append(weakref.ref(run.capturer))
        return run

    gc.collect()
    gc.disable()
    try:
        with mock.patch("actors.engine.engine.BundleRun", remember):
            reply = engine.run(work)
        assert len(seen) == 2
        assert [ref() for ref in seen] == [None, None]
        rows = next(c for r in reply.results for c in r.captures if c.reduction == "none")
        values = weakref.ref(rows.values["resid_post"])
        del rows, reply
        assert values() is None
    finally:
        gc.enable()


def test_results_are_made_while_others_run(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    pooled = (Capture(layers=(0,), tokens="all", reduction="mean"),)
    made = [
        Request(
            id=str(new),
            token_ids=(5, 6, 7),
            sampling=Sampling(max_new_tokens=new, ignore_eos=True),
            capture=pooled,
        )
        for new in (2, 150)
    ]
    decoder = engine.fast = ReferenceDecoder(engine)
    finished: list[int] = []
    make = BundleRun._finish

    def note(run: BundleRun, sequence: Any) -> None:
        finished.append(decoder.num_steps)
        make(run, sequence)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BundleRun, "_finish", note)
        engine.run(Bundle(id="b", requests=tuple(made)))
    assert finished[0] < finished[1] == decoder.num_steps


def overflow(engine: Engine, layer: int, position: int) -> None:
    """Make one position's row of one layer infinite, in general steps and in bursts."""
    visit = StepSites.visit

    def spoil(sites: StepSites, site: str, number: int, value_ND: Any) -> None:
        if (site, number) == ("resid_post", layer) and len(value_ND) > position:
            value_ND[position] = float("inf")
        visit(sites, site, number, value_ND)

    engine.spoil = spoil  # type: ignore[attr-defined]


def spoiled_on_two_ranks(rank: int, size: int, path: str) -> Any:
    engine = Engine.load(
        tiny.spec(Path(path)), rank=rank, world_size=size, process_group=dist.group.WORLD
    )
    found = []
    for captured in ((0,), (0, 1, 2), (1,)):
        request = Request(
            id="r",
            token_ids=(5, 6, 7, 8),
            sampling=Sampling(max_new_tokens=0),
            capture=(Capture(layers=captured, tokens="all"),),
        )
        overflow(engine, layer=1, position=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StepSites, "visit", engine.spoil)  # type: ignore[attr-defined]
            reply = engine.run(Bundle(id="b", requests=(request,)), share_rows=True)
        found.append(reply.results[0].error)
    return found


def test_ranks_that_share_rows_agree_on_what_is_not_finite(tmp_path: Path) -> None:
    path = tiny.save("mistral", tmp_path)
    for below, through, alone in tiny.run_ranks(2, spoiled_on_two_ranks, str(path)):
        assert below is None, "layer 0 is finite, whatever layer 1 is"
        assert through is not None
        assert "not finite" in through.message
        assert alone is not None, "a rank that keeps none of the layers looks all the same"


def on_two_ranks(rank: int, size: int, path: str) -> Any:
    engine = Engine.load(
        tiny.spec(Path(path)), rank=rank, world_size=size, process_group=dist.group.WORLD
    )
    work = bundle(engine.info.hidden_size)
    single = engine.run(work)
    dealt = engine.run(work, share_rows=True)
    decoder = engine.fast = ReferenceDecoder(engine)
    return single, engine.run(work), decoder.prepared, dealt, engine.run(work, share_rows=True)


def test_two_ranks_build_the_same_graphs_and_agree(tmp_path: Path) -> None:
    path = tiny.save("deepseek_v3", tmp_path)
    found = tiny.run_ranks(2, on_two_ranks, str(path))
    assert found[0][2] == found[1][2]
    assert any(features.captures for _, features in found[0][2])
    assert any(features.keeps for _, features in found[0][2])
    assert_same(found[0][1], found[0][0])
    tokens = [[r.completion_ids for r in answers[1].results] for answers in found]
    assert tokens[0] == tokens[1]
    for dealt in ([answers[3] for answers in found], [answers[4] for answers in found]):
        assert_shares_make(found[0][0], dealt)


def assert_shares_make(whole: Reply, dealt: list[Reply]) -> None:
    """Every layer's raw rows are on exactly one rank, and are those of the undivided answer."""
    seen = set()
    for number, result in enumerate(whole.results):
        for place, reading in enumerate(result.captures):
            if reading.reduction != "none":
                continue
            parts = [reply.results[number].captures[place] for reply in dealt]
            assert all(part.positions.tolist() == reading.positions.tolist() for part in parts)
            held = [part.held for part in parts]
            assert sorted(sum(held, ())) == sorted(reading.layers)
            for part in parts:
                for row, layer in enumerate(part.held):
                    seen.add(layer)
                    want = reading.values["resid_post"][reading.layers.index(layer)]
                    got = part.values["resid_post"][row]
                    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert seen == {0, 1, 2}
