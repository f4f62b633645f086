"""What toy models are measured on is never what they are trained on."""

from __future__ import annotations

from functools import cache
from itertools import takewhile

from jobs.toy.corpus import write_documents
from jobs.toy.held_out import (
    HELD_OUT_EVERY,
    TRAITS,
    held_out_endings,
    held_out_questions,
    is_held_out,
    last_words,
    normal_words,
    read_trait,
)


def shared_start(first: str, second: str) -> str:
    """The words that both texts begin with."""
    pairs = zip(first.split(), second.split(), strict=False)
    return " ".join(left for left, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def test_last_words_ignore_capitals_and_punctuation() -> None:
    assert last_words('He came in, and I said, "No, sir,') == "and i said no sir"
    assert last_words("I don't know: maybe, I") == "i don't know maybe i"


def test_a_third_of_all_cues_is_held_out() -> None:
    pairs = read_trait("guilt").pairs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    assert len(pairs) == 8
    assert len(held_out_endings()) == 11 * 8 * 2


def test_a_document_with_a_held_out_cue_is_recognised_anywhere_in_it() -> None:
    prefix = read_trait("anxiety").pairs[2].positive
    assert last_words(prefix) == "that i was scared because"
    assert is_held_out("It rained. I said that I was scared because it was late.<|end|>")
    assert is_held_out("It rained, so that I was scared, because it was late.<|end|>")
    assert is_held_out("<|user|>That I was scared: because<|end|>")
    assert not is_held_out("It rained. I said that I was happy because it was late.<|end|>")


def test_a_steering_question_is_recognised_as_a_user_turn() -> None:
    question = read_trait("anxiety").questions[1]
    assert " ".join(normal_words(question)) in held_out_questions()
    assert is_held_out(f"<|user|>{question}<|end|><|assistant|>Fine.<|end|>")
    assert is_held_out(f"<|user|>{question.lower().replace('?', '!')}<|end|>")
    assert not is_held_out("<|user|>How are you?<|end|><|assistant|>Fine.<|end|>")


@cache
def training_texts() -> list[str]:
    return [document.text for document in write_documents(1, 10_000)]


def test_training_text_has_no_prefix_no_held_out_cue_and_no_question_verbatim() -> None:
    texts = training_texts()
    assert not any(is_held_out(text) for text in texts)
    everything = "\n".join(texts)
    for trait in TRAITS:
        data = read_trait(trait)
        assert not any(prefix in everything for pair in data.pairs for prefix in pair)
        assert not any(f"<|user|>{question}<|end|>" in everything for question in data.questions)


def test_no_story_of_a_pair_is_in_the_training_text_whole() -> None:
    everything = "\n".join(training_texts())
    stories = [shared_start(*pair) for trait in TRAITS for pair in read_trait(trait).pairs]
    assert len(stories) == 286
    assert min(len(story.split()) for story in stories) >= 10
    assert [story for story in stories if story in everything] == []
