"""Jobs take turns by work done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.fair_queue import Entry, FairQueue
from actors.request import Bundle, Request, Sampling


def entry(job, name, *, tokens=10, priority=0, is_solo=False, num_requests=1):
    requests = tuple(
        Request(
            id=f"{job}-{name}-{i}", token_ids=(1,) * tokens, sampling=Sampling(max_new_tokens=0)
        )
        for i in range(num_requests)
    )
    return Entry(
        ticket=f"{job}{name}",
        job=job,
        bundle=Bundle(id=f"{job}{name}", requests=requests),
        priority=priority,
        is_solo=is_solo,
    )


def queue_of(*entries, max_requests=1):
    queue = FairQueue(max_requests=max_requests)
    for one in entries:
        queue.add(one)
    return queue


def run(queue):
    taken = []
    while len(queue):
        taken.append([one.ticket for one in queue.take()])
    return taken


def test_cost_is_what_may_be_read_and_written():
    request = Request(id="r", token_ids=(1, 2, 3), sampling=Sampling(max_new_tokens=7))
    assert Entry(ticket="t", job="a", bundle=Bundle(id="b", requests=(request,) * 2)).cost == 20


def test_one_jobs_bundles_run_in_the_order_in_which_they_came():
    assert run(queue_of(*(entry("a", i) for i in range(4)))) == [["a0"], ["a1"], ["a2"], ["a3"]]


def test_two_jobs_take_turns_whoever_came_first():
    queue = queue_of(*(entry("a", i) for i in range(3)), *(entry("b", i) for i in range(2)))
    assert run(queue) == [["a0"], ["b0"], ["a1"], ["b1"], ["a2"]]


def test_a_job_with_large_bundles_gets_fewer_turns():
    queue = queue_of(
        *(entry("big", i, tokens=30) for i in range(2)), *(entry("wee", i) for i in range(4))
    )
    assert [one[0] for one in run(queue)] == ["big0", "wee0", "wee1", "wee2", "big1", "wee3"]


def test_higher_priority_goes_first():
    queue = queue_of(entry("a", 0), entry("b", 0, priority=5), entry("b", 1, priority=5))
    assert run(queue) == [["b0"], ["b1"], ["a0"]]


def test_a_late_job_starts_level_and_has_no_credit_for_the_past():
    queue = queue_of(*(entry("a", i) for i in range(6)))
    for _ in range(4):
        queue.take()
    queue.add(entry("late", 0))
    queue.add(entry("late", 1))
    assert run(queue) == [["a4"], ["late0"], ["a5"], ["late1"]]


def test_what_is_put_back_goes_first_in_its_job():
    queue = queue_of(entry("a", 0), entry("a", 1), entry("a", 2))
    taken = queue.take() + queue.take()
    queue.put_back(taken)
    assert run(queue) == [["a0"], ["a1"], ["a2"]]


def test_bundles_of_different_jobs_share_a_batch_and_of_one_job_never():
    queue = queue_of(entry("a", 0), entry("a", 1), entry("b", 0), entry("c", 0), max_requests=100)
    assert run(queue) == [["a0", "b0", "c0"], ["a1"]]


def test_a_batch_holds_no_more_requests_than_allowed():
    queue = queue_of(
        entry("a", 0, num_requests=3),
        entry("b", 0, num_requests=3),
        entry("c", 0, num_requests=2),
        max_requests=5,
    )
    assert run(queue) == [["a0", "c0"], ["b0"]]


def test_a_bundle_larger_than_the_limit_runs_alone():
    queue = queue_of(entry("a", 0, num_requests=9), entry("b", 0), max_requests=5)
    assert run(queue) == [["a0"], ["b0"]]


def test_equal_request_ids_do_not_share_a_batch():
    first, second = entry("a", 0), entry("b", 0)
    second.bundle = first.bundle
    assert run(queue_of(first, second, max_requests=100)) == [["a0"], ["b0"]]


def test_a_suspect_runs_alone():
    queue = queue_of(entry("a", 0, is_solo=True), entry("b", 0), entry("c", 0), max_requests=100)
    assert run(queue) == [["a0"], ["b0", "c0"]]


def test_a_dropped_job_leaves_nothing():
    queue = queue_of(entry("a", 0), entry("b", 0), entry("a", 1))
    assert [one.ticket for one in queue.drop("a")] == ["a0", "a1"]
    assert queue.drop("nobody") == []
    assert run(queue) == [["b0"]]


def test_the_order_shown_is_the_order_taken():
    queue = queue_of(
        *(entry("a", i, tokens=5) for i in range(5)), *(entry("b", i, tokens=8) for i in range(3))
    )
    shown = [one.ticket for one in queue.order()]
    assert len(queue) == 8
    assert [one[0] for one in run(queue)] == shown


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=40))
def test_every_bundle_is_taken_once_and_no_job_waits_behind_more_than_its_share(items):
    queue = queue_of(*(entry(job, i, tokens=cost) for i, (job, cost) in enumerate(items)))
    costs = {f"{job}{i}": cost for i, (job, cost) in enumerate(items)}
    taken = [one[0] for one in run(queue)]
    assert sorted(taken) == sorted(costs)
    waiting = {job: sum(ticket[0] == job for ticket in costs) for job in "abc"}
    served = dict.fromkeys("abc", 0)
    for ticket in taken:
        job = ticket[0]
        behind = [served[one] for one in "abc" if waiting[one]]
        assert served[job] == min(behind)
        served[job] += costs[ticket]
        waiting[job] -= 1


def test_two_jobs_of_one_run_never_share_a_batch():
    """A killed driver's bundles may still wait beside those of the job that continues its run."""
    queue = FairQueue(max_requests=100)
    for job, run in (("old", "r"), ("new", "r"), ("other", "s"), ("nameless", "")):
        asked = Bundle(id=job, requests=(Request(id=job, token_ids=(1,)),))
        queue.add(Entry(ticket=job, job=job, bundle=asked, run=run))
    first = {entry.job for entry in queue.take()}
    assert len(first & {"old", "new"}) == 1
    assert {"other", "nameless"} <= first
    assert {entry.job for entry in queue.take()} == {"old", "new"} - first
