"""Text becomes token ids here and only here; afterwards the ids are the only truth.

Scenario prefixes are read as raw text, so that the model continues them; questions and prompt sets
go through the model's chat template, when it has one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from conf.errors import UserError

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tiktoken.model",
)


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used."""

    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Text to ids."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Ids to text."""

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Messages to text."""


class Encoder:
    """One model's tokenizer and template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, model_path: Path, *, trust_remote_code: bool = False) -> Encoder:
        """Read the tokenizer of a model folder.

        Raises:
            UserError: There is none, or it cannot be read.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(model_path), trust_remote_code=trust_remote_code, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.path={str(model_path)!r} has no readable tokenizer "
                f"({str(error).splitlines()[0]}); add tokenizer.json and tokenizer_config.json."
            ) from error
        # Lengths are checked here with a sentence of ours; transformers would warn beside it.
        tokenizer.model_max_length = sys.maxsize
        return cls(cast("Tokenizer", tokenizer))

    def raw(self, text: str) -> tuple[int, ...]:
        """Ids of text to be continued, with the model's own beginning-of-sequence token."""
        return tuple(self._tokenizer.encode(text))

    def chat(self, text: str) -> tuple[int, ...]:
        """Ids of one user message, ready for the answer; raw text when there is no template."""
        if not self._tokenizer.chat_template:
            return self.raw(text)
        templated = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        # The template writes the beginning-of-sequence token itself where the model wants one.
        return self.plain(templated)

    def plain(self, text: str) -> tuple[int, ...]:
        """Ids of text alone, without special tokens."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def messages(self, system: str, user: str) -> tuple[int, ...]:
        """Ids of a system and a user message; templates without a system role get one message."""
        if not self._tokenizer.chat_template or "system" not in self._tokenizer.chat_template:
            return self.chat(f"{system}\n\n{user}")
        templated = self._tokenizer.apply_chat_template(
            [{"role": "system", "content": system}, {"role": "user", "content": user}],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self.plain(templated)

    def text(self, ids: Sequence[int]) -> str:
        """Readable text of a completion, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Text of each token on its own, special tokens shown."""
        return [self._tokenizer.decode([token]) for token in ids]

    def full_text(self, ids: Sequence[int]) -> str:
        """Text with special tokens, as the model read it."""
        return self._tokenizer.decode(list(ids))


def tokenizer_digest(folder: Path) -> str:
    """sha256 over the files that decide how text becomes ids: other ids are another question.

    Raises:
        UserError: The folder has none of them.
    """
    total, found = hashlib.sha256(), False
    for name in FILES:
        path = folder / name
        if path.is_file():
            found = True
            total.update(name.encode() + b"\0" + path.read_bytes())
    if not found:
        raise UserError(
            f"model.path={str(folder)!r} has no tokenizer; "
            "add tokenizer.json and tokenizer_config.json."
        )
    return total.hexdigest()
