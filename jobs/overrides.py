"""One override as a person types it becomes one that Hydra reads as it was meant.

Hydra's grammar has no square brackets in plain words, and its globs know groups of files alone.
"""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from conf.choices import names_of
from conf.errors import UserError


def readable(text: str) -> str:
    """The override, its value quoted if only that makes it readable: ``tokens=response[:5]``.

    Lists and dictionaries are left as they are, so that an unclosed one is still an error.
    """
    key, _, value = text.partition("=")
    if not value or value[0] in "[{'\"":
        return text
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return text


def expanded(text: str) -> str:
    """``trait=glob(a*)`` with the names that it means; whatever has no glob comes back as it was.

    Hydra itself expands globs over groups of files alone, and drops the points of any other.

    Raises:
        UserError: Nothing has such a name, or the setting has no names to choose among.
    """
    if "glob(" not in text:
        return text
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return text  # refused with the others, in its own words
    value = override.value()
    items = value if isinstance(value, list) else [value]
    if not any(isinstance(item, Glob) for item in items):
        return text
    key = override.key_or_group
    names = names_of(key)
    if not names:
        raise UserError(
            f"{text}: glob() chooses among names, and {key} has none; list the values, or write "
            f"{key}=range(START,STOP,STEP)."
        )
    found: list[str] = []
    for item in items:
        found += item.filter(names) if isinstance(item, Glob) else [str(item)]
    if not found:
        raise UserError(f"{text}: no name matches; {key} is one of {', '.join(names)}.")
    listed = ",".join(dict.fromkeys(found))
    return f"{text.split('=', 1)[0]}=" + (f"[{listed}]" if isinstance(value, list) else listed)
