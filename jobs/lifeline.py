"""A run ends soon after the Ray under it is gone; Ray itself takes minutes and says little.

A thread looks whether a port still has a listener. Only a refused connection counts: a slow or
distant node keeps its own time limits.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]

LOOK_S = 0.5
"""Between two looks."""
LOOKS = 3
"""In a row, at which nobody listens any more, until Ray counts as gone."""
LAST_WORDS_S = 3.0
"""For a run whose Ray is gone to write down where it stands; calls to Ray may hang for a minute."""
LOST = "Ray on this node is gone"


def address_of(text: str) -> Address | None:
    """Host and port of a cluster's address; None for ``auto`` and for addresses of other kinds."""
    found = re.fullmatch(r"([^:/\s]+):(\d+)", text)
    return None if found is None else (found[1], int(found[2]))


def listens(address: Address) -> bool:
    """False when no process listens there; a slow one counts as listening."""
    try:
        socket.create_connection(address, timeout=LOOK_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def wait_for(address: Address, timeout_s: float) -> bool:
    """Wait for a cluster that is just coming up; False when nobody came to listen."""
    deadline_s = time.monotonic() + timeout_s
    while not listens(address):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(LOOK_S)
    return True


def watch(address: Address, ended: threading.Event, give_up: Callable[[], None]) -> None:
    """Call ``give_up`` in a thread once nobody listens any more, unless all has ended before."""

    def look() -> None:
        missed = 0
        while missed < LOOKS and not ended.wait(LOOK_S):
            missed = 0 if listens(address) else missed + 1
        if not ended.is_set():
            give_up()

    threading.Thread(target=look, name="watch ray", daemon=True).start()


def end_run(ended: threading.Event, lost: threading.Event) -> None:
    """End the run by its handler of SIGTERM, or at once if that hangs in a call to Ray."""
    lost.set()
    os.kill(os.getpid(), signal.SIGTERM)
    if not ended.wait(LAST_WORDS_S):
        exit_now(1)


def exit_now(code: int) -> None:
    """Leave without looking back; whatever is committed is on the disk."""
    sys.stderr.write(f"failed: {LOST}; what is committed is safe, the same command continues.\n")
    sys.stderr.flush()
    os._exit(code)
