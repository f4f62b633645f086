"""The corpus is repeatable, balanced, well formed, and shows the state that it claims."""

from __future__ import annotations

import re
from collections import Counter
from statistics import fmean

import pytest

from actors.lexicon import score_coherence, score_trait
from jobs.toy.corpus import (
    CHUNK,
    NO_LABEL,
    Author,
    Message,
    corpus_digest,
    render_chat,
    write_chunk,
    write_documents,
)
from jobs.toy.held_out import TRAITS, read_trait

COUNT = 4000


def test_the_same_seed_writes_the_same_documents() -> None:
    assert corpus_digest(3, 500) == corpus_digest(3, 500)
    assert corpus_digest(3, 500) != corpus_digest(4, 500)


def test_the_first_documents_do_not_depend_on_how_many_are_asked_for() -> None:
    short = list(write_documents(5, 50))
    long = list(write_documents(5, 200))
    assert long[:50] == short


def test_traits_kinds_and_states_are_balanced() -> None:
    documents = list(write_documents(6, COUNT))
    traits = Counter(document.trait for document in documents)
    assert set(traits) == set(TRAITS)
    # 4000 documents over 11 traits are 364 each, give or take 19 (one standard deviation).
    assert 280 <= min(traits.values()) <= max(traits.values()) <= 450
    stories = [document for document in documents if document.kind == "story"]
    assert 0.56 <= len(stories) / COUNT <= 0.64
    states = Counter(document.state for document in stories)
    assert 0.40 <= states["positive"] / len(stories) <= 0.50
    assert 0.40 <= states["negative"] / len(stories) <= 0.50


def test_uncued_chats_mostly_do_not_show_the_trait() -> None:
    uncued = [
        document
        for document in write_documents(7, COUNT)
        if document.kind == "chat"
        and document.text.count("<|user|>") == 1
        and "<|system|>" not in document.text
        and len(document.text.split("<|end|>")[0]) < 75
    ]
    shown = fmean(document.state == "positive" for document in uncued)
    assert 0.05 <= shown <= 0.3


def test_no_slot_choice_or_double_space_is_left_in_the_text() -> None:
    for document in write_documents(8, COUNT):
        body = re.sub(r"<\|\w+\|>", "", document.text)
        assert not re.search(r"[\[\]{}~|]", body), body
        assert "  " not in body
        assert " ," not in body
        assert " ." not in body


def test_stories_and_turns_end_with_the_end_token() -> None:
    for document in write_documents(9, 500):
        assert document.text.endswith("<|end|>")
        if document.kind == "chat":
            roles = re.findall(r"<\|(system|user|assistant)\|>", document.text)
            assert roles[-2:] == ["user", "assistant"]
            assert document.text.count("<|end|>") == len(roles)
        else:
            assert document.text.count("<|end|>") == 1


def test_chats_render_as_role_content_end() -> None:
    text = render_chat([Message("user", "Hi."), Message("assistant", "Yes.")])
    assert text == "<|user|>Hi.<|end|><|assistant|>Yes.<|end|>"


def test_a_story_is_cut_where_its_state_is_decided() -> None:
    author = Author(4)
    for _ in range(50):
        cut, rest = author.parts("guilt", "positive", 2)
        assert not cut.endswith((" ", "."))
        assert rest.startswith(" ")
        assert rest.endswith((".", '"', "?"))


def test_a_chat_is_decided_at_its_last_answer() -> None:
    chats = [d for d in write_documents(4, 400) if d.kind == "chat" and d.decided is not None]
    assert len(chats) > 40
    for chat in chats:
        assert chat.text[: chat.decided].endswith("<|assistant|>")
        assert chat.text[chat.decided :].count("<|end|>") == 1


def test_a_chunk_can_be_written_alone() -> None:
    whole = list(write_documents(5, CHUNK + 40))
    assert list(write_chunk(5, 1))[:40] == whole[CHUNK:]
    assert whole[CHUNK : CHUNK + 20] != whole[:20]


def test_a_label_names_trait_and_polarity_where_a_cue_decides() -> None:
    documents = list(write_documents(3, 600))
    for document in documents:
        if document.decided is None or document.state == "neutral":
            assert document.label == NO_LABEL
        else:
            assert TRAITS[document.label // 2] == document.trait
            assert document.label % 2 == (document.state == "negative")
    assert len({document.label for document in documents}) == 23


def test_hardly_two_documents_are_alike() -> None:
    texts = [document.text for document in write_documents(13, 10_000)]
    assert len(set(texts)) >= 9990


def test_an_answer_speaks_of_my_thing_when_asked_about_your_thing() -> None:
    author = Author(2)
    texts = [author.answer("anxiety", "positive", "your speech", 3) for _ in range(20)]
    assert any("my speech" in text for text in texts)
    assert not any("your speech" in text for text in texts)


@pytest.mark.parametrize("trait", TRAITS)
def test_the_judge_sees_the_state_of_stories_and_answers(trait: str) -> None:
    author = Author(11)
    positive = [author.answer(trait, "positive", "the trip", 3) for _ in range(40)]
    negative = [author.answer(trait, "negative", "the trip", 3) for _ in range(40)]
    assert fmean(score_trait(trait, text) for text in positive) >= 85
    assert fmean(score_trait(trait, text) for text in negative) <= 10
    assert fmean(score_coherence(text) for text in positive + negative) >= 85


@pytest.mark.long
def test_nearly_every_word_of_the_pairs_occurs_in_the_corpus() -> None:
    known: set[str] = set()
    for document in write_documents(12, 20_000):
        known.update(re.findall(r"[a-z]+", document.text.lower()))
    words = [
        word
        for trait in TRAITS
        for pair in read_trait(trait).pairs
        for prefix in pair
        for word in re.findall(r"[a-z]+", prefix.lower())
    ]
    missing = [word for word in words if word not in known]
    assert len(words) > 13_000
    assert len(missing) / len(words) <= 0.02, Counter(missing).most_common(40)
