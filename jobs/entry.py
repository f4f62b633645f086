"""A command line becomes a list of checked points and an exit code; nothing starts before that.

Exit codes: 0 all done, 1 some tasks failed, 2 the request was refused, 3 the cluster did not
start, 130 interrupted. Hydra composes; its own errors are turned into one sentence here.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf.choices import Choice, check, takes_list
from conf.errors import UserError
from conf.resolve import JobRequest, resolve
from conf.schema import register
from jobs import launcher
from jobs.overrides import expanded, readable
from jobs.report.console import Console


class ExitCode(enum.IntEnum):
    """What the process's exit status means."""

    DONE = 0
    SOME_FAILED = 1
    REFUSED = 2
    NO_CLUSTER = 3
    INTERRUPTED = 130


Runner = Callable[[Sequence[JobRequest], Console], int]
"""Runs all points as one plan and returns the exit code."""

# Hydra must leave no folders of its own: each point's configuration goes to run_dir/_meta/points.
# Its logging is ``none``, because ``disabled`` silences every logger that exists, ours included.
OF_HYDRA = (ValueError, OSError, AssertionError)
"""What Hydra lets through of its own flags: ``--resolve`` alone, a folder it cannot make."""
_QUIET = (
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.job.chdir=false",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra/launcher=traitmill",
)


def main(job: str, argv: Sequence[str] | None = None, *, runner: Runner | None = None) -> int:
    """Run one job from its command line.

    Args:
        job: Which root config.
        argv: Arguments after the program's name; None reads the process's own.
        runner: What runs the checked points; None is the real one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        points = compose(job, arguments, console)
        if points is None:
            return ExitCode.DONE
        if runner is None:
            from jobs.runner import run_points

            runner = run_points
        return runner(points, console)
    except UserError as error:
        console.refuse(str(error))
        return ExitCode.REFUSED
    except KeyboardInterrupt:
        console.note("interrupted; what is committed is safe, the same command continues.")
        return ExitCode.INTERRUPTED


def compose(job: str, arguments: list[str], console: Console) -> list[JobRequest] | None:
    """All points of a command line, checked; None when it only asked for information.

    Raises:
        UserError: The command line cannot be met.
    """
    flags = _parse(job, arguments)
    if flags.help:
        console.help(job)
        return None
    register()
    launcher.register()
    overrides = [expanded(placed(readable(text))) for text in flags.overrides]
    check(_choices(job, overrides, sweep=flags.multirun), job)
    _check_second(overrides)
    collected: list[tuple[DictConfig, list[str]]] = []
    launcher.deliver_to(lambda config, typed: collected.append((config, typed)))
    with _hydra_errors(job, others=OF_HYDRA):
        if _is_one_point(flags, overrides):
            collected.append((_compose_point(job, overrides), overrides))
        else:
            _run_hydra(job, _flags(arguments, flags), overrides, collected)
    if flags.cfg or flags.info or flags.hydra_help:
        return None
    return [resolve(config, typed) for config, typed in collected]


def _is_one_point(flags: argparse.Namespace, overrides: list[str]) -> bool:
    """True for one point without a word for Hydra itself."""
    given = {name for name, value in vars(flags).items() if value}
    return given <= {"overrides", "run"} and not any("hydra" in text for text in overrides)


def _compose_point(job: str, overrides: list[str]) -> DictConfig:
    """What Hydra's program composes twice: before, only to learn that one point is meant."""
    with hydra.initialize_config_module("conf", job_name=job, version_base="1.3"):
        return hydra.compose(job, overrides)


def _run_hydra(
    job: str,
    flags: list[str],
    overrides: list[str],
    collected: list[tuple[DictConfig, list[str]]],
) -> None:
    """Hydra's own program: sweeps, and whatever its flags ask for."""

    def collect(config: DictConfig) -> None:
        collected.append((config, list(overrides)))

    with tempfile.TemporaryDirectory() as scratch:
        quiet = (*_QUIET, f"hydra.sweep.dir={scratch}")
        with _argv(job, [*flags, *quiet, *overrides]):
            hydra.main(config_path="pkg://conf", config_name=job, version_base="1.3")(collect)()


def _parse(job: str, arguments: list[str]) -> argparse.Namespace:
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UserError(f"{message}; python -m jobs.{job} --help shows what can be set.")

    parser.error = refuse  # type: ignore[assignment]
    return parser.parse_intermixed_args(arguments)


def _flags(arguments: list[str], flags: argparse.Namespace) -> list[str]:
    return [item for item in arguments if item not in flags.overrides]


