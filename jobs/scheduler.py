"""Keep every model group busy until the plan is done.

A task is in exactly one state, and this module alone changes it. It becomes DONE only after its
results are committed, so a crash repeats work and never loses it. While the groups answer bundles,
the bundles before are written and judged in threads; sending pauses when too many answered tasks
are unwritten. Nothing here looks through the whole plan twice, however long it is.
"""

from __future__ import annotations

import concurrent.futures as futures
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from actors.errors import GroupClosed, GroupError, RequestRefused
from actors.idle import Use
from actors.request import Bundle, Request, Result
from conf.stages import ScheduleConfig
from jobs.asks import Asked, GroupAsks
from jobs.attempts import AttemptLog
from jobs.bundle_queue import BundleQueue
from jobs.failure import Decision, decide
from jobs.fleet import Fleet
from jobs.flight import Flight
from jobs.lane import ClusterFailed
from jobs.plan import Plan, PlannedBundle
from jobs.progress import Progress
from jobs.rows import captured_bytes
from jobs.states import OPEN, State, TaskStates
from jobs.work import MAIN, Context, CpuWork, GroupWork, Tables, Vectors, Work, check_results

logger = logging.getLogger(__name__)

TELL_EVERY_S = 0.5
"""Counts of tasks are told at most so often."""
WAIT_S = 1.0
"""Longest wait for anything to happen, so that signals are seen."""


