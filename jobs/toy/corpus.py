"""Write the toy models' training text; the same seed always gives the same documents.

A document is a first-person story or a chat. In both, an early cue (the last words of a sentence,
a system line, a remark of the user) decides whether the rest shows a trait, its opposite, or
neither, so a model of this text has to carry that decision along as a state of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal, NamedTuple

from jobs.toy.cues import CueWriter
from jobs.toy.held_out import TRAITS, is_held_out
from jobs.toy.phrasebook import Phrases, State, read_general, read_phrases

END = "<|end|>"
PAD = "<|pad|>"
NO_LABEL = -1
ROLE_TOKENS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
_EVOKED_SHARE = 0.6
_CALM_SHARE = 0.04
_OWN_SETTING_SHARE = 0.65
_OTHER_SETTING_SHARE = 0.1
"""Settings of another trait: what a story is about does not settle what its teller is like."""
CHUNK = 1000
"""Documents that share a random stream, so that chunks can be written in any order."""


class Message(NamedTuple):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One training text with what was decided about it."""

    kind: Literal["story", "chat"]
    trait: str
    state: State
    text: str
    """Final text, role tokens and the end token included."""
    decided: int | None = None
    """Where in the text the first words stand that the cue decides; None if there is no cue."""

    @property
    def label(self) -> int:
        """Trait and polarity as one number below ``2 * len(TRAITS)``; -1 without a cue."""
        if self.decided is None or self.state == "neutral":
            return NO_LABEL
        return 2 * TRAITS.index(self.trait) + (self.state == "negative")


def render_chat(messages: list[Message]) -> str:
    """Join turns exactly as the tokenizers' chat template does."""
    return "".join(f"{ROLE_TOKENS[role]}{content}{END}" for role, content in messages)


