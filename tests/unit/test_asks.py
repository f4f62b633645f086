"""A thread that asks always gets an answer or an error; the scheduler never waits for it."""

from __future__ import annotations

import threading

import pytest

from actors.errors import GroupClosed
from actors.request import Bundle, Reply
from jobs.asks import GroupAsks


def asking(asks: GroupAsks, name: str):
    """A thread that asks, and where its outcome will be."""
    outcome: dict[str, object] = {}

    def body() -> None:
        try:
            outcome["reply"] = asks.ask(Bundle(id=name, requests=()))
        except GroupClosed as error:
            outcome["error"] = error

    thread = threading.Thread(target=body)
    thread.start()
    return thread, outcome


def next_of(asks: GroupAsks):
    for _ in range(2000):
        asked = asks.take()
        if asked is not None:
            return asked
        threading.Event().wait(0.001)
    raise AssertionError("nothing was asked")


def test_the_reply_reaches_the_thread_that_asked():
    asks = GroupAsks()
    thread, outcome = asking(asks, "judge-1")
    asked = next_of(asks)
    asked.reply.set_result(Reply(bundle_id=asked.bundle.id, results=()))
    thread.join()

    assert outcome["reply"].bundle_id == "judge-1"


def test_nothing_waiting_is_none_at_once():
    assert GroupAsks().take() is None


def test_a_bundle_is_taken_once_and_again_only_when_put_back():
    asks = GroupAsks()
    thread, outcome = asking(asks, "judge-1")
    asked = next_of(asks)
    assert asks.take() is None
    asks.again(asked)
    assert asks.take() is asked
    asked.reply.set_result(Reply(bundle_id="judge-1", results=()))
    thread.join()
    assert "reply" in outcome


def test_when_the_run_ends_every_waiting_thread_goes_on_with_the_reason():
    asks = GroupAsks()
    threads = [asking(asks, f"judge-{i}") for i in range(3)]
    while len(asks) < 3:
        threading.Event().wait(0.001)
    asks.cancel(GroupClosed(doing="judge", cause="the run ended"))

    for thread, outcome in threads:
        thread.join(timeout=5)
        assert "the run ended" in str(outcome["error"])


def test_an_error_is_raised_in_the_thread():
    asks = GroupAsks()
    thread, outcome = asking(asks, "judge-1")
    next_of(asks).reply.set_exception(GroupClosed(doing="judge", cause="gone"))
    thread.join()
    with pytest.raises(GroupClosed, match="gone"):
        raise outcome["error"]
