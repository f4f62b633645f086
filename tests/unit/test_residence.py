"""A residence answers every ticket. The group is a scripted one; threads are real."""

from __future__ import annotations

import threading
import time

import pytest

from actors.errors import GroupClosed, GroupStartFailed, RankDied, RequestRefused
from actors.request import Bundle, ModelInfo, Reply, Request, Result, Sampling
from actors.residence import Residence, ResidenceSpec
from conf.errors import UserError

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


class Answer:
    def __init__(self, bundle):
        self.bundle = bundle
        self.done_reply = None
        self.error = None
        self.blamed = False

    @property
    def is_done(self):
        return self.done_reply is not None or self.error is not None

    def reply(self):
        return self.done_reply


class ScriptedGroup:
    """Answers at once; a request id that contains ``poison`` kills it, ``refuse`` is refused."""

    def __init__(self, log):
        self.info = INFO
        self.log = log
        self.open = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_closed = False
        self.idle_error = None

    def submit(self, bundle):
        answer = Answer(bundle)
        self.open.append(answer)
        return answer

    def wait(self, pendings, timeout_s=None):
        if not self.gate.wait(timeout_s):
            return []
        if not self.open:
            return []
        head = self.open.pop(0)
        self.log.append(head.bundle.id)
        ids = " ".join(one.id for one in head.bundle.requests)
        if "poison" in ids:
            head.error, head.blamed = RankDied(doing="run", cause="killed", rank=1), True
            for other in self.open:
                other.error = head.error
            self.open = []
        elif "refuse" in ids:
            head.error, head.blamed = RequestRefused(doing="run", cause="layer 99"), True
        else:
            results = tuple(
                Result(id=one.id, prompt_ids=(1,), completion_ids=(2,), finish_reason="length")
                for one in head.bundle.requests
            )
            head.done_reply = Reply(bundle_id=head.bundle.id, results=results)
        return [head]

    def check(self):
        if self.idle_error is not None:
            raise self.idle_error

    def close(self):
        self.is_closed = True
        for one in self.open:
            one.error = GroupClosed(doing="run", cause="closed")
        self.open = []


class Scene:
    """A residence with its thread and the groups it started."""

    def __init__(self, **limits):
        self.log = []
        self.groups = []
        self.start_errors = []
        self.hold = threading.Event()
        self.hold.set()
        self.residence = Residence(self.start, ResidenceSpec(**limits))
        self.thread = threading.Thread(target=self.residence.serve)

    def start(self, generation):
        self.hold.wait(5)
        if self.start_errors:
            raise self.start_errors.pop(0)
        self.groups.append(ScriptedGroup(self.log))
        return self.groups[-1]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.hold.set()
        for group in self.groups:
            group.gate.set()
        self.residence.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()

    def submit(self, job, name, **options):
        return self.residence.submit(job, bundle(name), **options)

    def answer(self, job, *tickets):
        """Outcomes of all tickets."""
        got = {}
        deadline = time.monotonic() + 5
        while len(got) < len(tickets):
            assert time.monotonic() < deadline, f"{set(tickets) - set(got)} have no outcome"
            left = [one for one in tickets if one not in got]
            got.update(self.residence.poll(job, left, timeout_s=1.0))
        return [got[one] for one in tickets]

    def wait_for(self, state):
        deadline = time.monotonic() + 5
        while self.residence.state != state:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def bundle(name):
    request = Request(id=f"{name}-r", token_ids=(1,) * 10, sampling=Sampling(max_new_tokens=0))
    return Bundle(id=name, requests=(request,))


def test_a_ticket_gets_its_own_reply_once():
    with Scene() as scene:
        ticket = scene.submit("a", "b1")
        (outcome,) = scene.answer("a", ticket)
        assert outcome.reply.bundle_id == "b1"
        assert (outcome.error, outcome.blamed) == (None, False)
        assert scene.residence.poll("a", [ticket], timeout_s=0) == {}


def test_jobs_submitted_while_the_group_starts_are_answered():
    scene = Scene()
    scene.hold.clear()
    with scene:
        tickets = [scene.submit("a", f"b{i}") for i in range(3)]
        assert scene.residence.describe()["state"] == "starting"
        scene.hold.set()
        assert [one.reply.bundle_id for one in scene.answer("a", *tickets)] == ["b0", "b1", "b2"]


def test_bundles_of_two_jobs_share_a_batch_and_come_apart():
    scene = Scene()
    scene.hold.clear()
    with scene:
        a, b = scene.submit("a", "x"), scene.submit("b", "y")
        scene.hold.set()
        (first,), (second,) = scene.answer("a", a), scene.answer("b", b)
        assert scene.log == ["x+y"]
        assert [one.id for one in first.reply.results] == ["x-r"]
        assert [one.id for one in second.reply.results] == ["y-r"]


def test_a_dead_group_is_replaced_and_only_the_running_bundle_is_blamed():
    with Scene() as scene:
        scene.wait_for("ready")
        scene.groups[0].gate.clear()
        tickets = [scene.submit("a", name) for name in ("poison", "good1", "good2")]
        scene.groups[0].gate.set()
        bad, good1, good2 = scene.answer("a", *tickets)
        assert isinstance(bad.error, RankDied)
        assert bad.blamed
        assert (good1.reply.bundle_id, good2.reply.bundle_id) == ("good1", "good2")
        assert scene.groups[0].is_closed
        assert scene.residence.describe()["generation"] == 2


