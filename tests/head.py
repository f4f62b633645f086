"""A Ray head node for tests: on the loopback address, with a token, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

START_DEADLINE_S = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Head:
    """One node with dashboard, job API and metrics, gone with all its processes at the end."""

    def __init__(self) -> None:
        self.token = os.environ["RAY_AUTH_TOKEN"]  # Ray reads it once per process
        self.port, self.dashboard_port, self.metrics_port = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"
        # Ray puts sockets there, and their paths may have 107 characters only.
        self.folder = Path("/tmp") / f"tm{secrets.token_hex(3)}"
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_API_SERVER_ADDRESS": self.dashboard,
        }
        environment.pop("RAY_ADDRESS", None)
        self.environment = environment
        """For commands that use the job API; those that join need RAY_ADDRESS too."""

    def __enter__(self) -> Head:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--node-ip-address=127.0.0.1", f"--port={self.port}"),
                f"--dashboard-port={self.dashboard_port}",
                f"--metrics-export-port={self.metrics_port}",
                f"--dashboard-agent-listen-port={free_port()}",  # one number for all heads, else
                *("--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={self.folder}"),
                "--disable-usage-stats",
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_DEADLINE_S
        while self.get("/api/version") is None:
            assert time.monotonic() < deadline, "the head node did not come up"
            time.sleep(0.2)
        return self

    @property
    def pid(self) -> int:
        """The process that all others of this node descend from."""
        return self._process.pid

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # `ray start --block` ignores SIGTERM, so everything under it is ended by its number.
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path: str) -> bytes | None:
        """A page of the dashboard's server; None when it does not answer with 200."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.dashboard + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=2) as reply:
                return bytes(reply.read()) if reply.status == 200 else None
        except (urllib.error.URLError, OSError):
            return None


def descendants(pid: int) -> list[int]:
    """Processes under this one, children before their own."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        texts = [(one / "children").read_text() for one in threads]
    except OSError:  # it has just ended
        return []
    children = [int(child) for text in texts for child in text.split()]
    return children + [one for child in children for one in descendants(child)]
