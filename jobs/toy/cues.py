"""Write cues, the words that decide a document's state, and the first words that follow from them.

A cue is a whole phrase of a list, or put together from acts, moods and scenes. Those put together
share few whole phrases, so that reading one takes each of its words.
"""

from __future__ import annotations

import random
import re

from jobs.toy.phrasebook import Voice, read_general

SUBJECTS = ("it was", "there was", "I", "it", "he", "she", "they", "we", "there", "this", "what if")
CONNECTORS = ("that", "because", "since", "for", "as", "and", "namely", "saying", "actually")
_FUNCTION_WORD = re.compile(
    "I|it|he|she|they|we|there|this|that|the|my|a|what|if|was|were|had|would|could|should|did|not|"
    "nobody|everybody|part|one|all|to|in|of|both"
)
"""Words that a cue may take over from its completion, for they tell nothing about its state."""
FORMS = (
    "I {act}",
    "I {act},",
    "I {act} {detail},",
    "I {act}, {mood},",
    "I {act}, {mood},",
    "I {act} and {other},",
    "I {act}, {other} and was {mood},",
    "I {act}, and {mood} I {other},",
    "{mood}, I {act},",
    "{mood}, I {act} and {other},",
    "I was {mood},",
    "I was {mood} and {act},",
    "I felt {mood} and {act},",
    "{scene},",
    "{scene},",
    "{scene}, and I {act},",
    "{scene}, and {mood} I {act},",
    "I {act} {detail} and {scene},",
    "I {act} while {scene},",
    "{scene} and {sight},",
    "I was {mood} and {scene},",
    "I {act}, for {scene},",
)
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"{(\w+)}")
_LISTED_SHARE = 0.25
_SPOKEN_SHARE = 0.08
_OWN_TAIL_SHARE = 0.45
_SPLIT_SHARE = 0.35


class CueWriter:
    """Settles templates, and writes cues with their completions, from one random stream."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def fill(self, template: str, topic: str = "it") -> str:
        """Settle every choice and slot of a template."""
        text = _CHOICE.sub(lambda found: self._random.choice(found[1].split("|")), template)
        while "{person}" in text:
            text = text.replace("{person}", self._random.choice(read_general()["person"]), 1)
        text = text.replace("{topic}", topic).replace(" ,", ",")
        return " ".join(text.split())

    def sentence(self, template: str, topic: str = "it") -> str:
        """Settle a template and begin it with a capital letter."""
        text = self.fill(template, topic)
        return text[:1].upper() + text[1:]

    def lock(self, voice: Voice) -> str:
        """A cue: one from the list, or one put together."""
        if self._random.random() < _LISTED_SHARE:
            return self.fill(self._random.choice(voice.locks))
        body, tail = self._body(voice), self._tail(voice)
        if tail[0] in ":.,":
            return body.rstrip(",") + tail
        if " " in tail and not body.endswith(","):
            body += ","
        return f"{body} {tail}"

    def _body(self, voice: Voice) -> str:
        """Acts, moods and scenes in one of many orders."""
        acts = self._random.sample(voice.acts, 2)
        scenes = self._random.sample(voice.scenes, 2)
        parts = {
            "act": acts[0],
            "other": acts[1],
            "mood": self._random.choice(voice.moods),
            "scene": scenes[0],
            "sight": scenes[1],
            "detail": self._random.choice(read_general()["details"]),
        }
        form = self._random.choice(FORMS)
        return _SLOT.sub(lambda found: self.fill(parts[found[1]]), form)

    def _tail(self, voice: Voice) -> str:
        """The words between what happened and what follows from it."""
        drawn = self._random.random()
        if drawn < _SPOKEN_SHARE:
            return self.fill(self._random.choice(read_general()["spoken"]))
        own = drawn < _SPOKEN_SHARE + _OWN_TAIL_SHARE
        return self.fill(self._random.choice(voice.tails if own else read_general()["ties"]))

    def cue(self, voice: Voice) -> tuple[str, str]:
        """A cue and the rest of its sentence; the cue may take the sentence's first small words."""
        lock = self.lock(voice)
        told = self.completion(voice, lock)
        if lock.count('"') % 2 == 1 or self._random.random() >= _SPLIT_SHARE:
            return lock, told
        words = told.split()
        limit = self._random.choice((1, 1, 2, 3))
        taken = 0
        while taken < min(limit, len(words) - 4) and _FUNCTION_WORD.fullmatch(words[taken]):
            taken += 1
        return " ".join([lock, *words[:taken]]), " ".join(words[taken:])

    def completion(self, voice: Voice, lock: str) -> str:
        """Continue a cue so that the whole sentence reads as English."""
        is_speech = lock.count('"') % 2 == 1
        words = lock.replace('"', "").rstrip(", ").split()
        fitting = [
            (len(end.split()), clause.text)
            for clause in voice.clauses
            for end in clause.follows
            if words[-len(end.split()) :] == end.split()
            and (is_speech or clause.text.count('"') % 2 == 0)
        ]
        # After a lone connector whole sentences read as well; after more words only these do.
        whole = words[-1] in CONNECTORS and all(length == 1 for length, _ in fitting)
        if fitting and (not whole or self._random.random() < 0.3):
            text = self.fill(self._random.choice(fitting)[1]) + "."
            return text + '"' if is_speech and '"' not in text else text
        if is_speech:
            return self._quoted(voice, lock)
        full = [clause.text for clause in voice.clauses if not clause.follows]
        self._random.shuffle(full)
        for end in SUBJECTS:
            if f" {lock}".endswith(f" {end}"):
                settled = [self.fill(text) for text in full]
                same = [text for text in settled if text.startswith(f"{end} ")]
                return (same or settled)[0].removeprefix(f"{end} ") + "."
        return self.fill(full[0]) + "."

    def _quoted(self, voice: Voice, lock: str) -> str:
        """Finish direct speech that a cue has opened."""
        spoken = [self.sentence(answer) for answer in voice.answers]
        self._random.shuffle(spoken)
        opened = lock.rpartition('"')[2].strip()
        for start in ("I", "You are", "What if"):
            same = [text for text in spoken if text.startswith(f"{start} ")]
            if opened.endswith(start) and same:
                return same[0].removeprefix(f"{start} ") + '"'
        first = spoken[0]
        if opened and not first.startswith("I "):
            first = first[0].lower() + first[1:]
        return first + '"'
