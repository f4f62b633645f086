"""Every bundle sent to a group comes back, whatever becomes of the group."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

import pytest

from actors.errors import (
    GroupClosed,
    GroupStartFailed,
    ObjectStoreFull,
    RankDied,
    RequestRefused,
)
from actors.request import Bundle, Reply, Token
from conf.errors import UserError
from jobs import lane as lanes
from jobs.flight import Seat
from jobs.lane import Ended, GroupLane, Landed, Ready


class Pending:
    def __init__(self, bundle, *, is_done=True, error=None) -> None:
        self.bundle_id, self.is_done, self.error, self.blamed = bundle.id, is_done, error, False
        self.tokens: list[Token] = []

    def reply(self):
        return Reply(bundle_id=self.bundle_id, results=())

    def take_tokens(self):
        taken, self.tokens = self.tokens, []
        return taken


class Group:
    """Answers at once, unless a bundle is called slow."""

    def __init__(self) -> None:
        self.pendings: list[Pending] = []
        self.streamed: list[bool] = []
        self.waits: list[float] = []
        self.num_checks = 0
        self.error: Exception | None = None
        self.is_closed = False
        self.errors: dict[str, Exception] = {}

    def submit(self, bundle, *, stream=False):
        if self.is_closed:
            raise GroupClosed(doing="run", cause="it is closed")
        self.streamed.append(stream)
        error = self.errors.get(bundle.id)
        is_done = bundle.id != "slow"
        self.pendings.append(Pending(bundle, is_done=is_done, error=error))
        return self.pendings[-1]

    def wait(self, pendings, timeout_s=None):
        self.waits.append(timeout_s)
        if not any(one.is_done for one in pendings):
            time.sleep(0.002)
        return [one for one in pendings if one.is_done]

    def check(self) -> None:
        self.num_checks += 1
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.is_closed = True


def bundle(name: str) -> Bundle:
    return Bundle(id=name, requests=())


class Scene:
    def __init__(self, start=None, **options) -> None:
        self.group = Group()
        self.events: SimpleQueue = SimpleQueue()
        self.seat = Seat(3, 1, "model", threading.Event())
        self.lane = GroupLane(
            self.seat,
            start_group=start or (lambda seat: self.group),
            report=self.events.put,
            **options,
        )

    def next(self, kind, timeout_s=5.0):
        event = self.events.get(timeout=timeout_s)
        assert isinstance(event, kind), event
        return event


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(lanes, "IDLE_CHECK_S", 0.01)


def test_the_group_is_started_by_the_lanes_own_thread_and_says_so():
    scene = Scene()
    assert scene.next(Ready).lane is scene.lane
    assert scene.lane.name == "group-3"
    scene.lane.close()
    assert scene.next(Ended).error is None
    assert scene.lane.join(5.0)
    assert scene.group.is_closed


def test_answers_come_back_with_what_was_sent_along():
    scene = Scene()
    scene.lane.send(bundle("a"), "first")
    scene.lane.send(bundle("b"), "second")
    scene.next(Ready)
    landed = [scene.next(Landed).flight for _ in range(2)]
    assert [flight.load for flight in landed] == ["first", "second"]
    assert {flight.group_name for flight in landed} == {"group-3"}
    scene.lane.close()


def test_an_open_bundle_does_not_hold_up_the_one_behind_it():
    scene = Scene()
    scene.next(Ready)
    scene.lane.send(bundle("slow"), "slow")
    scene.lane.send(bundle("fast"), "fast")
    assert scene.next(Landed).flight.load == "fast"
    scene.group.pendings[0].is_done = True
    assert scene.next(Landed).flight.load == "slow"
    scene.lane.close()


def test_a_failed_group_is_closed_and_its_bundles_come_back_before_its_end():
    scene = Scene()
    scene.next(Ready)
    died = RankDied(doing="run", cause="killed", rank=1)
    scene.group.errors["b"] = died
    scene.lane.send(bundle("slow"), "slow")
    scene.lane.send(bundle("b"), "b")
    loads = {event.flight.load: event.flight.answer for event in (scene.next(Landed),) * 1}
    loads |= {event.flight.load: event.flight.answer for event in (scene.next(Landed),)}
    assert loads["b"].error is died
    assert loads["slow"].error is died
    assert not loads["slow"].blamed
    with pytest.raises(RankDied):
        loads["slow"].reply()
    assert loads["slow"].is_done
    assert scene.next(Ended).error is died
    assert scene.group.is_closed


def test_a_bundle_sent_to_a_group_that_just_ended_comes_back():
    scene = Scene()
    scene.next(Ready)
    scene.lane.close()
    scene.next(Ended)
    scene.lane.send(bundle("late"), "late")
    flight = scene.next(Landed).flight
    assert isinstance(flight.answer.error, GroupClosed)
    assert not flight.answer.blamed


def test_a_refused_bundle_leaves_the_group_up():
    scene = Scene()
    scene.next(Ready)
    scene.group.errors["bad"] = RequestRefused(doing="run", cause="no such layer")
    scene.lane.send(bundle("bad"), None)
    assert isinstance(scene.next(Landed).flight.answer.error, RequestRefused)
    scene.lane.send(bundle("good"), None)
    assert scene.next(Landed).flight.answer.error is None
    scene.lane.close()


def test_a_rank_that_dies_while_the_group_is_idle_is_seen():
    scene = Scene()
    scene.next(Ready)
    scene.group.error = RankDied(doing="the wait for work", cause="killed")
    assert isinstance(scene.next(Ended).error, RankDied)
    assert scene.group.num_checks >= 1
    assert scene.group.is_closed


@pytest.mark.parametrize(
    "error",
    [
        GroupStartFailed(doing="load", cause="rank 1 died"),
        UserError("model.path=/x has no config.json; give a folder that has one"),
    ],
)
def test_a_start_that_fails_is_told(error):
    def start(seat):
        raise error

    scene = Scene(start)
    assert scene.next(Ended).error is error
    scene.lane.send(bundle("a"), "a")
    assert scene.next(Landed).flight.load == "a"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_our_own_is_told_as_it_is():
    def start(seat):
        raise ZeroDivisionError("a bug")

    scene = Scene(start)
    assert isinstance(scene.next(Ended).error, ZeroDivisionError)
    assert scene.lane.join(5.0)


def test_closing_cancels_a_start():
    def start(seat):
        assert seat.cancelled.wait(5.0)
        raise GroupStartFailed(doing="start", cause="it was cancelled")

    scene = Scene(start)
    scene.lane.close()
    assert isinstance(scene.next(Ended).error, GroupStartFailed)
    assert scene.seat.cancelled.is_set()


def test_closing_does_not_wait_for_bundles():
    scene = Scene()
    scene.next(Ready)
    scene.lane.send(bundle("slow"), "slow")
    scene.lane.close()
    assert isinstance(scene.next(Landed).flight.answer.error, GroupClosed)
    assert scene.next(Ended).error is None


def test_tokens_are_handed_on_while_the_bundle_is_open():
    seen: SimpleQueue = SimpleQueue()
    scene = Scene(on_token=seen.put)
    scene.next(Ready)
    scene.lane.send(bundle("slow"), None)
    while not scene.group.pendings:
        time.sleep(0.001)
    scene.group.pendings[0].tokens = [Token(request_id="r", index=0, token_id=5)]
    assert seen.get(timeout=5.0).token_id == 5
    assert scene.group.streamed == [True]
    scene.lane.close()


def test_bundles_are_not_streamed_unless_somebody_listens():
    scene = Scene()
    scene.lane.send(bundle("a"), None)
    scene.next(Ready)
    scene.next(Landed)
    assert scene.group.streamed == [False]
    scene.lane.close()


def test_waits_are_short_while_the_group_could_take_more():
    scene = Scene(max_in_flight=2)
    scene.next(Ready)
    scene.lane.send(bundle("slow"), None)
    while len(scene.group.waits) < 2:
        time.sleep(0.001)
    assert set(scene.group.waits) == {lanes.BUSY_WAIT_S}
    scene.lane.send(bundle("slow"), None)
    while lanes.FULL_WAIT_S not in scene.group.waits:
        time.sleep(0.001)
    scene.lane.close()


def test_a_bundle_without_room_in_the_object_store_is_to_blame_and_leaves_the_group_up():
    scene = Scene()
    scene.next(Ready)
    full, plain = ObjectStoreFull(doing="take in bundle big", cause="full"), scene.group.submit

    def submit(bundle, *, stream=False):
        if bundle.id == "big":
            raise full
        return plain(bundle, stream=stream)

    scene.group.submit = submit
    scene.lane.send(bundle("big"), "big")
    flight = scene.next(Landed).flight
    assert (flight.answer.error, flight.answer.blamed) == (full, True)
    scene.lane.send(bundle("a"), "a")
    assert scene.next(Landed).flight.answer.error is None
    scene.lane.close()
