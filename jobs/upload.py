"""What a submitted job would upload is listed, weighed and searched for secrets before it is sent.

Ray zips the working folder, leaves out what ``.gitignore`` and ``.rayignore`` name, and refuses
more than 100 MiB over HTTP. A file ignored by mistake is missing on the cluster without a word, and
a secret that is not ignored is sent with the rest.
"""

from __future__ import annotations

import fnmatch
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from conf.errors import UserError
from jobs.points import SECRET_NAME

LIMIT_BYTES = 100 * 1024**2
"""Of the zipped working folder, over the job API."""
ALWAYS_LEFT_OUT = (".git", ".venv", "venv", "__pycache__")
NEEDED = ("conf", "jobs", "actors", "storage")
SECRET_NAMES = ("*.env", ".env*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "*credentials*")
SECRET_TEXT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\b(?:sk|hf|ghp)[-_][A-Za-z0-9]{20,}"
)
MIN_SECRET_LENGTH = 16
"""Shorter values are words, and would be found anywhere."""
SEARCHED_BYTES = 1024**2
"""Larger files are data, not configuration."""


class Upload(NamedTuple):
    """What would be sent."""

    num_files: int
    size_bytes: int
    """Compressed, about."""
    left_out: list[str]
    """Ignored files and folders, topmost names only."""


def check_upload(folder: Path) -> Upload:
    """Look at what Ray would zip.

    Raises:
        UserError: It is too large, holds what looks like a secret, or lacks the project.
    """
    missing = [name for name in NEEDED if not (folder / name / "__init__.py").is_file()]
    if missing:
        raise UserError(
            f"{folder} has no package {missing[0]}; submit from the project's own folder."
        )
    rules, known = ignore_rules(folder), secrets_here()
    left_out: list[str] = []
    num_files, size_bytes = 0, 0
    for path in walk(folder, folder, rules, left_out):
        name = path.relative_to(folder).as_posix()
        if is_secret(path, folder, known):
            raise UserError(
                f"{name} looks like a secret and would be uploaded; name it in .rayignore, or "
                "keep it outside the project."
            )
        num_files += 1
        size_bytes += compressed_size(path)
    ignored = [name for name in NEEDED if name in left_out]
    if ignored:
        raise UserError(
            f"{ignored[0]} is named in .gitignore or .rayignore and would be missing on the "
            "cluster; the job needs it."
        )
    if size_bytes > LIMIT_BYTES:
        raise UserError(
            f"the upload is {size_bytes / 1024**2:.0f} MiB and Ray takes {LIMIT_BYTES // 1024**2}; "
            "name what the job does not need in .rayignore."
        )
    return Upload(num_files, size_bytes, left_out)


def ignore_rules(folder: Path) -> list[str]:
    """Patterns of ``.gitignore`` and ``.rayignore``, comments dropped."""
    found: list[str] = []
    for name in (".gitignore", ".rayignore"):
        path = folder / name
        if path.is_file():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            found += [line for line in lines if line and not line.startswith("#")]
    return found


def is_ignored(name: str, *, is_folder: bool, rules: Iterable[str]) -> bool:
    """True when a relative path is left out; the last rule that matches decides, as in git."""
    ignored = name.rsplit("/", 1)[-1] in ALWAYS_LEFT_OUT
    for rule in rules:
        pattern = rule.removeprefix("!")
        if pattern.endswith("/") and not is_folder:
            continue
        pattern = pattern.rstrip("/")
        anchored = "/" in pattern
        target = name if anchored else name.rsplit("/", 1)[-1]
        if fnmatch.fnmatch(target, pattern.lstrip("/")):
            ignored = not rule.startswith("!")
    return ignored


def walk(folder: Path, root: Path, rules: list[str], left_out: list[str]) -> Iterator[Path]:
    """Files that would be sent, in name order; notes what is left out."""
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        if is_ignored(name, is_folder=path.is_dir(), rules=rules):
            left_out.append(name)
        elif path.is_dir() and not path.is_symlink():
            yield from walk(path, root, rules, left_out)
        elif path.is_file():
            yield path


def secrets_here() -> list[bytes]:
    """Values of this shell's variables that are called like secrets."""
    return [
        value.encode()
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= MIN_SECRET_LENGTH
    ]


def is_secret(path: Path, folder: Path, known: Sequence[bytes] = ()) -> bool:
    """True for names that keys have, for text in the shape of a key, and for a key of this shell.

    Args:
        path: A file.
        folder: The project; its tests may hold text that looks like a key.
        known: What must not be in any file.
    """
    if any(fnmatch.fnmatch(path.name, pattern) for pattern in SECRET_NAMES):
        return path.suffix not in (".py", ".md", ".yaml")
    if path.stat().st_size > SEARCHED_BYTES:
        return False
    body = path.read_bytes()
    if any(secret in body for secret in known):
        return True
    is_test = "tests" in path.relative_to(folder).parts
    return not is_test and SECRET_TEXT.search(body) is not None


def compressed_size(path: Path) -> int:
    """About what the file takes in a zip."""
    body = path.read_bytes()
    return len(zlib.compress(body, 1)) if len(body) < 8 * SEARCHED_BYTES else len(body)
