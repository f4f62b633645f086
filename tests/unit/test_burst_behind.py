"""Bursts that are launched behind one that still runs: what they need is on the device."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from actors.engine import burst as burst_module
from actors.engine import fast_state
from actors.engine.burst import EOS_BURST, Burst
from actors.engine.burst_fill import fill_pages
from actors.engine.engine import Engine
from actors.engine.fast_state import OVERRUN, DecodeState
from actors.engine.history import Arrival, Outbox
from actors.engine.sequence import Sequence
from actors.request import Bundle, Capture, Reply, Request, Sampling, Steering
from tests import tiny
from tests.reference_decoder import ReferenceDecoder


def bundle(engine: Engine, *, count: int, lengths: tuple[int, ...], **sampling: Any) -> Bundle:
    """Requests of which most are steered and pooled, each in its own way."""
    draw, rng = np.random.default_rng(5), random.Random(5)
    width = engine.info.hidden_size
    vectors = {f"v{i}": draw.standard_normal(width).astype(np.float32) for i in range(3)}
    steering = (
        (),
        (Steering(layer=1, vector="v0", coefficient=0.4),),
        (Steering(layer=2, vector="v1", coefficient=0.5, operator="ablate", positions="response"),),
        (Steering(layer=0, vector="v2", coefficient=0.3, operator="add_norm_matched"),),
    )
    capture = (
        (Capture(layers=(0, 2), tokens="all", reduction="mean"),),
        (),
        (Capture(layers=(1,), tokens="response[2:7]", reduction="mean"),),
    )
    made = tuple(
        Request(
            id=f"r{i}",
            token_ids=tuple(rng.randrange(3, 161) for _ in range(rng.randrange(1, 20))),
            sampling=Sampling(
                max_new_tokens=lengths[i % len(lengths)],
                temperature=0.8 * (i % 2),
                seed=i,
                **sampling,
            ),
            steering=steering[i % 4],
            capture=capture[i % 3],
        )
        for i in range(count)
    )
    return Bundle(id="b", requests=made, vectors=vectors)


def with_ends(work: Bundle, reply: Reply) -> Bundle:
    """The same requests, of which most stop at a token that they are known to choose."""
    rng = random.Random(2)
    made = [
        replace(r, sampling=replace(r.sampling, stop_ids=(rng.choice(found.completion_ids),)))
        if i % 5
        else r
        for i, (r, found) in enumerate(zip(work.requests, reply.results, strict=True))
    ]
    return replace(work, requests=tuple(made))


def assert_same(ours: Reply, theirs: Reply) -> None:
    for x, y in zip(ours.results, theirs.results, strict=True):
        assert x.error is None, x.error
        assert x.completion_ids == y.completion_ids
        assert (x.finish_reason, x.receipts) == (y.finish_reason, y.receipts)
        for a, b in zip(x.captures, y.captures, strict=True):
            assert a.positions.tolist() == b.positions.tolist()
            for site, values in a.values.items():
                np.testing.assert_allclose(values, b.values[site], rtol=2e-5, atol=2e-5)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many bursts were launched behind another, and how often rows moved for it."""
    seen = {"behind": 0, "moved": 0}
    behind, keep = Burst._next, burst_module.keep_rows

    def note_next(self: Burst, *args: Any) -> Any:
        flight = behind(self, *args)
        seen["behind"] += flight is not None
        return flight

    def note_keep(*args: Any, **options: Any) -> None:
        seen["moved"] += 1
        keep(*args, **options)

    monkeypatch.setattr(Burst, "_next", note_next)
    monkeypatch.setattr(burst_module, "keep_rows", note_keep)
    return seen