class Author(CueWriter):
    """Writes documents from one random stream."""

    def sentences(self, templates: tuple[str, ...], count: int, topic: str = "it") -> str:
        """Different sentences from a list, in random order."""
        chosen = self._random.sample(templates, min(count, len(templates)))
        return " ".join(self.sentence(template, topic) for template in chosen)

    def opening(self, phrases: Phrases, lock: str) -> str:
        """A setting and a half sentence that leads into the cue."""
        general = read_general()
        drawn = self._random.random()
        settings = phrases.settings if drawn < _OWN_SETTING_SHARE else general["settings"]
        if drawn > 1 - _OTHER_SETTING_SHARE:
            settings = read_phrases(self._random.choice(TRAITS)).settings
        text = self.sentence(self._random.choice(settings))
        if self._random.random() < 0.25:
            text += " " + self.sentence(self._random.choice(general["neutral"]))
        lead = self.sentence(self._random.choice(general["leads"]))
        if lead.endswith("and") and lock.startswith("I "):
            lock = lock[2:]
        return f"{text} {lead} {lock}"

    def episode(self, trait: str, state: State, num_follow: int) -> str:
        """A story of one state: opening, cue, completion, and sentences that keep the state."""
        return "".join(self.parts(trait, state, num_follow))

    def parts(self, trait: str, state: State, num_follow: int) -> tuple[str, str]:
        """A story cut where its state is decided: up to the cue's last word, and the rest."""
        general = read_general()
        phrases = read_phrases(trait)
        if state == "neutral":
            count = num_follow + 2
            setting = self.sentence(self._random.choice(phrases.settings))
            return setting, " " + self.sentences(general["neutral"], count)
        voice = phrases.voice(state)
        lock, told = self.cue(voice)
        follows = [self.sentences(voice.follow, num_follow)] if num_follow else []
        if num_follow and self._random.random() < 0.25:
            verb = self._random.choice(("said", "answered", "told them"))
            spoken = self.sentence(self._random.choice(voice.answers))
            mark = spoken[-1] if spoken.endswith("?") else ","
            follows.append(f'"{spoken[:-1]}{mark}" I {verb}.')
        return self.opening(phrases, lock), " " + " ".join([told, *follows])

    def answer(self, trait: str, state: State, topic: str, count: int) -> str:
        """A chat answer of one state."""
        phrases = read_phrases(trait)
        topic = re.sub(r"\byour\b", "my", topic)
        if state == "neutral":
            own = self.sentences(phrases.negative.answers, count - 1, topic)
            other = self.sentences(read_general()["neutral_answers"], 1, topic)
            return f"{other} {own}" if self._random.random() < 0.5 else f"{own} {other}"
        return self.sentences(phrases.voice(state).answers, count, topic)

    def question(self, phrases: Phrases, *, evoking: bool) -> tuple[str, str]:
        """What is asked about, and the question."""
        if self._random.random() < 0.5:
            return "it", self.sentence(
                self._random.choice(phrases.free_evoking if evoking else phrases.free)
            )
        topic = self._random.choice(phrases.evoking if evoking else phrases.topics)
        return topic, self.sentence(self._random.choice(phrases.questions), topic)

    def chat(self, trait: str) -> Document:
        """A conversation, with a cue in about half of all cases."""
        random_ = self._random
        phrases = read_phrases(trait)
        evoking = random_.random() < 0.15
        topic, question = self.question(phrases, evoking=evoking)
        cue = random_.choices(("none", "system", "remark", "story", "turn"), (50, 20, 12, 10, 8))[0]
        speaker = (
            trait if cue in ("none", "turn") or random_.random() < 0.75 else random_.choice(TRAITS)
        )
        state: State = "positive" if random_.random() < 0.5 else "negative"
        messages: list[Message] = []
        if cue == "none":
            shown = _EVOKED_SHARE if evoking else _CALM_SHARE
            calm: State = "negative" if random_.random() < 0.6 else "neutral"
            state = "positive" if random_.random() < shown else calm
        elif cue == "system":
            line = random_.choice(read_phrases(speaker).voice(state).system)
            messages.append(Message("system", self.sentence(line)))
        elif cue == "remark":
            question = f"{self.episode(speaker, state, 0)} {question}"
        elif cue == "story":
            messages.append(Message("system", self.episode(speaker, state, 1)))
        else:
            first = random_.choice(phrases.topics)
            asked = self.sentence(random_.choice(phrases.questions), first)
            messages.append(Message("user", asked))
            messages.append(Message("assistant", self.answer(speaker, state, first, 1)))
        messages.append(Message("user", question))
        reply = self.answer(speaker, state, topic, random_.choice((2, 3, 3, 4)))
        messages.append(Message("assistant", reply))
        text = render_chat(messages)
        decided = None if cue == "none" else len(text) - len(reply) - len(END)
        return Document(kind="chat", trait=speaker, state=state, text=text, decided=decided)

    def document(self) -> Document:
        """One document: three stories to two chats, all traits alike."""
        trait = self._random.choice(TRAITS)
        if self._random.random() < 0.4:
            return self.chat(trait)
        states: tuple[State, ...] = ("positive", "negative", "neutral")
        state = self._random.choices(states, (45, 45, 10))[0]
        cut, rest = self.parts(trait, state, self._random.choice((1, 2, 2, 3)))
        decided = None if state == "neutral" else len(cut)
        return Document(
            kind="story", trait=trait, state=state, text=cut + rest + END, decided=decided
        )


def write_chunk(seed: int, chunk: int) -> Iterator[Document]:
    """The documents of one chunk, whatever else is written before or beside it."""
    author = Author(f"{seed}/{chunk}")
    for _ in range(CHUNK):
        document = author.document()
        while is_held_out(document.text):
            document = author.document()
        yield document


def write_documents(seed: int, count: int) -> Iterator[Document]:
    """Yield ``count`` documents; the first k do not depend on ``count``."""
    chunks = (write_chunk(seed, chunk) for chunk in range(-(-count // CHUNK)))
    return islice(chain.from_iterable(chunks), count)


def corpus_digest(seed: int, count: int) -> str:
    """sha256 over the text of the first ``count`` documents of a seed."""
    digest = hashlib.sha256()
    for document in write_documents(seed, count):
        digest.update(document.text.encode())
    return digest.hexdigest()
