"""A task is done only when committed; failures cost what the table says and no more."""

from __future__ import annotations

import concurrent.futures as futures
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace

import pyarrow as pa
import pytest

from actors.errors import GroupStartFailed, RankDied, RequestRefused, ResourcesMissing
from actors.request import Reply, Request, Result
from conf.stages import ScheduleConfig
from jobs.asks import GroupAsks
from jobs.attempts import AttemptLog
from jobs.autoscale import ScaleLimits
from jobs.failure import TaskFailed
from jobs.fleet import Fleet
from jobs.lane import ClusterFailed
from jobs.plan import Plan
from jobs.scheduler import Scheduler, State
from jobs.task import Task
from jobs.work import MAIN, Ask, CpuWork, GroupWork


def task(name: str, kind: str = "ask") -> Task:
    return Task(name, kind, name, {"name": name})


@dataclass(frozen=True)
class Asks(GroupWork):
    size: int = 1

    @property
    def num_requests(self) -> int:
        return self.size

    def ask(self, context):
        ids = [f"{self.task.id}:{i}" for i in range(self.size)]
        return Ask(tuple(Request(id=one, token_ids=(1,)) for one in ids), {})

    def answer(self, context, results):
        assert [r.id for r in results] == [f"{self.task.id}:{i}" for i in range(self.size)]
        return {"answers": pa.table({"id": [r.id for r in results]})}


@dataclass(frozen=True)
class Computes(CpuWork):
    fail: tuple[BaseException, ...] = ()

    def compute(self, context):
        tried = context.tried.setdefault(self.task.id, [])
        tried.append(1)
        if len(tried) <= len(self.fail):
            raise self.fail[len(tried) - 1]
        return {}


class Ledger:
    """A context that only remembers what was committed, in order."""

    def __init__(self) -> None:
        self.committed: list[str] = []
        self.tried: dict[str, list[int]] = {}
        self.lock = threading.Lock()

    def commit(self, task, tables) -> None:
        with self.lock:
            self.committed.append(task.id)


class Group:
    def __init__(self, number: int, sent: list[tuple[int, str]], fail) -> None:
        self.number, self.sent, self.fail = number, sent, fail
        self.dead = None
        self.closed = False

    def submit(self, bundle):
        self.sent.append((self.number, bundle.id))
        error = self.dead or self.fail(bundle)
        blamed = error is not None and self.dead is None
        if not isinstance(error, RequestRefused):
            self.dead = error
        return Pending(bundle, error, blamed)

    def wait(self, pendings, timeout_s=None):
        return pendings

    def check(self):
        pass

    def close(self):
        self.closed = True


class Pending:
    is_done = True

    def __init__(self, bundle, error, blamed) -> None:
        self.bundle_id, self.bundle, self.error, self.blamed = bundle.id, bundle, error, blamed

    def reply(self):
        results = [
            Result(id=r.id, prompt_ids=(1,), completion_ids=(2, 3), finish_reason="length")
            for r in self.bundle.requests
        ]
        return Reply(bundle_id=self.bundle_id, results=tuple(results))


class Silent:
    def update(self, **_) -> None:
        pass


def died(bundle_id: str = "") -> RankDied:
    return RankDied(doing=f"run {bundle_id}", cause="killed", rank=1)


class Harness:
    def __init__(
        self, works, *, fail=lambda bundle: None, start=None, done=(), max_requests=4, groups=1
    ):
        self.plan = Plan()
        self.plan.add(works)
        self.plan.form_bundles(max_requests)
        self.ledger = Ledger()
        self.sent: list[tuple[int, str]] = []
        self.groups: list[Group] = []
        self.attempts = AttemptLog("test")
        self.asks = GroupAsks()
        self.group_class = Group

        def begin(seat) -> Group:
            if start is not None:
                start(seat.number)
            self.groups.append(self.group_class(seat.number, self.sent, fail))
            return self.groups[-1]

        self.scheduler = Scheduler(
            plan=self.plan,
            contexts={MAIN: self.ledger},
            fleet=Fleet(begin, self.attempts, ScaleLimits(least=groups, most=groups)),
            settings=ScheduleConfig(),
            attempts=self.attempts,
            progress=Silent(),
            asks=self.asks,
        )
        self.done = set(done)

    def run(self) -> Harness:
        self.scheduler.run(self.done)
        return self

    def states(self) -> dict[str, str]:
        return {name: state.value for name, state in self.scheduler.states.items()}


