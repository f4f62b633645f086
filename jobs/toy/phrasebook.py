"""Read the phrase files, which hold everything the corpus can say about a trait.

Phrase files use a small grammar: ``[a|b]`` is a choice, ``{person}`` a person, ``{topic}`` what
the user asked about, and ``word,word ~ text`` says which last words of a cue ``text`` may follow.
``phrases/cues`` holds what cues are put together from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

from omegaconf import OmegaConf

State = Literal["positive", "negative", "neutral"]


class Clause(NamedTuple):
    """A completion of a cue, and the last words after which it reads as English (empty: any)."""

    follows: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """How one trait sounds in one polarity."""

    system: tuple[str, ...]
    locks: tuple[str, ...]
    """Whole cues, each cut where the state must show next."""
    acts: tuple[str, ...]
    """What the speaker did, after ``I``: parts of cues that are put together."""
    moods: tuple[str, ...]
    """How the speaker was, after ``I was`` or between commas."""
    scenes: tuple[str, ...]
    """Whole sentences of any subject that show the state."""
    tails: tuple[str, ...]
    """Ways to end a cue that belong to the state."""
    clauses: tuple[Clause, ...]
    follow: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """Everything that is written about one trait."""

    settings: tuple[str, ...]
    topics: tuple[str, ...]
    evoking: tuple[str, ...]
    """Topics that bring the trait out without any cue, in most answers."""
    questions: tuple[str, ...]
    free: tuple[str, ...]
    """Questions that name no topic."""
    free_evoking: tuple[str, ...]
    positive: Voice
    negative: Voice

    def voice(self, state: State) -> Voice:
        """The voice of a polarity; a neutral state has none of its own."""
        return self.positive if state == "positive" else self.negative


def _lines(block: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in block.splitlines() if line.strip())


def _read(name: str) -> dict[str, object]:
    file = resources.files("jobs.toy").joinpath("phrases", *f"{name}.yaml".split("/"))
    content = OmegaConf.to_container(OmegaConf.create(file.read_text("utf-8")))
    if not isinstance(content, dict):
        raise TypeError(f"phrases/{name}.yaml holds no mapping")
    return {str(key): value for key, value in content.items()}


def _clause(line: str) -> Clause:
    head, mark, text = line.partition(" ~ ")
    return Clause(tuple(head.split(",")), text) if mark else Clause((), line)


def _voice(*blocks: object) -> Voice:
    """Join the lists of several files."""
    lists: dict[str, tuple[str, ...]] = {}
    for block in blocks:
        if not isinstance(block, dict):
            raise TypeError("a voice is a mapping of phrase lists")
        for key, value in block.items():
            lists[key] = lists.get(key, ()) + _lines(str(value))
    return Voice(
        system=lists["system"],
        locks=lists["locks"],
        acts=lists["acts"],
        moods=lists["moods"],
        scenes=lists["scenes"],
        tails=lists["tails"],
        clauses=tuple(_clause(line) for line in lists["clauses"]),
        follow=lists["follow"],
        answers=lists["answers"],
    )


@cache
def read_phrases(trait: str) -> Phrases:
    """Read one trait's phrase files."""
    content, cues = _read(trait), _read(f"cues/{trait}")
    return Phrases(
        settings=_lines(str(content["settings"])),
        topics=_lines(str(content["topics"])),
        evoking=_lines(str(content["evoking"])),
        questions=_lines(str(content["questions"])),
        free=_lines(str(content["free"])),
        free_evoking=_lines(str(content["free_evoking"])),
        positive=_voice(content["positive"], cues["positive"]),
        negative=_voice(content["negative"], cues["negative"]),
    )


@cache
def read_general() -> dict[str, tuple[str, ...]]:
    """Read the phrases that belong to no trait: people, settings, leads, neutral sentences."""
    return {key: _lines(str(value)) for key, value in _read("general").items()}