def placed(text: str) -> str:
    """``extract_model=NAME`` in Hydra's words: another choice of the group model, in that place."""
    is_choice = text.startswith("extract_model=") and text != "extract_model=null"
    return f"model@{text}" if is_choice else text


def _check_second(overrides: list[str]) -> None:
    """Refuse settings of a second model when none was chosen."""
    second = [text for text in overrides if text.startswith("extract_model.")]
    if second and not any(text.startswith("model@extract_model=") for text in overrides):
        raise UserError(
            f"{second[0]}: no second model was chosen; add extract_model=NAME before it."
        )


def _choices(job: str, overrides: list[str], *, sweep: bool) -> list[Choice]:
    """The overrides as keys and values; sweeps and lists give several values."""
    parser = OverridesParser.create()
    found: list[Choice] = []
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"{text}: jobs.{job} takes key=value; write it like layer=3.")
        with _hydra_errors(job, text):
            override = parser.parse_override(text)
        key = override.key_or_group
        if key.startswith("hydra") or override.is_delete():
            continue
        if override.is_sweep_override() and not sweep:
            raise UserError(_swept(key, text.split("=", 1)[1], override))
        place = "extract_model" if override.package == "extract_model" else key
        found.append(Choice(place, _values(override), text))
    return found


def _swept(key: str, value: str, override: Override) -> str:
    """Why several values without --multirun are refused, with what can be written instead."""
    if override.is_discrete_sweep() and not override.is_range_sweep() and "(" not in value:
        list_or_text = (
            f"write {key}=[{value}] for a list"
            if key in takes_list()
            else f"write \"{key}='{value}'\" for one value with a comma"
        )
        return (
            f"{key}={value}: one value or a list is meant; {list_or_text}, or add --multirun to "
            "make one point of each."
        )
    return f"{key}={value} makes several points; add --multirun, or write the values out."


def _values(override: Override) -> tuple[str, ...]:
    value = override.value()
    if isinstance(value, Sweep):
        if not override.is_discrete_sweep():
            return ()
        return tuple(item for text in override.sweep_string_iterator() for item in _items(text))
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    return (str(value),)


def _items(text: str) -> list[str]:
    """A swept value may itself be a list: ``[a,b]``."""
    return [item.strip() for item in text.strip("[]").split(",") if item.strip()]


@contextlib.contextmanager
def _argv(job: str, arguments: list[str]) -> Iterator[None]:
    """Hydra reads the process's arguments, and raises its errors only when told to."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"jobs.{job}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


@contextlib.contextmanager
def _hydra_errors(
    job: str, text: str = "", others: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what Hydra and OmegaConf say into one sentence with a way out."""
    known: tuple[type[Exception], ...] = (HydraException, OmegaConfBaseException, *others)
    try:
        yield
    except known as error:
        raise UserError(translate(job, error, text)) from error


def translate(job: str, error: Exception, text: str = "") -> str:
    """One sentence for an error of the configuration library.

    Args:
        job: Which root config.
        error: As raised while parsing or composing.
        text: The override at fault, when it is known.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    cause = error.__cause__ or error
    names = f"python -m jobs.{job} --help shows"
    empty = re.search(r"^field '(.*?)' is not Optional", str(cause))
    if empty:
        return f"{empty[1]}=null: it needs a value; leave it out to have its default."
    value = re.search(r"^Value '(.*?)' of type '.*?' could not be converted to (\w+)", str(cause))
    if value:
        path = getattr(cause, "full_key", None) or first.rsplit(" ", 1)[-1].split("=")[0]
        wanted = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        kind = wanted.get(value[2], value[2])
        return f"{path}={value[1]} has the wrong type; give {kind}."
    switch = re.search(r"^Value '(.*?)' is not a valid bool", str(cause))
    listed = "is not a ListConfig, list or tuple" in str(cause)
    worded = re.search(r"^Cannot convert '(\w+)' to string", str(cause))
    merged = re.match(r"^Error merging override (.*)$", first)
    if merged and (switch or listed or worded):
        kind = "true or false" if switch else "one name or text"
        if listed:
            key, _, given = merged[1].partition("=")
            kind = f"a list, such as {key}=[{given}]"
        return f"{merged[1]} has the wrong type; give {kind}."
    if merged:
        why = str(cause).splitlines()[0]
        return f"{merged[1]}: {why}; {names} the types."
    if text:
        return f"{text}: cannot be read ({first}); quote it, or write it like key=value."
    return f"jobs.{job}: {first.rstrip('.')}; {names} what can be set."