def test_every_task_is_committed_once_and_after_what_it_waits_for():
    works = [
        Asks(task("a")),
        Asks(task("b")),
        Computes(task("fit", "fit"), after=("a", "b")),
        Asks(task("c", "later"), after=("fit",)),
    ]
    harness = Harness(works).run()

    assert sorted(harness.ledger.committed) == ["a", "b", "c", "fit"]
    assert harness.ledger.committed[-2:] == ["fit", "c"]
    assert set(harness.states().values()) == {"done"}


def test_one_group_serves_all_bundles_and_is_closed_at_the_end():
    works = [Asks(task(f"t{i}"), size=2) for i in range(6)]
    harness = Harness(works).run()

    assert harness.sent == [(1, "ask-b0000"), (1, "ask-b0001"), (1, "ask-b0002")]
    assert [group.closed for group in harness.groups] == [True]
    assert harness.scheduler.num_tokens == 12 * 3


def test_no_group_is_started_when_only_cpu_work_is_left():
    works = [Asks(task("a")), Computes(task("fit", "fit"), after=("a",))]
    harness = Harness(works, done=["a"]).run()

    assert harness.groups == []
    assert harness.ledger.committed == ["fit"]


def test_a_bundle_with_one_unfinished_task_runs_whole_and_commits_only_that_one():
    works = [Asks(task("a")), Asks(task("b")), Asks(task("c"))]
    harness = Harness(works, done=["a", "c"]).run()

    assert harness.sent == [(1, "ask-b0000")]
    assert harness.ledger.committed == ["b"]


def test_after_a_dead_rank_a_new_group_repeats_only_what_was_not_answered():
    killed = []

    def fail(bundle):
        if bundle.id == "ask-b0001" and not killed:
            killed.append(bundle.id)
            return died()
        return None

    works = [Asks(task(f"t{i}"), size=4) for i in range(3)]
    harness = Harness(works, fail=fail).run()

    assert sorted(harness.ledger.committed) == ["t0", "t1", "t2"]
    assert harness.sent.count((1, "ask-b0000")) == 1
    assert [entry for entry in harness.sent if entry[1] == "ask-b0000"] == [(1, "ask-b0000")]
    assert [group.number for group in harness.groups] == [1, 2]
    assert all(group.closed for group in harness.groups)


def test_a_bundle_that_only_waited_behind_the_failure_keeps_a_clean_record():
    first = []

    def fail(bundle):
        if not first:
            first.append(bundle.id)
            return died()
        return None

    harness = Harness([Asks(task(f"t{i}"), size=4) for i in range(2)], fail=fail).run()

    rows = [(r["of_task_id"], r["attempt"], r["outcome"]) for r in harness.attempts.rows]
    assert ("ask-b0000", 1, "retry") in rows
    assert ("ask-b0001", 0, "retry") in rows


def test_a_poison_task_costs_three_groups_in_any_bundle_while_its_neighbours_finish():
    def fail(bundle):
        poisoned = any(request.id.startswith("poison") for request in bundle.requests)
        return died(bundle.id) if poisoned else None

    names = [f"t{i:02d}" for i in range(20)]
    works = [Asks(task(name)) for name in (*names[:13], "poison", *names[13:])]
    works.append(Computes(task("needs", "fit"), after=("poison",)))
    harness = Harness(works, fail=fail, max_requests=256).run()

    states = harness.states()
    assert (states.pop("poison"), states.pop("needs")) == ("failed", "blocked")
    assert states == dict.fromkeys(names, "done")
    assert "poison" in harness.scheduler.errors["poison"]
    # Two for the whole bundle, and one for the task alone; the last answers its neighbours.
    assert [bundle for _, bundle in harness.sent if bundle == "ask-b0000"] == ["ask-b0000"] * 2
    assert len(harness.groups) == 4


def test_a_refused_bundle_keeps_its_group():
    def fail(bundle):
        bad = [r.id for r in bundle.requests if r.id.startswith("bad")]
        return RequestRefused(doing="run", cause="no such layer") if bad else None

    harness = Harness([Asks(task("good")), Asks(task("bad"))], fail=fail).run()

    assert harness.states() == {"good": "done", "bad": "failed"}
    assert len(harness.groups) == 1


