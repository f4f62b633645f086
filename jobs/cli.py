"""``traitmill``: the jobs, and what one needs around them, by one name.

A thin table of commands; each does its work in another module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from conf.describe import did_you_mean
from conf.errors import UserError
from conf.schema import JOBS
from jobs import entry
from jobs.report.console import Console
from storage.errors import StorageError

USAGE = """traitmill COMMAND ...

  {jobs}
      key=value ...           run a job, as python -m jobs.JOB does; --help lists the settings
  plan JOB key=value ...      show what the job would do: tasks, tokens, bytes, what is done already
  submit [--address=URL] JOB key=value ...
                              send the job to a Ray cluster and follow it
  group up|status|down key=value ...
                              keep a model loaded on the cluster of RAY_ADDRESS
  verify RUN_DIR [storage=NAME]
                              hash every committed file again, here or in the bucket
  sync RUN_DIR storage=NAME [--from-bucket]
                              bring a run's bucket up to date, or its folder
  gc RUN_DIR [storage=NAME]   delete data that no commit names, here or in a bucket at rest
  convert list|export|import|delta ...
                              find vectors; vectors and tables for other tools, and theirs for this
  doctor [key=value ...]      look at this machine, and the bucket and judge of the settings

Exit codes: 0 done, 1 something failed, 2 refused, 3 no cluster, 130 interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        console.note(USAGE.format(jobs=", ".join(JOBS)))
        return entry.ExitCode.DONE
    name, rest = arguments[0], arguments[1:]
    if name in JOBS:
        return entry.main(name, rest)
    try:
        return _command(name)(rest, console)
    except UserError as error:
        console.refuse(str(error))
        return entry.ExitCode.REFUSED
    except StorageError as error:
        console.note(f"failed: {error.message}")
        return entry.ExitCode.SOME_FAILED
    except KeyboardInterrupt:
        console.note("interrupted.")
        return entry.ExitCode.INTERRUPTED


def _command(name: str) -> Callable[[list[str], Console], int]:
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command; {did_you_mean(name, [*JOBS, *COMMANDS])}")
    return COMMANDS[name]


def _job_of(command: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The job that a command is about, and the rest."""
    if not arguments or arguments[0] not in JOBS:
        given = arguments[0] if arguments else "nothing"
        raise UserError(f"{command} {given}: name a job; use one of {', '.join(JOBS)}.")
    return arguments[0], arguments[1:]


def _plan(arguments: list[str], console: Console) -> int:
    from jobs.dry_run import show_plan

    job, rest = _job_of("plan", arguments)
    points = entry.compose(job, rest, console)
    return entry.ExitCode.DONE if points is None else show_plan(points, console)


def _submit(arguments: list[str], console: Console) -> int:
    from jobs.submit import submit

    address = None
    while arguments and arguments[0].startswith("--address"):
        address = arguments.pop(0).partition("=")[2] or (arguments.pop(0) if arguments else None)
    job, rest = _job_of("submit", arguments)
    if entry.compose(job, list(rest), console) is None:
        return entry.ExitCode.DONE
    return submit(job, rest, console, address=address)


def _group(arguments: list[str], console: Console) -> int:
    from jobs.resident import run_group_command

    if not arguments:
        raise UserError("group: say up, status or down.")
    return run_group_command(arguments[0], arguments[1:], console)


def _run_folder(command: str, arguments: list[str]) -> Path:
    folder = Path(arguments[0]) if arguments else None
    if folder is None or not (folder / "_meta" / "commits").is_dir():
        raise UserError(f"{command} {folder or ''}: give a run folder, one with _meta/commits.")
    return folder


def _verify(arguments: list[str], console: Console) -> int:
    from jobs.moves import verify_bucket
    from storage.manifest import Run

    if arguments[1:]:
        points = entry.compose("extract", arguments[1:], console)
        return verify_bucket(points[0].config.storage, console) if points else entry.ExitCode.DONE
    with Run.open(_run_folder("verify", arguments)) as run:
        report = run.verify()
        console.note(report.summary())
        return entry.ExitCode.DONE if report.is_whole else entry.ExitCode.SOME_FAILED


def _gc(arguments: list[str], console: Console) -> int:
    from jobs.moves import collect, collect_in_bucket

    if arguments[1:]:
        points = entry.compose("extract", arguments[1:], console)
        if points is None:
            return entry.ExitCode.DONE
        return collect_in_bucket(points[0].config.storage, console)
    return collect(_run_folder("gc", arguments), console)


def _sync(arguments: list[str], console: Console) -> int:
    from jobs.moves import move

    is_down = "--from-bucket" in arguments
    rest = [argument for argument in arguments if argument != "--from-bucket"]
    folder = Path(rest[0]) if is_down and rest else _run_folder("sync", rest)
    points = entry.compose("extract", rest[1:], console)
    if points is None:
        return entry.ExitCode.DONE
    return move(folder, points[0].config.storage, console, is_down=is_down)


def _convert(arguments: list[str], console: Console) -> int:
    from jobs import convert

    del console
    return convert.main(arguments)


def _doctor(arguments: list[str], console: Console) -> int:
    from jobs.doctor import examine

    points = entry.compose("generate", arguments, console)
    return examine(console, points[0].config) if points else entry.ExitCode.DONE


COMMANDS: dict[str, Callable[[list[str], Console], int]] = {
    "plan": _plan,
    "submit": _submit,
    "group": _group,
    "verify": _verify,
    "sync": _sync,
    "gc": _gc,
    "convert": _convert,
    "doctor": _doctor,
}

if __name__ == "__main__":
    raise SystemExit(main())
