"""A model that stays loaded between jobs: brought up, looked at and taken down by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from actors.errors import GroupError
from conf.errors import UserError
from conf.resolve import JobRequest
from jobs import entry
from jobs.entry import ExitCode
from jobs.lane import ClusterFailed
from jobs.preflight import group_spec, read_model
from jobs.report.console import Console, duration

COMMANDS = ("up", "status", "down")
FORCE = "--force"
Resident = Mapping[str, Any]
"""What a supervisor says of itself (``actors.supervisor.Supervisor.info``)."""


def run_group_command(command: str, arguments: list[str], console: Console) -> int:
    """Do ``group up``, ``group status`` or ``group down``.

    Raises:
        UserError: No such command, no cluster to keep a group on, or a group that others use.
    """
    if command not in COMMANDS:
        raise UserError(f"group {command}: no such command; use up, status or down.")
    if not os.environ.get("RAY_ADDRESS"):
        raise UserError(
            "RAY_ADDRESS is not set: a resident group lives on a running cluster; start one with "
            "`ray start --head`, set RAY_ADDRESS=127.0.0.1:6379 and try again."
        )
    settings = [one for one in arguments if one != FORCE]
    points = entry.compose("generate", settings, console)
    if not points:
        return ExitCode.DONE
    model = points[0].model_name if any("model" in one for one in settings) else None
    from jobs import driver

    try:
        with driver.cluster(points[0].config.cluster):
            if command == "up":
                return _up(points[0], console)
            if command == "status":
                return _status(model, console)
            return _down(model, console, is_forced=FORCE in arguments)
    except (GroupError, ClusterFailed) as error:
        console.fail(str(error))
        return ExitCode.NO_CLUSTER
    except driver.Terminated:
        return ExitCode.INTERRUPTED


def _up(request: JobRequest, console: Console) -> int:
    """Load the model, or find it loaded."""
    from actors import supervisor
    from jobs.driver import ResidentUse, start_group

    model = read_model(request)
    where = f"{model.spec.tensor_parallel_size} rank(s) on {model.spec.device}"
    known = {str(one["actor_name"]) for one in supervisor.residents()}
    console.note(f"{request.model_name}: {where}, from {model.spec.model_path}")
    use = ResidentUse("group up", 0, request.config.cluster.idle_timeout_s)
    start_group(model.spec, group_spec(request), 1, resident=use)
    found = _of_model(supervisor.residents(), request.model_name)
    for one in found:
        console.note("was up already" if one["actor_name"] in known else "loaded")
        describe(one, console)
    console.note("jobs use it with cluster.resident=true; `traitmill group down` ends it")
    return ExitCode.DONE


def _status(model: str | None, console: Console) -> int:
    from actors import supervisor

    found = _of_model(supervisor.residents(), model)
    for one in found:
        describe(one, console)
    if not found:
        console.note("no resident group on this cluster")
    return ExitCode.DONE


def _down(model: str | None, console: Console, *, is_forced: bool) -> int:
    """End groups that nobody uses, or any when forced.

    Raises:
        UserError: A group is in use.
    """
    from actors import supervisor

    found = _of_model(supervisor.residents(), model)
    for one in found:
        at_work = sorted({str(entry["job"]) for entry in [*one["running"], *one["queue"]]})
        if at_work and not is_forced:
            raise UserError(
                f"group down: {one['name']} works for {', '.join(at_work)}; wait until it is idle "
                f"(`traitmill group status`), or add {FORCE}."
            )
    for one in found:
        supervisor.stop(str(one["actor_name"]))
        console.note(f"{one['name']}: down after {duration(one['up_s'])}")
    if not found:
        console.note("no resident group on this cluster")
    return ExitCode.DONE


def _of_model(found: Sequence[Resident], model: str | None) -> list[Resident]:
    return [one for one in found if model is None or one["name"] == model]


def describe(one: Resident, console: Console) -> None:
    """Print one group: who it is, how long it has been idle, and who waits for what."""
    console.note(
        f"{one['name']}: {one['state']}, up {duration(one['up_s'])}, {one['ranks']} rank(s), "
        f"fingerprint {one['fingerprint']}"
        + (f", started {one['generation']} times" if one["generation"] > 1 else "")
    )
    info = one["model"]
    if info is not None:
        console.note(
            f"  model: {info['model_type']}, {info['num_layers']} layers of "
            f"{info['hidden_size']}, {info['dtype']}, {info['weight_bytes'] / 1e9:.3f} GB of "
            f"weights per rank, {info['num_pages']:,} KV pages of {info['page_size']} tokens"
        )
    if one["error"]:
        console.note(f"  error: {one['error']}")
    console.note(f"  {_occupation(one)}")
    rows = [
        ("running", entry["job"], entry["bundle"], "-", f"for {duration(entry['for_s'])}")
        for entry in one["running"]
    ]
    rows += [
        (
            str(entry["position"] + 1),
            entry["job"],
            entry["bundle"],
            str(entry["priority"]),
            "not known yet" if entry["eta_s"] is None else f"in {duration(entry['eta_s'])}",
        )
        for entry in one["queue"]
    ]
    if rows:
        console.table("Queue", ("position", "job", "bundle", "priority", "answered"), rows)


def _occupation(one: Resident) -> str:
    """What the group does, in one line."""
    rate = one["tokens_per_s"]
    speed = "" if rate is None else f" at {rate:,.0f} tokens/s"
    if one["running"] or one["queue"]:
        return f"busy: {len(one['running'])} bundles running{speed}, {len(one['queue'])} waiting"
    if one["state"] == "starting":
        return "loading"
    left_s = max(0.0, one["idle_timeout_s"] - one["idle_s"])
    return f"idle for {duration(one['idle_s'])}; ends by itself in {duration(left_s)}"