def test_of_a_shared_batch_that_kills_only_the_poison_is_blamed():
    scene = Scene()
    scene.hold.clear()
    with scene:
        a, b = scene.submit("a", "poison"), scene.submit("b", "fine")
        scene.hold.set()
        (bad,), (good,) = scene.answer("a", a), scene.answer("b", b)
        assert bad.blamed
        assert good.reply.bundle_id == "fine"
        assert scene.log[0] == "poison+fine"
        assert "poison" in scene.log[1:]
        assert len(scene.groups) == 3


def test_a_refusal_costs_no_group():
    with Scene() as scene:
        bad, good = scene.answer("a", scene.submit("a", "refuse"), scene.submit("a", "good"))
        assert isinstance(bad.error, RequestRefused)
        assert good.reply.bundle_id == "good"
        assert len(scene.groups) == 1


def test_a_group_that_dies_while_idle_is_replaced_before_anyone_asks():
    with Scene() as scene:
        scene.wait_for("ready")
        scene.groups[0].idle_error = RankDied(doing="wait", cause="killed", rank=0)
        (outcome,) = scene.answer("a", scene.submit("a", "b"))
        assert outcome.reply.bundle_id == "b"
        assert len(scene.groups) == 2


def test_one_failed_start_is_tried_again_and_two_end_it():
    with Scene() as scene:
        scene.wait_for("ready")
    scene = Scene()
    scene.start_errors = [GroupStartFailed(doing="load", cause="killed")]
    with scene:
        assert scene.answer("a", scene.submit("a", "b"))[0].reply.bundle_id == "b"
    scene = Scene()
    scene.hold.clear()
    scene.start_errors = [GroupStartFailed(doing="load", cause="killed")] * 2
    with scene:
        ticket = scene.submit("a", "b")
        scene.hold.set()
        (outcome,) = scene.answer("a", ticket)
        assert isinstance(outcome.error, GroupStartFailed)
        assert not outcome.blamed
        with pytest.raises(GroupClosed, match="failed to load"):
            scene.submit("a", "late")


def test_a_users_mistake_is_not_tried_again():
    scene = Scene()
    scene.hold.clear()
    scene.start_errors = [UserError("model.path=/x has no config.json")]
    with scene:
        ticket = scene.submit("a", "b")
        scene.hold.set()
        assert isinstance(scene.answer("a", ticket)[0].error, UserError)
        assert scene.residence.describe()["error"] == "model.path=/x has no config.json"
        assert scene.groups == []


def test_an_unused_group_goes_away_and_starting_is_not_unused():
    scene = Scene(idle_timeout_s=0.3)
    scene.hold.clear()
    with scene:
        time.sleep(0.5)
        assert scene.residence.state == "starting"
        scene.hold.set()
        scene.wait_for("ready")
        scene.wait_for("closed")
        assert scene.groups[0].is_closed
        with pytest.raises(GroupClosed):
            scene.submit("a", "late")


def test_work_keeps_a_group_up():
    with Scene(idle_timeout_s=0.4) as scene:
        for i in range(4):
            time.sleep(0.2)
            assert scene.answer("a", scene.submit("a", f"b{i}"))[0].reply.bundle_id == f"b{i}"
        assert scene.residence.state == "ready"


def test_a_job_that_vanished_is_forgotten():
    with Scene(job_timeout_s=0.3) as scene:
        scene.wait_for("ready")
        ticket = scene.submit("gone", "b")
        scene.answer("here", scene.submit("here", "c"))
        time.sleep(0.8)
        assert "gone" not in scene.residence.describe()["jobs"]
        assert scene.residence.poll("gone", [ticket], timeout_s=0) == {}


def test_a_cancelled_jobs_bundles_do_not_run():
    scene = Scene()
    scene.hold.clear()
    with scene:
        for i in range(3):
            scene.submit("a", f"a{i}")
        keep = scene.submit("b", "keep")
        assert scene.residence.cancel("a") == 3
        scene.hold.set()
        scene.answer("b", keep)
        assert scene.log == ["keep"]


def test_stopping_answers_what_is_open():
    scene = Scene()
    scene.hold.clear()
    with scene:
        ticket = scene.submit("a", "b")
        scene.residence.stop()
        scene.hold.set()
        scene.wait_for("closed")
        assert isinstance(scene.answer("a", ticket)[0].error, GroupClosed)


def test_a_queue_shows_position_priority_and_time():
    scene = Scene(max_in_flight=1)
    with scene:
        scene.answer("a", scene.submit("a", "first"))
        scene.groups[0].gate.clear()
        tickets = [scene.submit("a", f"b{i}") for i in range(3)]
        while not scene.residence.describe()["running"]:
            time.sleep(0.01)
        urgent = scene.submit("c", "urgent", priority=9)
        status = scene.residence.describe()
        assert status["state"] == "ready"
        assert (status["running"][0]["job"], status["running"][0]["bundle"]) == ("a", "b0")
        assert status["running"][0]["for_s"] >= 0
        places = {one["bundle"]: one for one in status["queue"]}
        assert [places[one]["position"] for one in ("urgent", "b1", "b2")] == [0, 1, 2]
        assert places["b2"]["eta_s"] > places["b1"]["eta_s"] > 0
        assert (places["urgent"]["priority"], places["urgent"]["job"]) == (9, "c")
        assert status["idle_s"] == 0.0
        assert status["model"]["model_type"] == "fake"
        scene.groups[0].gate.set()
        scene.answer("a", *tickets)
        scene.answer("c", urgent)