def test_a_group_that_does_not_start_is_tried_three_times_and_then_stops_the_run():
    tried = []

    def start(number):
        tried.append(number)
        raise GroupStartFailed(doing="load", cause="rank 1 died", rank=1)

    with pytest.raises(ClusterFailed, match="rank 1"):
        Harness([Asks(task("a"))], start=start).run()
    assert tried == [1, 2, 3]


def test_missing_resources_stop_at_once():
    tried = []

    def start(number):
        tried.append(number)
        raise ResourcesMissing(doing="reserve", cause="asks 8 GPUs, the largest node has 4")

    with pytest.raises(ClusterFailed, match="8 GPUs"):
        Harness([Asks(task("a"))], start=start).run()
    assert tried == [1]


def test_a_lost_connection_is_tried_again_and_then_given_up():
    lost = ConnectionError("no route")
    works = [
        Computes(task("once", "judging"), fail=(lost,)),
        Computes(task("always", "judging"), fail=(lost,) * 9),
    ]
    harness = Harness(works).run()

    assert harness.states() == {"once": "done", "always": "failed"}
    assert len(harness.ledger.tried["always"]) == 3


def test_a_task_without_an_answer_in_its_data_is_not_tried_again():
    works = [
        Computes(task("fit", "fit"), fail=(TaskFailed("too few responses"),)),
        Computes(task("report", "fit"), after=("fit",)),
    ]
    harness = Harness(works).run()

    assert harness.states() == {"fit": "failed", "report": "blocked"}
    assert harness.scheduler.errors == {"fit": "fit: too few responses"}
    assert len(harness.ledger.tried["fit"]) == 1


def test_a_failed_request_fails_its_task_by_name_and_no_other(monkeypatch):
    from actors.request import RequestError

    works = [Asks(task("a")), Asks(task("b"))]
    harness = Harness(works)
    plain = Pending.reply

    def reply(self):
        found = plain(self)
        broken = Result(
            id="b:0",
            prompt_ids=(1,),
            completion_ids=(),
            finish_reason="error",
            error=RequestError(type="non_finite", message="layer 2 has 3 values"),
        )
        return Reply(bundle_id=found.bundle_id, results=(found.results[0], broken))

    monkeypatch.setattr(Pending, "reply", reply)
    harness.run()

    assert harness.states() == {"a": "done", "b": "failed"}
    assert "non_finite" in harness.scheduler.errors["b"]


def test_a_judge_in_a_thread_gets_its_answer_from_the_group_of_the_run():
    from actors.request import Bundle

    asks = []

    @dataclass(frozen=True)
    class Judges(CpuWork):
        lane = "judge"

        def compute(self, context):
            request = Request(id="q", token_ids=(1,))
            asks.append(context.asks.ask(Bundle(id="judge-1", requests=(request,))))
            return {}

    harness = Harness([Judges(task("judge", "judging"))])
    harness.ledger.asks = harness.asks
    harness.run()

    assert harness.sent == [(1, "judge-1")]
    assert asks[0].results[0].completion_ids == (2, 3)


def test_counts_by_state_are_told_when_they_change():
    told = []
    harness = Harness([Asks(task("a")), Asks(task("b", "later"), after=("a",))])
    harness.scheduler.on_counts = told.append
    harness.run()

    assert told[-1] == {"done": 2}
    assert all(sum(counts.values()) == 2 for counts in told)
    assert all(one != two for one, two in itertools.pairwise(told))


def test_states_start_pending_and_an_interrupt_closes_the_group():
    class Interrupting(Silent):
        def update(self, **_):
            raise KeyboardInterrupt

    harness = Harness([Asks(task("a")), Asks(task("b", "later"), after=("a",))])
    harness.scheduler.progress = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        harness.run()

    assert harness.groups[0].closed
    assert harness.scheduler.states["b"] is State.PENDING


class Slow(Group):
    """Answers only when told, so that other groups get their share."""

    def wait(self, pendings, timeout_s=None):
        time.sleep(0.002)
        return pendings


