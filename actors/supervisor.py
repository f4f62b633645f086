"""A group that outlives its job: one detached actor per model and engine, found by its name.

The supervisor owns the ranks and the placement group, so ending it ends them. Its methods are few,
take plain dictionaries and never change without ``PROTOCOL``: a caller compares protocol and
fingerprint before anything else, so new code never talks to an old engine unnoticed.
"""

from __future__ import annotations

import pickle
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from actors.errors import EngineOutOfDate, GroupClosed, GroupError, GroupStartFailed
from actors.fingerprint import engine_hash, fingerprint
from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.request import Bundle, EngineSpec
from actors.residence import Residence, ResidenceSpec
from actors.resident import Call, ResidentGroup

PROTOCOL = 3
"""Of the supervisor's methods and dictionaries."""
NAMESPACE = "traitmill"
PREFIX = "traitmill/resident/"
NUM_THREADS = 64
"""Callers that may wait at one supervisor at once."""
LEAVE_S = 1.0
"""Callers have so long to fetch the outcomes of a group that ended."""
CLOSE_TIMEOUT_S = 5.0
"""For a group to end in good order."""
CALL_TIMEOUT_S = 60.0
"""For an answer of the supervisor itself; its group may be busy, it never is."""


class Supervisor:
    """The detached actor. All arguments and results are plain dictionaries."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self._spec: EngineSpec = pickle.loads(payload["spec"])
        self._cluster: GroupSpec = pickle.loads(payload["cluster"])
        self._fingerprint: str = payload["fingerprint"]
        self._engine: str = payload["engine"]
        self._started_s = time.time()
        self._residence = Residence(self._start, pickle.loads(payload["residence"]))
        threading.Thread(target=self._serve, name="serve", daemon=True).start()

    def __repr__(self) -> str:
        return f"{PREFIX}{self._cluster.name}"

    def info(self) -> dict[str, Any]:
        """Who this is and where everything stands."""
        return {
            "protocol": PROTOCOL,
            "fingerprint": self._fingerprint,
            "name": self._cluster.name,
            "ranks": self._spec.tensor_parallel_size,
            "model_path": self._spec.model_path,
            "up_s": time.time() - self._started_s,
            **self._residence.describe(),
        }

    def submit(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Queue a bundle of a job."""
        bundle: Bundle = pickle.loads(payload["bundle"])
        ticket = self._residence.submit(
            payload["job"], bundle, priority=payload["priority"], run=payload["run"]
        )
        return {"ticket": ticket}

    def result(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Outcomes of those tickets that are done, waiting a little for the first."""
        done = self._residence.poll(
            payload["job"], payload["tickets"], timeout_s=payload["timeout_s"]
        )
        return {"done": {ticket: pickle.dumps(one) for ticket, one in done.items()}}

    def cancel(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Forget a job."""
        return {"num_dropped": self._residence.cancel(payload["job"])}

    def close(self) -> dict[str, Any]:
        """End the group, and this actor with it."""
        self._residence.stop()
        return {}

    def _start(self, generation: int) -> ModelGroup:
        """Start the group's n-th generation.

        Raises:
            EngineOutOfDate: The code on disk is no longer the code that this group is named for.
        """
        found = engine_hash()  # a new rank would import what is there now
        if found != self._engine:
            raise EngineOutOfDate(
                doing="start again",
                cause="the code on disk changed; run `traitmill group down`, then `up`",
                expected=found[:12],
                found=self._engine[:12],
            )
        return ModelGroup.start(self._spec, self._cluster, generation=generation)

    def _serve(self) -> None:
        """Serve to the end, leave callers a moment to fetch their last outcomes, and go."""
        self._residence.serve()
        time.sleep(LEAVE_S)
        ray.kill(ray.get_runtime_context().current_actor)


def ensure(
    spec: EngineSpec,
    cluster: GroupSpec,
    residence: ResidenceSpec | None = None,
    *,
    priority: int = 0,
    label: str = "job",
    run: str = "",
) -> ResidentGroup:
    """Attach to the resident group of this model and engine, starting it if there is none.

    Args:
        spec: What the ranks load.
        cluster: Where they run.
        residence: Limits of a group that has to be started; None: the usual ones.
        priority: Of the caller's bundles; higher goes first.
        label: What the queue calls the caller.
        run: Names the caller's run: its bundles never share a batch with another job's of it.

    Raises:
        EngineOutOfDate: A group of this name is up with other code or settings.
        GroupStartFailed: It did not start.
    """
    actor = find(spec, cluster) or _create(spec, cluster, residence)
    return ResidentGroup(_caller(actor), priority=priority, label=label, run=run)


def find(spec: EngineSpec, cluster: GroupSpec) -> Any | None:  # noqa: ANN401 - untyped handle
    """The supervisor of this model and engine; None when there is none.

    Raises:
        EngineOutOfDate: A group of this name is up with other code or settings.
    """
    wanted = fingerprint(spec, cluster)
    others = [one for one in residents() if one.get("name") == cluster.name]
    for one in others:
        if one["fingerprint"] != wanted or one["protocol"] != PROTOCOL:
            raise EngineOutOfDate(
                doing="attach",
                cause="run `traitmill group down` and `traitmill group up`, or use another name",
                expected=wanted,
                found=str(one["fingerprint"]),
            )
    return _get(f"{PREFIX}{cluster.name}-{wanted}")


def residents() -> list[dict[str, Any]]:
    """What every resident group of this cluster says of itself."""
    named = ray.util.list_named_actors(all_namespaces=True)
    found = []
    for one in named:
        if one["namespace"] == NAMESPACE and one["name"].startswith(PREFIX):
            actor = _get(one["name"])
            try:
                if actor is not None:
                    found.append({"actor_name": one["name"], **_info(actor)})
            except (RayError, TimeoutError):  # it is ending just now
                continue
    return found


def stop(actor_name: str) -> None:
    """End a resident group by its actor's name; its callers learn it before it goes."""
    actor = _get(actor_name)
    if actor is None:
        return
    try:
        _caller(actor)("close")
    except GroupClosed:
        return
    deadline = time.monotonic() + CLOSE_TIMEOUT_S
    while _get(actor_name) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    ray.kill(actor)  # a group that is loading or computing cannot look up


def _caller(actor: Any) -> Call:  # noqa: ANN401 - untyped handle
    """How a client calls one supervisor; a lost one is a closed group."""

    def call(method: str, *payload: dict[str, Any]) -> dict[str, Any]:
        ref = getattr(actor, method).remote(*payload)
        try:
            answer: dict[str, Any] = ray.get(ref, timeout=CALL_TIMEOUT_S)  # noqa: TID251
        except GroupError as error:
            raise GroupClosed(doing=method, cause=error.cause) from error
        except (RayActorError, TimeoutError) as error:
            cause = str(error).strip().splitlines()[0] if str(error) else "no answer"
            raise GroupClosed(doing=method, cause=f"its supervisor is gone ({cause})") from error
        return answer

    return call


def _info(actor: Any) -> dict[str, Any]:  # noqa: ANN401 - untyped handle
    """What one supervisor says of itself."""
    info: dict[str, Any] = ray.get(actor.info.remote(), timeout=CALL_TIMEOUT_S)  # noqa: TID251
    return info


def _get(name: str) -> Any | None:  # noqa: ANN401 - untyped handle
    """A supervisor by name. Never by ``get_if_exists``: that handle would have our method list."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _create(spec: EngineSpec, cluster: GroupSpec, residence: ResidenceSpec | None) -> Any:  # noqa: ANN401
    """Create the supervisor, or find the one that another job created meanwhile."""
    mark = fingerprint(spec, cluster)
    name = f"{PREFIX}{cluster.name}-{mark}"
    limits = residence or ResidenceSpec(max_requests=spec.max_batch_requests)
    payload = {
        "spec": pickle.dumps(spec),
        "cluster": pickle.dumps(cluster),
        "residence": pickle.dumps(limits),
        "fingerprint": mark,
        "engine": engine_hash(),
    }
    actor_class: Any = ray.remote(Supervisor)
    try:
        created = actor_class.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_restarts=0,
            max_concurrency=NUM_THREADS,
        ).remote(payload)
    except ValueError:  # another job was faster
        created = None
    actor = _get(name) or created
    if actor is None:
        raise GroupStartFailed(doing="start its supervisor", cause=f"{name} ended at once")
    return actor
