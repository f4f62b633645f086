"""Bundles, blame and turns of a group whose ranks are scripted: no processes, no Ray."""

from __future__ import annotations

import threading
import time

import pytest

from actors import calls
from actors.diagnosis import Outcome
from actors.errors import GroupClosed, RankDied, RankRaised, RanksDiverged, RequestRefused
from actors.group import ModelGroup
from actors.group_spec import GroupSpec, GroupState
from actors.rank_report import RankAnswer
from actors.request import Bundle, EngineSpec, ModelInfo, Reply, Result, Token

INFO = ModelInfo(
    model_type="fake",
    num_layers=1,
    hidden_size=1,
    vocab_size=1,
    num_heads=1,
    num_kv_heads=1,
    max_position=1,
    eos_ids=(),
    dtype="float32",
    model_digest="d",
    num_pages=1,
    page_size=1,
    weight_bytes=1,
)


class ScriptedGang:
    """Two ranks that answer every bundle when told to; a bundle's name decides how."""

    size = 2

    def __init__(self):
        self.nodes = ["n0", "n1"]
        self.sent = []
        self.open = {}
        self.num_ended = 0
        self.deaths = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def send(self, pending):
        bundle, stream = pending.payload, pending.stream
        self.sent.append((pending.sequence, bundle.id, stream, pending.hold_rows))
        refs = {(bundle.id, rank): rank for rank in range(2)}
        tokens = [Token(request_id="r", index=i, token_id=i) for i in range(3)] if stream else []
        for ref in refs:
            self.open[ref] = list(tokens) if ref[1] == 0 else []
        return refs

    def look(self, refs, *, timeout_s):
        if self.deaths:
            return [self.deaths.pop(0)]
        if not self.may_answer.wait(timeout_s):
            return []
        for ref in refs:
            if self.open[ref]:
                return [outcome(ref[1], value=self.open[ref].pop(0))]
            return [self.answer(*ref)]
        time.sleep(min(timeout_s, 0.01))
        return []

    def answer(self, name, rank):
        if name == "refused":
            return outcome(
                rank, "raised", cause="layer 99", cause_type="UserError", is_user_error=True
            )
        if name == "raises":
            return outcome(rank, "raised", cause=f"row {rank}", cause_type="IndexError")
        if name == "dies" and rank == 1:
            return outcome(rank, "died", cause="killed")
        digest = f"d{rank}" if name == "diverges" else "d"
        result = Result(id="r", prompt_ids=(1,), completion_ids=(2,), finish_reason="length")
        reply = Reply(bundle_id=name, results=(result,)) if rank == 0 else None
        return outcome(
            rank,
            value=RankAnswer(rank=rank, digest=digest, reply=reply, engine_s=0.5, idle_s=0.25),
        )

    def statuses(self, *, with_stack=False, timeout_s=2.0):
        return {}

    def rows(self, sequence):
        return [f"rows of {sequence} from {rank}" for rank in range(2)]

    def end(self):
        self.num_ended += 1


def outcome(rank, kind="answered", **fields):
    return Outcome(rank=rank, kind=kind, at_s=time.monotonic(), **fields)


@pytest.fixture
def group(monkeypatch):
    monkeypatch.setattr(calls, "GRACE_S", 0.05)
    group = ModelGroup(
        EngineSpec(model_path="/x", tensor_parallel_size=2), GroupSpec(name="scripted")
    )
    group._gang = ScriptedGang()
    group.state = GroupState.READY
    group.info = INFO
    return group


def bundle(name):
    return Bundle(id=name, requests=())


def test_a_bundle_is_answered_by_rank_0_with_its_times(group):
    pending = group.submit(bundle("b"))
    assert group.wait([pending]) == [pending]
    assert pending.reply().bundle_id == "b"
    assert (pending.engine_s, pending.idle_s) == (0.5, 0.25)


def test_at_most_two_bundles_are_at_the_ranks(group):
    gang = group._gang
    gang.may_answer.clear()
    pendings = [group.submit(bundle(f"b{i}")) for i in range(4)]
    assert [name for _, name, _, _ in gang.sent] == ["b0", "b1"]
    assert [one.is_sent for one in pendings] == [True, True, False, False]
    gang.may_answer.set()
    group.wait([pendings[0]])
    assert [name for _, name, _, _ in gang.sent] == ["b0", "b1", "b2"]
    group.wait([pendings[3]])
    assert [sequence for sequence, _, _, _ in gang.sent] == [1, 2, 3, 4]
    assert all(one.is_done for one in pendings)


