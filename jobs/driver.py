"""Ray and the model group are started only for work, and are gone however the run ends.

Without an address the job starts a Ray of its own on the loopback interface; inside
``ray job submit``, or with ``RAY_ADDRESS`` set, it joins that cluster and leaves it running.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import ray

from actors import supervisor
from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.metrics import METER
from actors.placement import how_many_fit
from actors.request import EngineSpec
from actors.residence import ResidenceSpec
from actors.resident import ResidentGroup
from conf.resolve import PROJECT, JobRequest
from conf.schema import ClusterConfig
from jobs import lifeline
from jobs.entry import ExitCode
from jobs.lane import ClusterFailed

logger = logging.getLogger(__name__)

note_tasks = METER.note_tasks
"""Tells Ray's metrics how many tasks are in each state."""
note_use = METER.note_use
"""Tells Ray's metrics what a group does from now on."""

OBJECT_STORE_BYTES = 256 * 1024**2
"""Of a Ray that the job starts itself; bundles and answers are small, rows pass through once."""
RAY_ATTEMPTS = 3
"""Tries to start a Ray of our own: on a busy machine its processes may not be up in time."""
RAY_PAUSE_S = 2.0
"""Before the second try; the third waits twice as long."""
JOIN_S = 10.0
"""For a cluster that is to be joined and is just coming up."""


class ResidentUse(NamedTuple):
    """How a job uses a group that stays loaded."""

    label: str
    """What the group's queue calls the job."""
    priority: int
    idle_timeout_s: float
    """Of the group, when the job has to start it."""
    run: str = ""
    """Names the run folder, so that a job and its dead predecessor are never mixed."""


def resident_use(request: JobRequest) -> ResidentUse | None:
    """How this point uses a resident group; None when it has a group of its own."""
    config = request.config
    if not config.cluster.resident:
        return None
    folder = str(Path(request.run_dir).absolute())
    return ResidentUse(
        label=request.job,
        priority=config.schedule.priority,
        idle_timeout_s=config.cluster.idle_timeout_s,
        run=hashlib.sha256(folder.encode()).hexdigest()[:16],
    )


class Terminated(BaseException):
    """SIGTERM arrived; unwinds through every ``finally``."""


@contextlib.contextmanager
def cluster(config: ClusterConfig) -> Iterator[None]:
    """A Ray to run on.

    Raises:
        ClusterFailed: It could not be started or joined.
    """
    _begin(config)
    ended = threading.Event()
    lost = threading.Event()
    try:
        with _terminable(lost):
            _watch_ray(ended, lost)
            yield
    finally:
        ended.set()
        ray.shutdown()


def _begin(config: ClusterConfig) -> None:
    """Join the cluster of RAY_ADDRESS, or start a Ray, again if it was not up in time.

    Raises:
        ClusterFailed: It cannot be joined, or did not start in ``RAY_ATTEMPTS`` tries.
    """
    owned = not os.environ.get("RAY_ADDRESS")
    attempts = RAY_ATTEMPTS if owned else 1
    for attempt in range(1, attempts + 1):
        try:
            _start(config) if owned else _join()
        except Exception as error:
            ray.shutdown()
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, ValueError | TypeError) or attempt == attempts:
                tries = f" after {attempt} attempts" if attempt > 1 else ""
                raise ClusterFailed(f"Ray did not start{tries}: {first}") from error
            pause_s = RAY_PAUSE_S * attempt
            logger.warning(
                "Ray did not start (attempt %d of %d): %s; trying again in %g s",
                *(attempt, attempts, first, pause_s),
            )
            time.sleep(pause_s)
        else:
            return


def _start(config: ClusterConfig) -> None:
    """A Ray of our own: loopback only, token required, no usage report.

    ``local`` says so: without it Ray would join whichever cluster was started last on this
    machine, by anybody, and then refuse our settings.
    """
    ray.init(
        address="local",
        num_cpus=config.num_cpus,
        include_dashboard=config.dashboard,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": _paths()},
        _node_ip_address="127.0.0.1",
    )


def _join() -> None:
    """The cluster that RAY_ADDRESS names; a submitted job brings its code along by itself.

    Ray would try for a quarter of an hour to reach a cluster that is gone.

    Raises:
        ConnectionError: Nobody listens at that address.
    """
    named = os.environ["RAY_ADDRESS"]
    address, arrived = lifeline.address_of(named), threading.Event()
    if address is not None:
        if not lifeline.wait_for(address, JOIN_S):
            raise ConnectionError(f"nobody listens at RAY_ADDRESS={named}")
        lifeline.watch(address, arrived, lambda: lifeline.exit_now(ExitCode.NO_CLUSTER))
    submitted = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") is not None
    try:
        ray.init(
            log_to_driver=submitted,  # what rank 0 says belongs into the job's log
            logging_level=logging.WARNING,
            runtime_env=None if submitted else {"env_vars": _paths()},
        )
    finally:
        arrived.set()


def _paths() -> dict[str, str]:
    """Ranks import the packages from where the driver did, installed or not."""
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, [known])])}


def _watch_ray(ended: threading.Event, lost: threading.Event) -> None:
    """End the run soon after this node's Ray died; Ray itself takes a minute and says little.

    No driver outlives the raylet of its node. A thread sees whether that still listens; the run
    then ends by an exception in the main thread, or at once if that hangs in a call to Ray.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    address = next(
        (one["NodeManagerAddress"], int(one["NodeManagerPort"]))
        for one in nodes
        if one["NodeID"] == here
    )
    lifeline.watch(address, ended, lambda: lifeline.end_run(ended, lost))


@contextlib.contextmanager
def _terminable(lost: threading.Event) -> Iterator[None]:
    """Turn SIGTERM into an exception. Set after ray.init, whose own handler would win otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        del number, frame
        if lost.is_set():
            raise ClusterFailed(lifeline.LOST)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def room(group: GroupSpec, num_ranks: int) -> int:
    """Groups like this that the cluster could hold at once if it were idle."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return how_many_fit(group, num_ranks, [one["Resources"] for one in nodes if one["Alive"]])


def start_group(
    spec: EngineSpec,
    group: GroupSpec,
    generation: int,
    *,
    resident: ResidentUse | None = None,
    cancelled: threading.Event | None = None,
) -> ModelGroup | ResidentGroup:
    """The n-th model group of a run, or the one that stays loaded on the cluster."""
    if resident is not None:
        limits = ResidenceSpec(
            idle_timeout_s=resident.idle_timeout_s, max_requests=spec.max_batch_requests
        )
        return supervisor.ensure(
            spec, group, limits, priority=resident.priority, label=resident.label, run=resident.run
        )
    return ModelGroup.start(spec, group, generation=generation, cancelled=cancelled)
