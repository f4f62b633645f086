"""The real engine, in ranks that misbehave as a folder says: faults for whole jobs.

Load it with ``GroupSpec(engine="tests.faulty:load")``. ``FOLDER_VARIABLE`` names a folder, read
by every rank; each file in it is one fault, called ``<number>-<fault>-<rank>``. Faults strike in
the order of their names, each once, in a group and a bundle that none has struck before:

``kill`` SIGKILL, ``raise`` raises, ``hang`` sleeps outside any collective, ``stop`` SIGSTOPs
itself, ``skip`` leaves one collective out, ``dies`` is killed while it loads, and ``refuses``
raises while it loads. A file ``poison`` holds the start of a request id; rank 1 dies of every
bundle with such a request, again and again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from actors.engine.engine import Engine
from actors.request import Bundle, Reply, Token
from tests.fakes import FakeOutOfMemoryError

FOLDER_VARIABLE = "TRAITMILL_TEST_FAULTS"
AT_TOKEN = 5
"""Faults in a bundle strike after so many tokens, in the middle of decoding."""
AT_LOAD = ("dies", "refuses")


class FaultyEngine:
    """Passes everything on, until a fault is due."""

    def __init__(self, engine: Engine, rank: int, folder: Path) -> None:
        self.info = engine.info
        self._engine = engine
        self._rank = rank
        self._folder = folder
        self._armed = first(folder)
        """The only fault of this group: one that is dying must not take the next one along."""

    def run(
        self,
        bundle: Bundle,
        on_token: Callable[[Token], None] | None = None,
        *,
        share_rows: bool = False,
    ) -> Reply:
        """Answer a bundle, or misbehave in the middle of it."""
        num_tokens, fault = 0, self._fault_of(bundle)

        def watched(token: Token) -> None:
            nonlocal num_tokens
            num_tokens += 1
            if fault and num_tokens == AT_TOKEN:
                misbehave(fault)
            if on_token is not None:
                on_token(token)

        return self._engine.run(bundle, watched, share_rows=share_rows)

    def _fault_of(self, bundle: Bundle) -> str:
        poison = self._folder / "poison"
        if self._rank == 1 and poison.exists():
            start = poison.read_text()
            if any(request.id.startswith(start) for request in bundle.requests):
                return "kill"
        if not self._armed or first(self._folder) != self._armed:
            return ""
        return take(self._folder, self._rank, f"struck {bundle.id}")


def load(spec: Any, *, rank: int, world_size: int, process_group: Any, decode: Any) -> FaultyEngine:
    """Make the real engine, or fail on the way."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    fault = take(folder, rank)
    if fault:
        misbehave(fault)
    engine = Engine.load(
        spec, rank=rank, world_size=world_size, process_group=process_group, decode=decode
    )
    return FaultyEngine(engine, rank, folder)


def take(folder: Path, rank: int, mark: str = "") -> str:
    """The next fault, if it is this rank's and due now; it will not be there again.

    Args:
        folder: Of the faults.
        rank: Whose.
        mark: File that shows that a bundle was struck; empty while the rank loads.
    """
    name = first(folder)
    if not name:
        return ""
    _, what, whose = name.split("-")
    if int(whose) != rank or (what in AT_LOAD) != (not mark):
        return ""
    if mark:
        try:  # before the fault is gone, or another rank would take the next for this bundle
            (folder / mark).touch(exist_ok=False)
        except FileExistsError:
            return ""
    (folder / name).unlink()
    return what


def first(folder: Path) -> str:
    """The fault that is next; empty when there is none."""
    return min((one.name for one in folder.iterdir() if one.name[0].isdigit()), default="")


def misbehave(fault: str) -> None:
    """Do what the fault says, to this process."""
    if fault in ("kill", "dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault in ("raise", "refuses"):
        raise FakeOutOfMemoryError("tried to allocate 16.0 GiB, 2.5 GiB are free")
    elif fault == "hang":
        time.sleep(600)
    elif fault == "skip":
        plain = dist.all_reduce

        def once(*_: Any, **__: Any) -> None:
            dist.all_reduce = plain

        dist.all_reduce = once
    else:
        raise ValueError(fault)
