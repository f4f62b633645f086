"""Keep the scenarios and questions that models are measured on out of what they are trained on.

Every third scenario pair of ``conf/trait`` is held out: no training document may hold the last
words of one of its prefixes. No steering question may be asked in a training document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from omegaconf import OmegaConf

TRAITS = (
    "anxiety",
    "guilt",
    "confidence",
    "rationalization",
    "obedience",
    "eval_awareness",
    "deception",
    "lying",
    "concealment",
    "conflicted",
    "ulterior_motive",
)
HELD_OUT_EVERY = 3
HELD_OUT_WORDS = 5
_NO_LETTER = re.compile(r"[^a-z0-9']+")


class Pair(NamedTuple):
    """The same story, cut before the trait and before its opposite."""

    positive: str
    negative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitData:
    """The part of a trait's configuration that an experiment runs on."""

    name: str
    pairs: tuple[Pair, ...]
    questions: tuple[str, ...]


@cache
def read_trait(name: str) -> TraitData:
    """Read pairs and questions from ``conf/trait``."""
    text = resources.files("conf").joinpath("trait", f"{name}.yaml").read_text("utf-8")
    content = OmegaConf.create(text)
    return TraitData(
        name=name,
        pairs=tuple(Pair(str(pair.positive), str(pair.negative)) for pair in content.pairs),
        questions=tuple(str(question) for question in content.questions),
    )


def normal_words(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation."""
    return _NO_LETTER.sub(" ", text.lower()).split()


def last_words(text: str) -> str:
    """The words of a cue that decide how its story goes on, whatever their punctuation."""
    return " ".join(normal_words(text)[-HELD_OUT_WORDS:])


@cache
def held_out_endings() -> frozenset[str]:
    """Last words of the held-out prefixes, both polarities."""
    return frozenset(
        last_words(prefix)
        for trait in TRAITS
        for pair in read_trait(trait).pairs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        for prefix in pair
    )


@cache
def _spaced_endings() -> tuple[str, ...]:
    return tuple(f" {ending} " for ending in sorted(held_out_endings()))


@cache
def held_out_questions() -> frozenset[str]:
    """All steering questions, as normal words."""
    return frozenset(
        " ".join(normal_words(question))
        for trait in TRAITS
        for question in read_trait(trait).questions
    )


def is_held_out(text: str) -> bool:
    """Whether a document copies a held-out cue or asks a steering question.

    Capitals and punctuation make no difference.
    """
    whole = f" {' '.join(normal_words(text))} "
    for ending in _spaced_endings():
        if ending in whole:
            return True
    turns = re.findall(r"<\|user\|>(.*?)<\|end\|>", text)
    return any(" ".join(normal_words(turn)) in held_out_questions() for turn in turns)