def test_three_groups_share_one_plan_and_every_task_is_committed_once():
    works = [Asks(task(f"t{i}"), size=4) for i in range(60)]
    harness = Harness(works, groups=3)
    harness.group_class = Slow
    harness.run()

    assert sorted(harness.ledger.committed) == sorted(work.task.id for work in works)
    assert {number for number, _ in harness.sent} == {1, 2, 3}
    assert len(harness.sent) == 60
    assert harness.scheduler.fleet.most_at_once == 3


def test_a_task_that_failed_on_one_group_is_retried_on_another_while_the_rest_work_on():
    failed = []

    def fail(bundle):
        if bundle.id == "ask-b0003" and not failed:
            failed.append(bundle.id)
            return died(bundle.id)
        return None

    works = [Asks(task(f"t{i}"), size=4) for i in range(40)]
    harness = Harness(works, fail=fail, groups=3)
    harness.group_class = Slow
    harness.run()

    first, second = [number for number, name in harness.sent if name == "ask-b0003"]
    assert first != second
    assert len(harness.ledger.committed) == 40
    assert set(harness.states().values()) == {"done"}
    others = {number for number, _ in harness.sent} - {first}
    assert len(others) >= 2


def test_a_poison_task_costs_two_groups_for_its_bundle_and_is_skipped():
    """Alone in its bundle it is given up after exactly two groups, whichever they were."""

    def fail(bundle):
        return died(bundle.id) if bundle.id == "ask-b0005" else None

    works = [Asks(task(f"t{i}"), size=4) for i in range(20)]
    harness = Harness(works, fail=fail, groups=3).run()

    killers = [number for number, name in harness.sent if name == "ask-b0005"]
    assert len(set(killers)) >= 2
    rows = [r for r in harness.attempts.rows if r["of_task_id"] == "ask-b0005" and r["attempt"]]
    assert [(row["attempt"], row["outcome"]) for row in rows] == [(1, "retry"), (2, "skip")]
    assert harness.states() == {f"t{i}": "failed" if i == 5 else "done" for i in range(20)}


def test_a_long_queue_brings_up_more_groups_than_were_asked_for():
    works = [Asks(task(f"t{i}"), size=4) for i in range(60)]
    harness = Harness(works, groups=1)
    harness.group_class = Slow
    harness.scheduler.fleet.limits = ScaleLimits(least=1, most=3, bundles_per_group=8)
    harness.run()

    assert harness.scheduler.fleet.most_at_once == 3
    assert len(harness.ledger.committed) == 60


def test_two_models_take_turns_and_each_task_goes_to_its_own():
    works = [
        replace(Asks(task("r1", "read"), size=4), role="extract_model"),
        replace(Asks(task("r2", "read"), size=4), role="extract_model"),
        replace(Computes(task("fit", "fit"), after=("r1", "r2")), role="extract_model"),
        Asks(task("base", "plain"), size=4),
        Asks(task("steered", "steer"), after=("fit",), size=4),
    ]
    harness = Harness(works)
    harness.scheduler.contexts = {MAIN: harness.ledger, "extract_model": harness.ledger}
    harness.run()

    asked = {}
    for number, name in harness.sent:
        asked.setdefault(number, set()).add(name.split("-")[0])
    assert asked == {1: {"read"}, 2: {"plain", "steer"}}
    assert harness.scheduler.fleet.most_at_once == 1
    assert set(harness.states().values()) == {"done"}


def test_a_judge_that_is_the_runs_model_gets_it_while_the_other_model_held_the_only_place():
    from actors.request import Bundle

    @dataclass(frozen=True)
    class Judges(CpuWork):
        lane = "judge"

        def compute(self, context):
            request = Request(id="q", token_ids=(1,))
            context.asks.ask(Bundle(id="judge-1", requests=(request,)))
            return {}

    works = [
        replace(Asks(task("r1", "read")), role="extract_model"),
        replace(Judges(task("vet", "vetting"), after=("r1",)), role="extract_model"),
        replace(Asks(task("r2", "reread"), after=("vet",)), role="extract_model"),
    ]
    harness = Harness(works)
    harness.scheduler.contexts = {MAIN: harness.ledger, "extract_model": harness.ledger}
    harness.ledger.asks = harness.asks
    harness.run()

    assert harness.sent == [(1, "read-b0000"), (2, "judge-1"), (3, "reread-b0001")]
    assert harness.scheduler.fleet.most_at_once == 1


