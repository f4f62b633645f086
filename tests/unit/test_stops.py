"""A stop string ends a completion at the token at which decoding everything would show it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from actors.engine.stops import StopWatch

TOY = str(Path(__file__).parents[2] / "jobs/toy/models/toy_gqa/tokenizer.json")
WORDS = (
    "▁",
    "a",
    "▁a",
    "b",
    "ab",
    "▁stop",
    "st",
    "op",
    "\n",
    "▁▁▁▁",
    "é",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
)
BYTES = tuple(f"<0x{byte:02X}>" for byte in (0xE4, 0xB8, 0xAD, 0xF0, 0x9F, 0x98, 0x80, 0x61))


def sentencepiece() -> Tokenizer:
    """Llama's decoder: byte tokens joined run by run, the first space stripped."""
    vocab = {word: i for i, word in enumerate((*BYTES, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="a"))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """GPT-2's decoder: bytes of all tokens joined, broken characters replaced one by one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    some = alphabet[:8] + alphabet[100:]  # letters and bytes of longer characters
    merged = [a + b for a, b in zip(some[::3], some[1::3], strict=False)]
    tokens = (*some, *merged, "Ġstop", "ab")
    vocab = {word: i for i, word in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=some[0]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def word_pieces() -> Tokenizer:
    """BERT's decoder: pieces joined, spaces before punctuation taken away."""
    words = ("stop", "##st", "##op", ".", ",", "a", "##a", "do", "n't", "'", "b")
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="a"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


TOKENIZERS = {f.__name__: f() for f in (sentencepiece, byte_level, word_pieces)}


def first_hit(decode, stops, ids, prompt=()) -> int | None:
    """Tokens after which the watch stops, fed one by one."""
    watch = StopWatch(stops, decode)
    for count in range(1, len(ids) + 1):
        if watch.hits([*prompt, *ids[:count]], len(prompt)):
            return count
    return None


def oracle(decode, stops, ids) -> int | None:
    """Tokens after which the whole text holds a stop string."""
    for count in range(1, len(ids) + 1):
        if any(stop in decode(ids[:count]) for stop in stops):
            return count
    return None


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_the_end_is_that_of_decoding_everything_at_every_step(name, data):
    tokenizer = TOKENIZERS[name]
    top = tokenizer.get_vocab_size() - 1

    def decode(ids):
        return tokenizer.decode(list(ids), skip_special_tokens=False)

    # Runs of one token make long texts and long runs of bytes; then anything.
    draw = random.Random(data.draw(st.integers(0, 2**32)))
    ids: list[int] = []
    length = data.draw(st.sampled_from([5, 60, 250]))
    while len(ids) < length:
        ids += draw.choice(
            [
                [draw.randint(0, top)],
                [draw.randint(0, top)] * draw.randint(1, 40),
                [0, 1, 2] * draw.randint(1, 12),
                [draw.randint(0, top) for _ in range(9)],
            ]
        )
    # Stop strings that do occur late, and some that do not.
    text = decode(ids)
    late = text[len(text) * 3 // 4 :]
    first = draw.randrange(max(1, len(late)))
    stops = [late[first : first + draw.randint(1, 30)] or "x"]
    stops += draw.sample(["never here", "stop", " ", "中", "\ufffd", "😀", "a b"], 2)
    stops = stops[: draw.randint(1, 3)]
    assert first_hit(decode, stops, ids, prompt=[0] * draw.randint(0, 3)) == oracle(
        decode, stops, ids
    )


def _whole(name):
    tokenizer = TOKENIZERS[name]
    return tokenizer, lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("lead", range(6))
def test_a_window_never_begins_inside_a_character_of_a_long_run_of_byte_tokens(lead):
    """That decoder shows no character of a run that has one broken byte anywhere."""
    tokenizer, decode = _whole("sentencepiece")
    character = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "中".encode()]
    ids = [tokenizer.token_to_id("b")] * lead + character * 80 + [tokenizer.token_to_id("▁stop")]
    assert first_hit(decode, ("中 stop",), ids) == oracle(decode, ("中 stop",), ids) == len(ids)


def test_what_only_the_beginning_of_a_window_shows_is_no_hit():
    tokenizer, decode = _whole("word_pieces")
    ids = [tokenizer.token_to_id("a")] + [tokenizer.token_to_id("##op")] * 200
    assert decode(ids[-2:]) == "##opop"
    assert first_hit(decode, ("##op",), ids) is oracle(decode, ("##op",), ids) is None


def test_a_stop_string_at_the_far_end_of_a_long_text_is_seen_in_the_toy_models_own_tokenizer():
    tokenizer = Tokenizer.from_file(TOY)
    ids = tokenizer.encode("I would rather not say. " * 60 + "The end is near.").ids

    def decode(some):
        return tokenizer.decode(list(some), skip_special_tokens=False)

    for stop in ("The end", "e end is n", "near.", "say. The"):
        assert first_hit(decode, (stop,), ids) == oracle(decode, (stop,), ids)
    assert first_hit(decode, ("absent",), ids) is None


@pytest.mark.parametrize("length", [500, 4000])
def test_the_cost_of_a_token_does_not_grow_with_the_completion(length):
    decoded = 0

    def decode(ids):
        nonlocal decoded
        decoded += len(ids)
        return "".join(chr(97 + i % 20) + " " for i in ids)

    ids = random.Random(1).choices(range(1000), k=length)
    assert first_hit(decode, ("zebra", "z"), ids) is None
    assert decoded < 60 * length  # everything at every step: length / 2 each


def test_tokens_without_any_text_are_kept_until_text_comes():
    def decode(ids):
        return "".join("" if i == 0 else chr(i) for i in ids)

    ids = [*map(ord, "hello" * 30), *[0] * 200, *map(ord, "wor"), *[0] * 50, *map(ord, "ld")]
    assert first_hit(decode, ("hellowor",), ids) == len(ids) - 52
    assert first_hit(decode, ("oworld",), ids) == len(ids)