def test_waiting_for_nothing_or_for_no_time_returns(group):
    group._gang.may_answer.clear()
    pending = group.submit(bundle("b"))
    assert group.wait([]) == []
    assert group.wait([pending], timeout_s=0) == []


def test_streamed_tokens_come_before_the_end(group):
    tokens = list(group.stream(bundle("s")))
    assert [one.token_id for one in tokens] == [0, 1, 2]
    assert group._gang.sent == [(1, "s", True, False)]


def test_rows_stay_with_the_ranks_until_they_are_taken(group):
    group.run(bundle("first"))
    pending = group.submit(bundle("b"), hold_rows=True)
    group.wait([pending])
    assert group._gang.sent[1] == (2, "b", False, True)
    assert group.rows(pending) == ["rows of 2 from 0", "rows of 2 from 1"]


def test_a_death_ends_every_bundle_and_blames_the_one_that_ran(group):
    names = ("dies", "behind", "further")
    pendings = [group.submit(bundle(name)) for name in names]
    assert group.wait(pendings) == pendings
    assert [one.blamed for one in pendings] == [True, False, False]
    assert all(isinstance(one.error, RankDied) for one in pendings)
    assert pendings[0].error.node == "n1"
    assert group.state is GroupState.FAILED
    assert group._gang.num_ended == 1
    with pytest.raises(GroupClosed, match="it is failed"):
        group.submit(bundle("late"))


def test_different_errors_on_the_ranks_end_the_group(group):
    with pytest.raises(RankRaised, match="rank 0 on node n0 raised IndexError"):
        group.run(bundle("raises"))
    assert group.state is GroupState.FAILED


def test_a_divergence_ends_the_group(group):
    with pytest.raises(RanksDiverged, match="its digest is d1, rank 0 has d0"):
        group.run(bundle("diverges"))
    assert group.state is GroupState.FAILED


def test_a_refusal_ends_its_bundle_alone(group):
    refused, good = group.submit(bundle("refused")), group.submit(bundle("good"))
    group.wait([good])
    assert isinstance(refused.error, RequestRefused)
    assert refused.blamed
    assert good.reply().bundle_id == "good"
    assert group.state is GroupState.READY


def test_a_death_while_idle_is_found_by_a_look(group):
    group.check()
    group._gang.deaths.append(outcome(1, "died", cause="killed"))
    with pytest.raises(RankDied, match="during the wait for work"):
        group.check()
    assert group.state is GroupState.FAILED
    group.check()


def test_closing_tells_open_bundles_and_happens_once(group):
    group._gang.may_answer.clear()
    pending = group.submit(bundle("b"))
    group.close()
    group.close()
    assert group._gang.num_ended == 1
    assert not pending.blamed
    with pytest.raises(GroupClosed, match="cannot run bundle b: it was closed"):
        pending.reply()


def test_leaving_the_block_closes_the_group(group):
    with group as same:
        assert same is group
    assert group.state is GroupState.CLOSED


def test_a_bundle_that_waits_is_not_late_when_its_turn_comes(group):
    gang = group._gang
    gang.may_answer.clear()
    first, second = group.submit(bundle("a")), group.submit(bundle("b"))
    time.sleep(0.05)
    waited = second.watch.waited_s(time.monotonic())
    gang.may_answer.set()
    group.wait([first])
    assert second.watch.waited_s(time.monotonic()) < waited


def test_threads_get_their_own_answers(group):
    answers = {}

    def ask(who):
        answers[who] = [group.run(bundle(f"{who}{i}")).bundle_id for i in range(20)]

    threads = [threading.Thread(target=ask, args=(who,)) for who in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == {who: [f"{who}{i}" for i in range(20)] for who in "abcd"}
    assert [sequence for sequence, *_ in group._gang.sent] == list(range(1, 81))


def test_one_threads_dead_group_is_every_threads_error(group):
    errors = []

    def ask(name):
        try:
            while True:
                group.run(bundle(name))
        except (RankDied, GroupClosed) as error:
            errors.append(type(error))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("good", "fine", "dies")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 3
    assert RankDied in errors


def test_busy_seconds_are_those_with_a_bundle(group):
    group.clock.switch("queue")
    group._gang.may_answer.clear()
    pending = group.submit(bundle("b"))
    assert group.clock.use == "busy"
    group._gang.may_answer.set()
    group.wait([pending])
    assert group.clock.use == "queue"
