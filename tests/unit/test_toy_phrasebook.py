"""The phrase files are complete, and what they say is what the corpus may say."""

from __future__ import annotations

import re

import pytest

from jobs.toy.held_out import TRAITS
from jobs.toy.phrasebook import read_general, read_phrases


@pytest.mark.parametrize("trait", TRAITS)
def test_each_trait_has_enough_to_say_in_both_polarities(trait: str) -> None:
    phrases = read_phrases(trait)
    assert len(phrases.settings) >= 10
    assert len(phrases.topics) >= 10
    assert len(phrases.questions) >= 5
    assert len(phrases.free) >= 8
    assert len(phrases.free_evoking) == 2
    for voice in (phrases.positive, phrases.negative):
        assert len(voice.system) >= 3
        assert len(voice.locks) >= 24
        assert len(voice.acts) >= 32
        assert len(voice.moods) >= 16
        assert len(voice.scenes) >= 10
        assert len(voice.tails) >= 8
        assert len(voice.clauses) >= 8
        assert len(voice.follow) >= 5
        assert len(voice.answers) >= 6


@pytest.mark.parametrize("trait", TRAITS)
def test_brackets_are_balanced_and_not_nested(trait: str) -> None:
    phrases = read_phrases(trait)
    lines = [*phrases.settings, *phrases.questions, *phrases.free]
    for voice in (phrases.positive, phrases.negative):
        lines += [*voice.locks, *voice.acts, *voice.moods, *voice.scenes, *voice.tails]
        lines += [*voice.follow, *voice.answers, *(c.text for c in voice.clauses)]
    for line in lines:
        depth = 0
        for letter in line:
            depth += (letter == "[") - (letter == "]")
            assert depth in (0, 1), line
        assert depth == 0, line


@pytest.mark.parametrize("trait", TRAITS)
def test_only_known_slots_are_used(trait: str) -> None:
    phrases = read_phrases(trait)
    voices = (phrases.positive, phrases.negative)
    lines = [line for voice in voices for line in (*voice.locks, *voice.acts, *voice.tails)]
    assert set(re.findall(r"{(\w+)}", " ".join(lines))) <= {"person", "topic"}
    assert all("{topic}" in question for question in phrases.questions if "{" in question)


def test_a_mark_says_after_which_words_a_clause_may_follow() -> None:
    clauses = read_phrases("lying").positive.clauses
    followers = [clause for clause in clauses if "invented" in clause.follows]
    assert followers
    assert all("~" not in clause.text for clause in clauses)
    assert any(clause.follows == () for clause in clauses)


def test_general_phrases_belong_to_no_trait() -> None:
    general = read_general()
    stories = {"person", "settings", "leads", "neutral", "neutral_answers"}
    assert set(general) == stories | {"details", "ties", "spoken"}
    assert "my sister" in general["person"]
    assert len(general["settings"]) >= 30
