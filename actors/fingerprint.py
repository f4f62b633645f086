"""Code and settings that change what a resident group answers change its name.

The hash covers the files that live in the ranks, the versions under them, and what they were asked
to load. Code of jobs is not in it: an edited job may use a group that is already up.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from dataclasses import asdict
from pathlib import Path

from actors.group_spec import GroupSpec
from actors.model.family import read_model_digest
from actors.request import EngineSpec

ROOT = Path(__file__).resolve().parent
IN_RANKS = ("engine", "model", "kernels")
FILES = (
    "request.py",
    "rank.py",
    "rank_report.py",
    "rendezvous.py",
    "group_spec.py",
    "shares.py",
    "residence.py",
    "merge.py",
    "supervisor.py",
)
LIBRARIES = ("ray", "torch", "transformers")
PLACEMENT = ("backend", "one_node", "engine")
"""Settings of a group that its answers may depend on; time limits and names are none of them."""


def engine_hash(root: Path = ROOT) -> str:
    """sha256 over the source that runs in the ranks and the versions of what it stands on."""
    digest = hashlib.sha256()
    files = [path for name in IN_RANKS for path in sorted((root / name).rglob("*.py"))]
    for path in [*files, *(root / name for name in FILES)]:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() if path.exists() else b"")
    for name in LIBRARIES:
        digest.update(f"{name}=={importlib.metadata.version(name)}\n".encode())
    return digest.hexdigest()


def fingerprint(spec: EngineSpec, cluster: GroupSpec) -> str:
    """12 hex digits; equal for callers who would get the same answers.

    The model counts by its content, because a submitted job finds shipped models elsewhere than
    the shell that brought the group up; by its path only where this machine cannot read it.
    """
    model = asdict(spec)
    with contextlib.suppress(OSError):
        model["model_path"] = read_model_digest(spec)
    settings = {name: getattr(cluster, name) for name in PLACEMENT}
    text = repr((sorted(model.items()), sorted(settings.items()), engine_hash()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
