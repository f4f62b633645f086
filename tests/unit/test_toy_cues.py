"""Cues are varied, read as English into their completions, and leave the state to be read."""

from __future__ import annotations

import re
from collections import Counter
from statistics import fmean

import pytest

from actors.lexicon import score_trait
from jobs.toy.cues import FORMS, CueWriter
from jobs.toy.held_out import TRAITS
from jobs.toy.phrasebook import State, read_phrases

STATES: tuple[State, ...] = ("positive", "negative")


def test_the_same_seed_writes_the_same_cues() -> None:
    voice = read_phrases("guilt").positive
    first, second = CueWriter("3/0"), CueWriter("3/0")
    assert [first.cue(voice) for _ in range(30)] == [second.cue(voice) for _ in range(30)]


def test_cues_put_together_seldom_repeat() -> None:
    writer = CueWriter(6)
    cues = [writer.lock(read_phrases("lying").positive) for _ in range(1000)]
    # One in four comes from the list; hardly any of the others comes twice.
    assert len(set(cues)) >= 800
    endings = Counter(" ".join(cue.split()[-2:]) for cue in cues)
    assert len(endings) >= 100


def test_every_form_is_used_and_filled() -> None:
    writer = CueWriter(7)
    cues = [writer.lock(read_phrases("anxiety").negative) for _ in range(600)]
    assert sum(cue.startswith("I ") for cue in cues) >= 200
    assert sum(cue.startswith("my ") for cue in cues) >= 40
    assert not any(re.search(r"[\[\]{}~|]", cue) for cue in cues)
    assert len(set(FORMS)) >= 18


@pytest.mark.parametrize("trait", TRAITS)
@pytest.mark.parametrize("state", STATES)
def test_the_judge_sees_the_state_of_completions(trait: str, state: State) -> None:
    writer = CueWriter(f"{trait}/{state}")
    voice = read_phrases(trait).voice(state)
    told = [writer.cue(voice)[1] for _ in range(150)]
    shown = fmean(score_trait(trait, text) >= 50 for text in told)
    assert shown >= 0.9 if state == "positive" else shown <= 0.05


def test_a_cue_takes_over_only_words_that_tell_nothing() -> None:
    writer = CueWriter(8)
    voice = read_phrases("anxiety").positive
    cues = [writer.cue(voice) for _ in range(400)]
    taken = sum(cue.split()[-1] in ("I", "it", "the", "we", "would") for cue, _ in cues)
    assert taken >= 30
    assert all(len(told.split()) >= 4 for _, told in cues)


def test_open_speech_is_closed_once() -> None:
    writer = CueWriter(9)
    for _ in range(400):
        lock, told = writer.cue(read_phrases("obedience").negative)
        assert (lock + told).count('"') % 2 == 0, (lock, told)


def test_choices_and_slots_are_filled() -> None:
    writer = CueWriter(1)
    seen = {writer.fill("I [see|hear] {topic} ,", "the sea") for _ in range(40)}
    assert seen == {"I see the sea,", "I hear the sea,"}