def test_a_judge_whose_group_never_comes_back_is_told_at_the_end():
    from actors.errors import GroupClosed
    from actors.request import Bundle

    seen = []

    @dataclass(frozen=True)
    class Judges(CpuWork):
        lane = "judge"

        def compute(self, context):
            request = Request(id="q", token_ids=(1,))
            try:
                context.asks.ask(Bundle(id="judge-1", requests=(request,)))
            except GroupClosed as error:
                seen.append(error)
                raise
            return {}

    class Hanging(Group):
        def submit(self, bundle):
            pending = super().submit(bundle)
            pending.is_done = False
            return pending

        def wait(self, pendings, timeout_s=None):
            time.sleep(0.01)
            return []

    class Interrupting(Silent):
        def update(self, **_):
            if harness.sent:
                raise KeyboardInterrupt

    harness = Harness([Judges(task("judge", "judging"))])
    harness.group_class = Hanging
    harness.ledger.asks = harness.asks
    harness.scheduler.progress = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        harness.run()
    assert len(seen) == 1


def test_a_group_without_work_waits_for_scores_for_writers_or_for_nobody():
    @dataclass(frozen=True)
    class Judges(Computes):
        lane = "judge"

    scheduler = Harness([Asks(task("a"))]).run().scheduler
    computes, judges = Computes(task("fit", "fit")), Judges(task("judge", "judging"))
    now = time.time()

    def why(*works, unwritten=0):
        scheduler._writing = {futures.Future(): (work, now) for work in works}
        scheduler._open = Counter(getattr(work, "lane", "group") for work in works)
        scheduler._open["group"] += unwritten
        return scheduler._why_idle()

    assert why() == "queue"
    assert why(computes) == why(Asks(task("a"))) == "write"
    assert why(computes, judges) == "judge"
    assert why(computes, judges, unwritten=64) == "write"  # scheduler.max_unwritten


class Holding(Ledger):
    """Commits nothing of group work before it may, and notes how much waited at once."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.waiting = self.most_waiting = 0

    def commit(self, task, tables) -> None:
        with self.lock:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
        assert self.may.wait(10.0)
        with self.lock:
            self.waiting -= 1
        super().commit(task, tables)


def held_harness(num_tasks: int, **settings) -> Harness:
    harness = Harness([Asks(task(f"t{i}"), size=4) for i in range(num_tasks)])
    harness.ledger = Holding()
    harness.scheduler.contexts = {MAIN: harness.ledger}
    harness.scheduler.settings = ScheduleConfig(**settings)
    return harness


def test_the_group_answers_the_next_bundles_while_the_first_is_being_written():
    harness = held_harness(5)
    answered = []

    class Watching(Silent):
        def update(self, **_):
            answered.append(harness.scheduler.fleet.num_answered)
            if answered[-1] == 5 and not harness.ledger.may.is_set():
                assert harness.ledger.committed == []
                harness.ledger.may.set()

    harness.scheduler.progress = Watching()
    harness.run()
    assert max(answered) == 5
    assert len(harness.ledger.committed) == 5


@pytest.mark.parametrize(
    "settings",
    [{"max_unwritten": 3, "cpu_workers": 8}, {"max_unwritten_bytes": 300, "cpu_workers": 8}],
)
def test_a_group_pauses_when_too_much_is_answered_and_not_written(settings, monkeypatch):
    """Three tasks, or three of 100 bytes: beside those, only what was at the group may come."""
    monkeypatch.setattr("jobs.scheduler.captured_bytes", lambda results: 100)
    harness = held_harness(12, **settings)
    seen = []

    class Watching(Silent):
        def update(self, **_):
            seen.append(len(harness.sent))
            if len(seen) > 8 and seen[-1] == seen[-5]:  # nothing more is sent
                harness.ledger.may.set()

    harness.scheduler.progress = Watching()
    monkeypatch.setattr("jobs.scheduler.WAIT_S", 0.02)
    harness.run()
    assert harness.ledger.most_waiting <= 3 + harness.scheduler.fleet.max_in_flight
    assert len(harness.ledger.committed) == 12