def test_the_next_burst_is_launched_before_the_tokens_of_the_last_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine, count=3, lengths=(90,), ignore_eos=True)
    decoder = engine.fast = ReferenceDecoder(engine)
    wait, launched = Arrival.wait, []

    def note(self: Arrival) -> Any:
        launched.append(decoder.num_steps)
        return wait(self)

    monkeypatch.setattr(Arrival, "wait", note)
    engine.run(work)
    # One token from the prompt, then 89, and a row more for the last token's capture.
    assert launched == [64, 90, 90]


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3", "mistral"])
def test_rows_that_end_in_one_burst_are_gone_from_the_next_but_one(
    name: str, tmp_path: Path, watched: dict[str, int]
) -> None:
    engine = tiny.engine(tiny.save(name, tmp_path))
    work = bundle(engine, count=19, lengths=(40, 31, 7, 22))
    work = with_ends(work, engine.run(work))
    single = engine.run(work)
    assert {r.finish_reason for r in single.results} == {"length", "stop"}
    engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    ours = engine.run(work)  # every graph is there now
    assert_same(ours, single)
    assert ours.num_decode_tokens == single.num_decode_tokens
    assert watched["behind"] > 5
    assert watched["moved"] > 3


def test_all_rows_may_end_while_a_burst_for_them_runs(
    tmp_path: Path, watched: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine(tiny.save("qwen3_moe", tmp_path), max_batch_requests=6)
    work = bundle(engine, count=24, lengths=(30,))
    everyone = engine.run(work)
    made = tuple(
        replace(r, capture=(), sampling=replace(r.sampling, stop_ids=(found.completion_ids[4],)))
        for r, found in zip(work.requests, everyone.results, strict=True)
    )
    work = replace(work, requests=made)
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    wait, read = Arrival.wait, []

    def note(self: Arrival) -> Any:
        tokens = wait(self)
        read.append(len(tokens))
        return tokens

    monkeypatch.setattr(Arrival, "wait", note)
    first, second = engine.run(work), engine.run(work)
    assert_same(first, single)
    assert_same(second, single)  # nothing of the abandoned bursts is left
    assert watched["behind"] > 2
    # Nobody waited for them, at the end of a bundle or before an admission.
    assert decoder.num_steps - sum(read) > 3 * EOS_BURST


def test_pages_for_the_burst_behind_come_from_nobody(
    tmp_path: Path, watched: dict[str, int]
) -> None:
    path = tiny.save("qwen3_moe", tmp_path)
    roomy = tiny.engine(path)
    work = bundle(roomy, count=10, lengths=(14, 40, 25), ignore_eos=True)
    single = roomy.run(work)
    small = tiny.engine(path, kv_cache_bytes=44 * 4 * 2 * 2 * 12 * 3 * 4)
    assert small.info.num_pages == 44
    small.fast = ReferenceDecoder(small)
    assert_same(small.run(work), single)
    assert watched["behind"] > 0


@pytest.mark.parametrize("page_size", [1, 4])
def test_rows_run_on_beyond_their_end_and_the_longest_length(
    page_size: int, tmp_path: Path, watched: dict[str, int]
) -> None:
    engine = tiny.engine(
        tiny.save("mistral", tmp_path), page_size=page_size, max_sequence_tokens=90
    )
    work = bundle(engine, count=6, lengths=(71, 2), ignore_eos=True)
    work = replace(
        work,
        requests=tuple(
            replace(r, token_ids=(r.token_ids * 20)[: 90 - r.sampling.max_new_tokens])
            for r in work.requests
        ),
    )
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    assert watched["behind"] > 0
    # Rows of two tokens were over at once, and idle rows beside them never began.
    assert int(decoder.state.positions.max()) < 90 + burst_module.MAX_BURST * 2


def test_idle_rows_stay_within_the_tables_however_many_bursts_follow(tmp_path: Path) -> None:
    engine = tiny.engine(tiny.save("mistral", tmp_path), max_sequence_tokens=420)
    work = bundle(engine, count=3, lengths=(380,))  # a fourth row is idle
    decoder = engine.fast = ReferenceDecoder(engine)
    engine.run(work)
    assert decoder.num_steps > 100
    assert int(decoder.state.positions[3]) <= EOS_BURST


def behind_on_two_ranks(rank: int, size: int, path: str) -> Any:
    engine = Engine.load(
        tiny.spec(Path(path)), rank=rank, world_size=size, process_group=dist.group.WORLD
    )
    work = bundle(engine, count=19, lengths=(40, 31, 7, 22))
    work = with_ends(work, engine.run(work))
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    return single, engine.run(work), decoder.prepared, decoder.num_steps


def test_two_ranks_launch_the_same_bursts(tmp_path: Path) -> None:
    path = tiny.save("deepseek_v3", tmp_path)
    found = tiny.run_ranks(2, behind_on_two_ranks, str(path))
    assert found[0][2:] == found[1][2:]
    assert_same(found[0][1], found[0][0])


def test_a_context_that_outgrows_its_graph_gets_another(
    tmp_path: Path, watched: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_state, "REACHES", (16, 60))
    engine = tiny.engine(tiny.save("mistral", tmp_path))
    work = bundle(engine, count=4, lengths=(100,), ignore_eos=True)
    single = engine.run(work)
    decoder = engine.fast = ReferenceDecoder(engine)
    assert_same(engine.run(work), single)
    assert_same(engine.run(work), single)
    assert {features.reach for _, features in decoder.prepared} >= {1, 2}
    assert watched["behind"] > 0


def test_pages_beyond_a_rows_own_are_those_that_nobody_reads() -> None:
    state = DecodeState(
        num_layers=1, max_rows=4, max_pages=OVERRUN + 9, width=2, device=torch.device("cpu")
    )
    state.pages.fill_(7)  # of sequences that were longer
    rows = [Sequence(tiny.ask(i, [8], 4), i, [8], pages=own) for i, own in enumerate(([3, 4], [5]))]
    fill_pages(state, rows, 3)
    assert state.pages[0].tolist() == [3, 4, *[0] * (OVERRUN + 1), *[7] * 6]
    assert state.pages[1].tolist() == [5, 0, *[0] * (OVERRUN + 1), *[7] * 6]
    assert not state.pages[2, : OVERRUN + 3].any()


def test_tokens_stay_until_the_burst_after_next() -> None:
    history = torch.arange(12, dtype=torch.int32).view(3, 4)
    outbox = Outbox(history)
    first = outbox.send(2, 3)
    history += 100
    second = outbox.send(3, 4)
    history += 100
    assert first.wait().tolist() == [[0, 1, 2], [4, 5, 6]]
    kept = second.wait()
    outbox.send(3, 4)
    outbox.send(3, 4)
    assert kept.tolist() == (np.arange(12).reshape(3, 4) + 100).tolist()


def test_rows_that_stay_keep_everything_that_the_device_knows_of_them() -> None:
    state = DecodeState(num_layers=2, max_rows=6, max_pages=5, width=3, device=torch.device("cpu"))
    by_row = ("tokens", "positions", "keys", "temperatures", "eos", "left", "live", "row_slots",
              "read_first", "read_stop")  # fmt: skip
    by_layer = ("steer_slots", "steer_kinds", "steer_coefficients")
    for place, name in enumerate((*by_row, *by_layer)):
        tensor = getattr(state, name)
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) + 1 + place)
    before = {name: getattr(state, name).clone() for name in (*by_row, *by_layer)}
    burst_module.keep_rows(state, [1, 4, 5], 4, steers=True)
    for name in by_row:
        now = getattr(state, name)
        assert torch.equal(now[:3], before[name][[1, 4, 5]]), name
        assert not now[3].any(), name
    for name in by_layer:
        now = getattr(state, name)
        assert torch.equal(now[:, :3], before[name][:, [1, 4, 5]]), name
        assert not now[:, 3].any(), name
    # Every buffer with one entry per row is moved, or written anew for each burst.
    rowwise = {n for n, t in vars(state).items() if torch.is_tensor(t) and 6 in t.shape[:2]}
    assert rowwise == {*by_row, *by_layer, "pages", "history", "totals"}
