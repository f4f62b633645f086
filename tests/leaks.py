"""Secrets that are planted in the environment, and a search for them in everything a run left."""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

LETTERS = string.ascii_letters + string.digits


def plant() -> dict[str, str]:
    """Keys of the shapes that AWS, R2, model servers and Hugging Face hand out, new every time."""

    def drawn(count: int, alphabet: str = LETTERS) -> str:
        return "".join(secrets.choice(alphabet) for _ in range(count))

    return {
        "AWS_ACCESS_KEY_ID": "AKIA" + drawn(16, string.ascii_uppercase + string.digits),
        "AWS_SECRET_ACCESS_KEY": drawn(30) + "/+" + drawn(8),
        "R2_ACCESS_KEY_ID": drawn(32, "0123456789abcdef"),
        "R2_SECRET_ACCESS_KEY": drawn(64, "0123456789abcdef"),
        "TRAITMILL_JUDGE_API_KEY": "sk-" + drawn(40),
        "HF_TOKEN": "hf_" + drawn(34),
    }


def spellings(secret: str) -> list[bytes]:
    """The secret as text, in an address, and in base64."""
    return [secret.encode(), quote(secret, safe="").encode(), base64.b64encode(secret.encode())]


def texts_of(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is compressed in it."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield repr(pq.read_schema(path).metadata).encode()
        yield repr(pq.read_table(path).to_pylist()).encode()


def found_in(folder: Path, planted: Mapping[str, str]) -> list[str]:
    """``file: name`` for every planted secret in a folder, sockets and links left out."""
    wanted = {name: spellings(secret) for name, secret in planted.items()}
    return [
        f"{path.relative_to(folder)}: {name}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
        for text in texts_of(path)
        for name, shapes in wanted.items()
        if any(shape in text for shape in shapes)
    ]
