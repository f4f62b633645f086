"""A job is sent to a cluster only after everything that can be known to fail has been looked at.

Wraps ``ray job submit``: the same entry point, the same exit codes, and time for a stopped job to
write what it has.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

from conf.errors import UserError
from conf.resolve import PROJECT
from jobs.report.console import Console
from jobs.upload import check_upload

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
STOP_WAIT_S = 60
"""Ray kills a stopped job after 3 seconds unless told otherwise; the writer needs longer."""
POLL_S = 1.0
AGENT_TIMEOUT_S = 60.0
"""For the job agent of a cluster that has just been started."""


def submit(job: str, arguments: Sequence[str], console: Console, *, address: str | None) -> int:
    """Send one job, follow its log and return its own exit code.

    Raises:
        UserError: The upload would fail, or the cluster cannot be reached.
    """
    refuse_flags(arguments)
    folder = PROJECT
    upload = check_upload(folder)
    console.note(
        f"uploading {upload.num_files} files, {upload.size_bytes / 1024**2:.1f} MiB; left out: "
        f"{', '.join(upload.left_out) or 'nothing'}"
    )
    warn_of_relative_folder(arguments, console)
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    client = connect(where)
    submission = send(client, job, arguments, folder)
    console.note(f"submitted {submission} to {where}")
    return follow(client, submission, console)


def send(client: JobSubmissionClient, job: str, arguments: Sequence[str], folder: Path) -> str:
    """Submit, and wait for a cluster that is just coming up; returns Ray's id of the job."""
    deadline = time.monotonic() + AGENT_TIMEOUT_S
    while True:
        try:
            return client.submit_job(
                entrypoint=entrypoint(job, arguments),
                runtime_env=runtime_env(folder),
                metadata={"job_name": f"traitmill {job}"},
            )
        except RuntimeError as error:
            # The head node answers before its job agent is up.
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def entrypoint(job: str, arguments: Sequence[str]) -> str:
    """The shell line that the cluster runs."""
    return shlex.join(["python", "-m", f"jobs.{job}", *arguments])


def runtime_env(folder: Path) -> dict[str, object]:
    """The project, and the few variables that a job needs from its first second."""
    return {
        "working_dir": str(folder),
        "env_vars": {
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
            "RAY_DEDUP_LOGS": "0",  # lines that differ only in numbers would be merged
            "RAY_COLOR_PREFIX": "0",  # the log is a file
        },
    }


def refuse_flags(arguments: Sequence[str]) -> None:
    """Refuse what would starve the model group.

    Raises:
        UserError: GPUs are asked for the entry point itself.
    """
    for item in arguments:
        if item.startswith("--entrypoint-num-gpus"):
            raise UserError(
                f"{item}: the driver needs no GPU, and would hold those that the model group waits "
                "for; leave it out."
            )


def warn_of_relative_folder(arguments: Sequence[str], console: Console) -> None:
    """A relative run folder would lie in the job's temporary copy of the project."""
    given = [item.split("=", 1)[1] for item in arguments if item.startswith("run_dir=")]
    if not given or not given[-1].startswith(("/", "~")):
        shown = given[-1] if given else "runs/default"
        console.note(
            f"run_dir={shown} is relative: results will lie under ~/traitmill on the cluster's "
            "head node; give an absolute path on shared storage to choose."
        )


def connect(address: str) -> JobSubmissionClient:
    """The cluster's job API.

    Raises:
        UserError: Nothing answers, or it wants another token.
    """
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, RayError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"--address={address} cannot be used ({first}); start a cluster with `ray up "
            "cluster.yaml`, or open the tunnel to it, and set RAY_AUTH_TOKEN."
        ) from error


def follow(client: JobSubmissionClient, submission: str, console: Console) -> int:
    """Print the job's log as it grows; its exit code, or 1 when Ray has none."""
    shown = 0
    while True:
        status = client.get_job_status(submission)
        log = client.get_job_logs(submission)
        if len(log) > shown:
            console.note(log[shown:].rstrip("\n"))
            shown = len(log)
        if status.is_terminal():
            code = client.get_job_info(submission).driver_exit_code
            console.note(f"{submission}: {status.value.lower()}, exit code {code}")
            return 1 if code is None else int(code)
        time.sleep(POLL_S)
