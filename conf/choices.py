"""What may be chosen on the command line is what lies in this folder, and nothing else.

Checks ``key=value`` pairs before the configuration is composed, so that a typo is answered with
the setting or file it most likely meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from conf.describe import did_you_mean, settings
from conf.errors import UserError
from conf.schema import GROUPS, METHODS, JobConfig, ModelConfig

FOLDER = Path(__file__).parent

# Parts of a trait or prompt set, which come from files; they can be overridden but not listed.
FREE = ("traits", "prompts")
SECOND = {"extract_model": "model"}
"""Settings that hold another choice of a group."""
SEVERAL = ("trait", "layer", "coefficient", "method")
"""Settings that take one value or a list."""


class Choice(NamedTuple):
    """One ``key=value`` of the command line."""

    key: str
    values: tuple[str, ...]
    """More than one for a list or a sweep."""
    text: str
    """As typed."""


def options(group: str) -> list[str]:
    """Names of the files of one config group."""
    return sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))


def names_of(key: str) -> list[str]:
    """What a setting that is chosen by name may be called; none for numbers and texts."""
    return options(key) if key in GROUPS else sorted(METHODS) if key == "method" else []


@cache
def known_settings() -> frozenset[str]:
    """Every dotted setting and group that the command line may name."""
    leaves = {item.path for item in settings(JobConfig)}
    sections = {path.rsplit(".", 1)[0] for path in leaves if "." in path}
    second = {f"extract_model.{item.path}" for item in settings(ModelConfig)}
    return frozenset(leaves | second | sections | set(GROUPS))


@cache
def takes_list() -> frozenset[str]:
    """Every setting for which a list may be written."""
    lists = {item.path for item in settings(JobConfig) if item.type.startswith("list")}
    return frozenset(lists | set(SEVERAL))


def check(choices: Sequence[Choice], job: str) -> None:
    """Refuse a setting that does not exist or a file that is not there.

    Raises:
        UserError: One sentence with the field, the value and the way out.
    """
    for choice in choices:
        group = SECOND.get(choice.key, choice.key)
        if group in GROUPS and choice.text != f"{choice.key}=null":
            if group != "trait" and choice.text.startswith(f"{choice.key}=["):
                listed = ",".join(choice.values) or options(group)[0]
                raise UserError(
                    f"{choice.text}: one choice is meant; write {choice.key}={listed}"
                    + (", with --multirun for a point of each." if "," in listed else ".")
                )
            for value in choice.values:
                if value not in options(group):
                    raise UserError(
                        f"{choice.key}={value} is not in conf/{group}; "
                        f"{did_you_mean(value, options(group))}"
                    )
        elif choice.key not in known_settings() and choice.key.split(".")[0] not in FREE:
            raise UserError(
                f"{choice.text}: jobs.{job} has no setting {choice.key!r}; {_hint(choice.key)}"
            )


def _hint(key: str) -> str:
    names = known_settings()
    hint = did_you_mean(key, names)
    if hint.startswith("did"):
        return hint
    return f"python -m jobs.<job> --help lists all {len(names)}."
