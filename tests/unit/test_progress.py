"""Progress speaks at intervals, and counts only what this invocation did."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from actors.request import Token
from jobs import progress
from jobs.progress import ConsoleProgress, TokenPrinter
from jobs.prompting import Encoder
from jobs.report.console import Console


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def make(out: io.StringIO, *, total: int = 40, before: int = 0) -> ConsoleProgress:
    told = ConsoleProgress(Console(out), total, before, interval_s=5.0)
    # The defaults were bound to the real clock when the class was made.
    told._started_s = told._last_s = 1000.0
    return told


def test_nothing_is_said_before_the_interval_is_over(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out)
    clock.now_s += 4.9
    told.update(done=3, doing="steering", tokens=10)

    assert out.getvalue() == ""


def test_a_line_tells_rate_and_time_left(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out)
    clock.now_s += 10
    told.update(done=10, doing="steering guilt", tokens=5000)

    # 10 tasks in 10 s leave 30 tasks and 30 s; 5000 tokens in 10 s are 500 a second.
    assert out.getvalue() == (
        " 25 %  10/40 tasks committed, 500 tokens/s, about 30 s left; now steering guilt\n"
    )


def test_lines_are_an_interval_apart(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out)
    for _ in range(12):
        clock.now_s += 1
        told.update(done=1, doing="x", tokens=0)

    assert out.getvalue().count("\n") == 2


def test_tasks_of_an_earlier_run_do_not_count_as_speed(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out, total=40, before=30)
    clock.now_s += 10
    told.update(done=35, doing="x", tokens=0)

    # 5 tasks in 10 s leave 5 tasks and 10 s.
    assert out.getvalue() == " 87 %  35/40 tasks committed, about 10 s left; now x\n"


def test_before_the_first_task_there_is_no_time_left_to_tell(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out, total=40, before=30)
    clock.now_s += 6
    told.update(done=30, doing="loading", tokens=0)

    assert out.getvalue() == " 75 %  30/40 tasks committed; now loading\n"


def test_before_anything_runs_the_model_group_is_what_is_waited_for(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out, total=40, before=0)
    clock.now_s += 6
    told.update(done=0, doing="", tokens=0)

    assert out.getvalue() == "  0 %  0/40 tasks committed; now starting a model group\n"


def test_the_time_a_group_takes_to_start_is_no_part_of_the_speed(clock: Clock) -> None:
    out = io.StringIO()
    told = make(out, total=40, before=0)
    for _ in range(10):
        clock.now_s += 4
        told.update(done=0, doing="", tokens=0)
    clock.now_s += 10
    told.update(done=10, doing="x", tokens=5000)

    # 10 tasks in 10 s, not in 50 s.
    last = out.getvalue().splitlines()[-1]
    assert last == " 25 %  10/40 tasks committed, 500 tokens/s, about 30 s left; now x"


class Bytes:
    """A tokenizer whose ids are the bytes of UTF-8, so that one letter may take several."""

    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        del add_special_tokens
        return list(text.encode())

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        del skip_special_tokens
        return bytes(ids).decode(errors="replace")

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt) -> str:
        raise AssertionError("nothing is templated here")


def streamed(*tokens: tuple[str, int]) -> list[str]:
    """What stands on the console after each (request, token)."""
    out = io.StringIO()
    printer = TokenPrinter(Console(out), Encoder(Bytes()))
    shown = []
    for index, (request, token) in enumerate(tokens):
        printer.take(Token(request_id=request, index=index, token_id=token))
        shown.append(out.getvalue())
    return shown


def test_a_completion_is_printed_token_by_token() -> None:
    assert streamed(*(("a", byte) for byte in b"I am")) == ["I", "I ", "I a", "I am"]


def test_a_letter_of_two_tokens_waits_for_the_second() -> None:
    assert streamed(*(("a", byte) for byte in "né".encode())) == ["n", "n", "né"]


def test_only_the_first_completion_is_streamed() -> None:
    tokens = [("a", 72), ("b", 88), ("a", 105), ("b", 89)]

    assert streamed(*tokens)[-1] == "Hi"


def test_a_long_completion_is_printed_whole_from_its_last_tokens_alone() -> None:
    text = "Ich weiß nicht, ob 中文 hier passt; naïve Gemüter sagen ja. " * 30
    given = text.encode()
    longest = 0

    class Counting(Bytes):
        def decode(self, ids: list[int], **options: object) -> str:
            nonlocal longest
            longest = max(longest, len(ids))
            return super().decode(ids, **options)

    out = io.StringIO()
    printer = TokenPrinter(Console(out), Encoder(Counting()))
    for index, byte in enumerate(given):
        printer.take(Token(request_id="a", index=index, token_id=byte))
    assert out.getvalue() == text
    assert longest < 80
