"""Groups are started for work, replaced when dead, and given up only when none is left."""

from __future__ import annotations

import threading
import time

import pytest

from actors.errors import GroupStartFailed, RankDied, ResourcesMissing
from actors.idle import GroupClock
from actors.request import Bundle
from conf.errors import UserError
from jobs import fleet as fleets
from jobs.attempts import AttemptLog
from jobs.autoscale import ScaleLimits
from jobs.fleet import Fleet
from jobs.lane import ClusterFailed, LaneState
from tests.unit.test_lane import Group


class Scene:
    """A fleet whose groups are scripted, and what was asked of it."""

    def __init__(self, *, least=1, most=None, fail=None, idle_s=60.0) -> None:
        self.groups: dict[int, Group] = {}
        self.seats = []
        self.hold = threading.Event()
        self.hold.set()
        self.fail = fail or (lambda seat: None)
        self.log = AttemptLog("test")
        limits = ScaleLimits(least=least, most=most or least, idle_s=idle_s)
        self.fleet = Fleet(self.start, self.log, limits)
        self.landed: list[object] = []

    def start(self, seat):
        self.seats.append(seat)
        self.hold.wait(5.0)
        error = self.fail(seat)
        if error is not None:
            raise error
        self.groups[seat.number] = Group()
        return self.groups[seat.number]

    def until(self, condition, waiting=None, timeout_s=5.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "it never happened"
            if waiting is not None:
                self.fleet.adjust(waiting)
            self.landed += self.fleet.wait(0.01)

    def up(self, count, waiting) -> None:
        self.until(lambda: self.num_ready() == count, waiting)

    def num_ready(self) -> int:
        return sum(lane.state is LaneState.READY for lane in self.fleet._lanes)

    def pending(self, number: int):
        """The oldest bundle at a group, once its thread has taken it in."""
        self.until(lambda: bool(self.groups[number].pendings))
        return self.groups[number].pendings[0]

    def send(self, name: str, role="model", waiting=99):
        lane = self.fleet.lane_for(role, waiting)
        assert lane is not None
        bundle = Bundle(id=name, requests=())
        self.fleet.send(lane, bundle, bundle)
        return lane


@pytest.fixture
def scene():
    made = []

    def make(**options) -> Scene:
        made.append(Scene(**options))
        return made[-1]

    yield make
    for one in made:
        one.hold.set()
        one.fleet.close()


def test_nothing_is_started_before_there_is_work(scene):
    one = scene(least=3)
    one.fleet.adjust({"model": 0})
    assert one.fleet.num_up == 0
    assert one.fleet.lane_for("model", 1) is None


def test_three_groups_share_the_work_one_bundle_each_before_a_second(scene):
    one = scene(least=3)
    one.up(3, {"model": 9})
    names = [one.send(f"slow{i}").name for i in range(3)]
    assert sorted(names) == ["group-1", "group-2", "group-3"]
    assert [seat.place for seat in sorted(one.seats)] == [1, 2, 3]
    second = one.send("slow3")
    assert second.num_flying == 2
    for i in range(2):
        one.send(f"slow{i + 4}")
    assert one.fleet.lane_for("model", 99) is None
    assert one.fleet.most_at_once == 3


def test_a_group_at_work_leaves_bundles_for_those_that_are_starting(scene):
    one = scene(least=2)
    one.up(2, {"model": 9})
    one.send("slow")
    one.groups[2].error = RankDied(doing="wait", cause="killed")
    one.hold.clear()
    one.until(lambda: len(one.seats) == 3, {"model": 1})
    assert one.fleet.lane_for("model", 1) is None
    assert one.fleet.lane_for("model", 2) is not None


def test_a_dead_group_is_replaced_in_its_place_while_the_other_works_on(scene):
    one = scene(least=2)
    one.up(2, {"model": 9})
    lanes = {one.send("slow").name, one.send("slow").name}
    assert lanes == {"group-1", "group-2"}
    one.pending(1).error = RankDied(doing="run", cause="killed")
    one.pending(1).is_done = True
    one.until(lambda: 3 in one.groups, {"model": 4})
    assert one.seats[2].place == 1
    assert not one.groups[2].is_closed
    assert one.groups[1].is_closed
    assert [flight.group_name for flight in one.landed] == ["group-1"]
    assert one.fleet.num_flying == 1
    assert one.fleet.num_answered == 0


def test_a_start_that_fails_is_tried_again_and_then_the_run_stops(scene, caplog):
    one = scene(fail=lambda seat: GroupStartFailed(doing="load", cause="rank 0 died"))
    with pytest.raises(ClusterFailed, match="rank 0 died"):
        one.until(lambda: False, {"model": 1})
    assert [(row["error_type"], row["outcome"]) for row in one.log.rows] == [
        ("GroupStartFailed", "retry"),
        ("GroupStartFailed", "retry"),
        ("GroupStartFailed", "stop"),
    ]
    assert "rank 0 died; another one is started" in caplog.text
    assert "did not start: " in caplog.text
    assert "rank 0 died; another one is started" in caplog.text


def test_missing_resources_stop_at_once(scene):
    one = scene(fail=lambda seat: ResourcesMissing(doing="reserve", cause="asks 8 GPUs, has 4"))
    with pytest.raises(ClusterFailed, match="8 GPUs"):
        one.until(lambda: False, {"model": 1})
    assert len(one.seats) == 1


def test_a_second_group_that_cannot_start_is_done_without(scene, caplog):
    def fail(seat):
        return ResourcesMissing(doing="reserve", cause="no GPU is free") if seat.place > 1 else None

    one = scene(least=2, fail=fail)
    one.up(1, {"model": 9})
    one.until(lambda: bool(one.log.rows), {"model": 9})
    for _ in range(5):
        one.fleet.adjust({"model": 9})
    assert len(one.seats) == 2
    assert "going on with 1 group(s)" in caplog.text


def test_a_place_that_was_given_up_is_tried_again_later(scene, monkeypatch):
    monkeypatch.setattr(fleets, "PARK_S", 0.02)
    failures = [ResourcesMissing(doing="reserve", cause="no GPU is free")]

    def fail(seat):
        return failures.pop() if seat.place > 1 and failures else None

    one = scene(least=2, fail=fail)
    one.up(2, {"model": 9})
    assert len(one.seats) == 3


def test_the_last_group_is_replaced_even_while_starts_are_held_back(scene):
    def fail(seat):
        if seat.number == 2:
            return ResourcesMissing(doing="reserve", cause="no GPU is free")
        return None

    one = scene(least=2, fail=fail)
    one.until(lambda: bool(one.log.rows), {"model": 9})
    one.groups[1].error = RankDied(doing="wait", cause="killed")
    one.until(lambda: 3 in one.groups, {"model": 9})


def test_a_mistake_of_the_users_ends_the_run_with_their_sentence(scene):
    one = scene(least=2, fail=lambda seat: UserError("model.path=/x is empty; give another"))
    with pytest.raises(UserError, match="is empty"):
        one.until(lambda: False, {"model": 3})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_our_own_is_not_taken_for_a_dead_group(scene):
    one = scene(fail=lambda seat: ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        one.until(lambda: False, {"model": 1})
    time.sleep(0.05)  # for the thread's own traceback to be out


def test_an_extra_group_ends_when_it_was_idle_for_long(scene):
    one = scene(least=1, most=3, idle_s=0.05)
    one.up(3, {"model": 12})
    one.until(lambda: one.fleet.num_up == 1, {"model": 0})
    assert not one.groups[1].is_closed


def test_with_one_place_the_second_model_waits_until_the_first_is_gone(scene):
    one = scene()
    one.up(1, {"extract_model": 1, "model": 2})
    assert one.seats[0].role == "extract_model"
    one.send("slow", "extract_model")
    for _ in range(3):
        one.fleet.adjust({"extract_model": 0, "model": 2})
    assert len(one.seats) == 1
    one.pending(1).is_done = True
    one.until(lambda: 2 in one.groups, {"extract_model": 0, "model": 2})
    assert one.seats[1].role == "model"
    assert one.groups[1].is_closed


def test_closing_gives_back_what_had_no_answer(scene):
    one = scene()
    one.up(1, {"model": 1})
    one.send("slow")
    assert [load.id for load in one.fleet.close()] == ["slow"]
    assert one.groups[1].is_closed
    assert one.fleet.up_s > 0
    assert one.fleet.close() == []


def test_closing_ends_a_start_that_is_under_way(scene):
    one = scene()
    one.hold.clear()
    one.fleet.adjust({"model": 1})
    one.until(lambda: bool(one.seats))
    threading.Timer(0.05, one.hold.set).start()
    one.fleet.close()
    assert one.seats[0].cancelled.is_set()
    assert one.fleet.num_up == 0


def test_time_without_work_is_booked_to_what_keeps_it_away_and_summed_at_the_end(scene):
    booked = []

    def note_use(label, clock, use):
        booked.append((label, use))
        clock.switch(use)

    one = scene()
    one.fleet.note_use = note_use
    one.fleet.blame("judge")  # nobody is up yet
    one.up(1, {"model": 1})
    lane = one.fleet._lanes[0]
    lane.clock, lane.label, lane.keeps_time = GroupClock("queue"), "toy", False
    one.fleet.blame("judge")
    one.fleet.blame("write")
    lane.clock.switch("busy")
    one.fleet.blame("judge")  # a group at work waits for nobody
    assert booked == [("toy", "judge"), ("toy", "write")]
    one.fleet.close()
    assert {use for use, seconds in one.fleet.uses.items() if seconds} == {
        *("queue", "judge", "write", "busy")
    }


def test_of_a_resident_group_the_run_books_the_time_itself_and_exports_none(scene):
    """Its supervisor exports the group's own time, which other jobs use too."""
    one = scene()
    one.fleet.note_use = lambda *_: pytest.fail("exported")
    one.up(1, {"model": 1})
    lane = one.fleet._lanes[0]
    assert (lane.keeps_time, lane.clock.use) == (True, "queue")
    one.fleet.blame("judge")
    assert lane.clock.use == "judge"
    one.send("a")
    one.fleet.blame("write")  # it is at work
    assert lane.clock.use == "busy"
    one.until(lambda: not lane.num_flying)
    one.fleet.blame("write")
    assert lane.clock.use == "write"
    one.fleet.close()
    assert {use for use, seconds in one.fleet.uses.items() if seconds} == {
        *("queue", "judge", "busy", "write")
    }