@dataclass
class Scheduler:
    """Runs one plan on the groups of one fleet."""

    plan: Plan
    contexts: Mapping[str, Context]
    """For each model of the run, by its role."""
    fleet: Fleet
    settings: ScheduleConfig
    attempts: AttemptLog
    progress: Progress
    asks: GroupAsks = field(default_factory=GroupAsks)
    """What judges in threads want of the group."""
    on_counts: Callable[[Mapping[str, int]], None] | None = None
    """Told how many tasks are in each state, now and then when that changed, and at the end."""
    states: dict[str, State] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Task id -> sentence, for those that failed."""
    num_tokens: int = 0
    computing_s: float = 0.0
    """Seconds in which the ranks computed, as the first rank of each group measured them."""

    def run(self, done: Collection[str]) -> None:
        """Run everything that is not done yet.

        Raises:
            ClusterFailed: The run stopped early; what is committed stays.
            UserError: A group found, while it started, that the request cannot be met.
        """
        self._tasks = TaskStates(self.plan.works, done)
        self.states = self._tasks.by_task
        self._queue = BundleQueue(self.plan.bundles, self._tasks)
        self._cpu_ready = deque(self._tasks.ready(work.task.id for work in self.plan.cpu_works()))
        self._failures: dict[str, int] = {}
        self._writing: dict[futures.Future[None], tuple[Work, float]] = {}
        self._held: dict[str, int] = {}
        self._finished: deque[futures.Future[None]] = deque()
        self._open = Counter[str]()  # threads' work, by the lane of CPU work or "group"
        self._told: Mapping[str, int] = {}
        self._told_s = 0.0
        workers = self.settings.cpu_workers
        self._compute = futures.ThreadPoolExecutor(workers, "compute")
        self._judge = futures.ThreadPoolExecutor(max(workers, 4), "judge")
        self.asks.on_ask = lambda: self.fleet.events.put(None)
        try:
            while self._tasks.num_open:
                self._start_cpu_work()
                self._supply()
                self._collect()
                self._tell()
            self._tell(is_last=True)
        finally:
            self._end()

    def _end(self) -> None:
        """Let go of the groups and of every thread."""
        ended = GroupClosed(doing="judge", cause="the run ended")
        self.asks.cancel(ended)
        for load in self.fleet.close():
            if isinstance(load, Asked):
                load.reply.set_exception(ended)
        for pool in (self._compute, self._judge):
            pool.shutdown(wait=True, cancel_futures=True)

    def _start_cpu_work(self) -> None:
        while self._cpu_ready:
            work = self.plan.works[self._cpu_ready.popleft()]
            if isinstance(work, CpuWork) and self._tasks[work.task.id] is State.PENDING:
                self._tasks.set(work.task.id, State.RUNNING)
                pool = self._judge if work.lane == "judge" else self._compute
                self._write(pool, work, work.compute, self.contexts[work.role])

    def _write(
        self, pool: futures.Executor, work: Work, make: Callable[..., Tables], *arguments: object
    ) -> None:
        """Make a task's tables and commit them, in a thread."""

        def job() -> None:
            self.contexts[work.role].commit(work.task, make(*arguments))

        def wake(future: futures.Future[None]) -> None:
            self._finished.append(future)
            self.fleet.events.put(None)

        self._open[getattr(work, "lane", "group")] += 1
        future = pool.submit(job)
        self._writing[future] = (work, time.time())
        future.add_done_callback(wake)

    def _supply(self) -> None:
        """Keep the groups supplied: judges first, for planned work may wait for their scores."""
        num_asked = len(self.asks)
        waiting = {role: self._queue.num_ready(role) for role in self._queue.roles}
        if num_asked:
            waiting[MAIN] = waiting.get(MAIN, 0) + num_asked
        self.fleet.adjust(waiting)
        while num_asked and (lane := self.fleet.lane_for(MAIN, num_asked)) is not None:
            asked = self.asks.take()
            if asked is None:
                break
            self.fleet.send(lane, asked.bundle, asked)
        for role in self._queue.roles:
            while not self._is_full:
                lane = self.fleet.lane_for(role, self._queue.num_ready(role))
                bundle = None if lane is None else self._queue.pop(role)
                if lane is None or bundle is None:
                    break
                self.fleet.send(lane, self._made(bundle), bundle)
        self.fleet.blame(self._why_idle())
        if not (self.fleet.num_flying or self._writing or any(waiting.values())):
            raise RuntimeError("tasks are pending and nothing can run them")  # a cycle

    def _why_idle(self) -> Use:
        """What a group without work waits for: scores, unwritten results, or nothing of ours."""
        if self._open["judge"] and not self._is_full:
            return "judge"
        return "write" if self._writing else "queue"

    @property
    def _is_full(self) -> bool:
        """Too much is answered and not written: no more is asked for until less is."""
        is_many = self._open["group"] >= self.settings.max_unwritten
        return is_many or sum(self._held.values()) >= self.settings.max_unwritten_bytes

    def _made(self, bundle: PlannedBundle) -> Bundle:
        """What the group is asked; the tasks are RUNNING from now on."""
        requests: list[Request] = []
        vectors: Vectors = {}
        for work in bundle.works:
            asked = work.ask(self.contexts[work.role])
            requests.extend(asked.requests)
            vectors.update(asked.vectors)
            if self._tasks[work.task.id] is State.PENDING:
                self._tasks.set(work.task.id, State.RUNNING)
        return Bundle(id=bundle.id, requests=tuple(requests), vectors=vectors)

    def _collect(self) -> None:
        """Wait for the first of: an answer, a finished thread, a judge's question, a group."""
        for flight in self.fleet.wait(WAIT_S):
            if isinstance(flight.load, PlannedBundle):
                self._take(flight.load, flight)
            elif isinstance(flight.load, Asked):
                self._return(flight.load, flight)
        while self._finished:
            future = self._finished.popleft()
            work, began = self._writing.pop(future)
            self._open[getattr(work, "lane", "group")] -= 1
            self._held.pop(work.task.id, None)
            self._settle(future, work, began)

    def _return(self, asked: Asked, flight: Flight) -> None:
        """Hand a reply back to the judge that asked."""
        error = flight.answer.error
        if error is None:
            asked.reply.set_result(flight.answer.reply())
            return
        failures = self._failures.get(asked.bundle.id, 0) + int(flight.answer.blamed)
        self._failures[asked.bundle.id] = failures
        if isinstance(error, RequestRefused) or failures >= self.settings.group_attempts:
            asked.reply.set_exception(error)
        else:
            self.asks.again(asked)

    def _take(self, bundle: PlannedBundle, flight: Flight) -> None:
        """Hand an answered bundle to the writers, or decide about a failed one."""
        error = flight.answer.error
        if error is not None:
            self._fail_bundle(bundle, flight, error)
            return
        reply = flight.answer.reply()
        self.computing_s += reply.prefill_s + reply.decode_s
        results = list(reply.results)
        self.num_tokens += sum(len(r.prompt_ids) + len(r.completion_ids) for r in results)
        start = 0
        for work in bundle.works:
            mine = results[start : start + work.num_requests]
            start += work.num_requests
            if self._tasks[work.task.id] is State.RUNNING:
                self._held[work.task.id] = captured_bytes(mine)
                self._write(self._compute, work, self._checked, work, mine)

    def _checked(self, work: GroupWork, results: list[Result]) -> Tables:
        check_results(work.task, results)
        return work.answer(self.contexts[work.role], results)

    def _settle(self, future: futures.Future[None], work: Work, began: float) -> None:
        """A thread ended: the task is done, tried again, or failed."""
        task, error = work.task, future.exception()
        attempt = self._failures.get(task.id, 0) + 1
        if error is None:
            self._advance(self._tasks.finish(task.id))
            self.attempts.add(task.id, attempt, "done", None, began)
            return
        self._failures[task.id] = attempt
        decision = decide(error, attempt=attempt, max_attempts=self.settings.judge_attempts)
        self.attempts.add(task.id, attempt, decision.value, error, began)
        if decision is Decision.STOP:
            raise ClusterFailed(f"{task.label}: {error}") from error
        if decision is not Decision.RETRY:
            self._give_up(work, error)
            return
        self._tasks.set(task.id, State.PENDING)
        if isinstance(work, GroupWork):
            self._queue.push(PlannedBundle(f"{task.id}-again", (work,)))
        else:
            self._cpu_ready.append(task.id)

    def _advance(self, tasks: list[str]) -> None:
        """Tasks that became ready, or were lost, are passed on to those that hold them."""
        self._queue.note(tasks)
        self._cpu_ready += [one for one in tasks if isinstance(self.plan.works[one], CpuWork)]

    def _give_up(self, work: Work, error: BaseException) -> None:
        """Fail a task and block what waits for it."""
        self.errors[work.task.id] = f"{work.task.label}: {error}"
        logger.error("task %s failed: %s", work.task.label, error, exc_info=error)
        self._advance(self._tasks.fail(work.task.id))

    def _fail_bundle(self, bundle: PlannedBundle, flight: Flight, error: GroupError) -> None:
        """A group failed, or refused a bundle; those that only waited behind it go again."""
        blamed = flight.answer.blamed
        attempt = self._failures[bundle.id] = self._failures.get(bundle.id, 0) + int(blamed)
        decision = Decision.RETRY
        if blamed:
            limit, size = self.settings.group_attempts, len(bundle.works)
            decision = decide(error, attempt=attempt, num_tasks=size, max_attempts=limit)
        self.attempts.add(
            bundle.id, attempt, decision.value, error, flight.began, flight.group_name
        )
        logger.warning("bundle %s: %s; decision: %s", bundle.id, error, decision.value)
        if decision is Decision.STOP:
            raise ClusterFailed(str(error)) from error
        for work in bundle.works:
            if self._tasks[work.task.id] is State.RUNNING:
                self._tasks.set(work.task.id, State.PENDING)
        if decision is Decision.SKIP:
            self._give_up(bundle.works[0], error)
            return
        is_lost = not isinstance(error, RequestRefused)
        for part in bundle.parts(alone=is_lost) if decision is Decision.SPLIT else (bundle,):
            self._failures[part.id] = attempt
            if any(self._tasks[task] in OPEN for task in part.task_ids):
                self._queue.push(part, place_of=bundle.id)

    def _tell(self, *, is_last: bool = False) -> None:
        now_s = time.monotonic()
        if is_last or now_s - self._told_s >= TELL_EVERY_S:
            counts = self._tasks.counts
            if self.on_counts is not None and counts != self._told:
                self.on_counts(counts)
            self._told, self._told_s = counts, now_s
        flying = (load.id for load in self.fleet.loads if isinstance(load, PlannedBundle))
        labels = (work.task.label for work, _ in self._writing.values())
        doing = [*islice(flying, 2), *islice(labels, 2)]
        done = self._tasks.count(State.DONE)
        self.progress.update(done=done, doing=", ".join(doing[:2]), tokens=self.num_tokens)
