"""What each task of a plan asks for: requests and prompt tokens exactly, the rest as a limit.

Answers may end early, so generated tokens and captured rows are at most what is said here. Bytes in
result files are about right: they are compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from actors.model.family import ModelFacts
from actors.model.memory import ITEM_BYTES
from jobs.plan import Plan
from jobs.prompting import Encoder
from jobs.stages.capturing import CaptureWork, CompletionWork
from jobs.stages.judging import JudgeWork, VettingWork
from jobs.stages.responses import ResponsesWork, prefixes
from jobs.stages.steering import AnswersWork
from jobs.work import GroupWork, Work

FILE_BYTES = 12_000
"""A small table's file: most of it says what the columns mean."""
TOKEN_BYTES = 6
"""A token in a table: its id and its text, compressed."""
JUDGED_BYTES = 16
"""A score in a table."""
TABLES_OF = {"responses": 2, "fit": 2, "capture": 2}
"""Files that a task of a kind commits; one for all others."""


class Demand(NamedTuple):
    """What one task asks of the group."""

    num_requests: int
    prompt_tokens: int
    new_tokens: int
    """At most."""
    longest: int
    """Tokens of the longest sequence, at most."""
    captured_bytes: int
    """That leave the ranks, at most."""


class Length(NamedTuple):
    """The longest text of a task, and the setting that says how long its answer may be."""

    text: str
    tokens: int
    new_tokens: int
    setting: str


class Demands:
    """Reads a plan's tasks; each text is tokenised once."""

    def __init__(self, facts: ModelFacts, dtype: str, encoder: Encoder) -> None:
        self._facts = facts
        self._row_bytes = facts.hidden_size * ITEM_BYTES[dtype]
        self._encoder = encoder
        self._known: dict[tuple[str, bool], int] = {}

    def of(self, work: GroupWork) -> Demand:
        """What one task asks."""
        lengths, new = self._prompts(work), max_new_tokens(work)
        captured = 0
        if isinstance(work, ResponsesWork):
            captured = len(lengths) * self._facts.num_layers * self._facts.hidden_size * 4
        elif isinstance(work, CaptureWork):
            rows = sum(lengths) + len(lengths) * new
            captured = rows * len(work.layers) * len(work.sites) * self._row_bytes
        return Demand(
            num_requests=len(lengths),
            prompt_tokens=sum(lengths),
            new_tokens=len(lengths) * new,
            longest=max(lengths, default=0) + new,
            captured_bytes=captured,
        )

    def written_bytes(self, works: Iterable[Work], plan: Plan) -> int:
        """Size of the result files of these tasks, about."""
        total = 0
        for work in works:
            total += FILE_BYTES * TABLES_OF.get(work.task.kind, 1)
            total += JUDGED_BYTES * judged_texts(work, plan)
            if isinstance(work, GroupWork):
                asked = self.of(work)
                total += TOKEN_BYTES * (asked.prompt_tokens + asked.new_tokens)
                total += asked.captured_bytes
            elif work.task.kind == "fit":
                total += 4 * self._facts.hidden_size
        return total

    def _prompts(self, work: GroupWork) -> list[int]:
        """Prompt lengths of a task's requests."""
        texts, is_chat, copies, _ = _texts(work)
        return [self._length(text, chat=is_chat) for text in texts] * copies

    def longest(self, work: GroupWork) -> Length:
        """The task's text with the most tokens."""
        texts, is_chat, _, setting = _texts(work)
        text = max(texts, key=lambda one: self._length(one, chat=is_chat), default="")
        tokens = self._length(text, chat=is_chat)
        return Length(text, tokens, max_new_tokens(work), setting)

    def _length(self, text: str, *, chat: bool) -> int:
        key = (text, chat)
        if key not in self._known:
            encode = self._encoder.chat if chat else self._encoder.raw
            self._known[key] = len(encode(text))
        return self._known[key]


class _Texts(NamedTuple):
    texts: Sequence[str]
    is_chat: bool
    copies: int
    """Requests of each text."""
    setting: str
    """Of the length of an answer."""


def _texts(work: GroupWork) -> _Texts:
    """What a task's requests are made of."""
    if isinstance(work, ResponsesWork):
        texts = prefixes(work.trait, work.polarity)
        return _Texts(texts, False, work.settings.samples, "extraction.max_new_tokens")
    if isinstance(work, AnswersWork):
        copies = len(work.kinds) * work.settings.samples
        return _Texts(work.trait.questions, True, copies, "steering.max_new_tokens")
    if isinstance(work, CompletionWork):
        job = "capture" if isinstance(work, CaptureWork) else "generate"
        texts = [item.text for item in work.prompts]
        return _Texts(texts, work.chat, work.samples, f"{job}.max_new_tokens")
    raise TypeError(f"{type(work).__name__} says nothing of its prompts")


def max_new_tokens(work: GroupWork) -> int:
    """Length of one answer, if it does not end early."""
    if isinstance(work, ResponsesWork | AnswersWork):
        return work.settings.max_new_tokens
    if isinstance(work, CompletionWork):
        return work.sampling.max_new_tokens
    raise TypeError(f"{type(work).__name__} says nothing of its answers")


def judged_texts(work: Work, plan: Plan) -> int:
    """Texts that a judge scores for one task: trait and coherence count apart."""
    if not isinstance(work, VettingWork | JudgeWork):
        return 0
    texts = sum(one.num_requests for one in _read(work, plan))
    return 2 * texts if isinstance(work, JudgeWork) else texts


def judged_tokens(work: Work, plan: Plan, *, around: int) -> int:
    """Tokens that a judge reads for one task, with ``around`` of rubric for each text."""
    longest = max((max_new_tokens(one) for one in _read(work, plan)), default=0)
    return judged_texts(work, plan) * (around + longest)


def _read(work: Work, plan: Plan) -> list[GroupWork]:
    """Tasks of the group whose answers this one reads."""
    found = [plan.works[task] for task in work.after]
    return [one for one in found if isinstance(one, GroupWork)]
