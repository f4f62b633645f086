"""Where the trial is played: a Ray and a judge of our own, both of which can be killed whole."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.head import descendants, free_port

START_S = 90.0


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(port: int, process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + START_S
    while not listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come up")
        time.sleep(0.05)


def title(pid: int) -> str:
    """Command line; Ray writes there what a worker is."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kill(pid: int) -> bool:
    """SIGKILL; False when it was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class Stage:
    """A standing Ray, a judge server, and the environment of a job that uses both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.judge_port = free_port()
        # Ray puts sockets there, and their paths may have 107 characters only.
        self.temp_dir = Path("/tmp") / f"tmc{secrets.token_hex(3)}"
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps the node on the loopback address
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "no_proxy": "127.0.0.1",
        }
        self.environment.pop("RAY_ADDRESS", None)
        self.start_ray()
        self.start_judge()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_ray()
        self.judge.kill()
        self.judge.wait()
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def start_ray(self) -> None:
        """A head node, on the loopback address and with a token."""
        port = free_port()
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={self.temp_dir}"),
            *("--num-cpus=2", "--object-store-memory=100000000", "--include-dashboard=false"),
            "--disable-usage-stats",
        ]
        with (self.folder / "ray.log").open("ab") as log:
            self.head = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(port, self.head, "Ray")
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"

    def kill_ray(self) -> None:
        """Every process of it at once."""
        for pid in [self.head.pid, *descendants(self.head.pid)]:
            kill(pid)
        self.head.wait()
        shutil.rmtree(self.temp_dir, ignore_errors=True)

    def start_judge(self) -> None:
        """The judge server, on the port it has always had."""
        command = [sys.executable, "-m", "tests.chaos.judge_server", str(self.judge_port)]
        self.judge = subprocess.Popen(command, env=self.environment)
        wait_for(self.judge_port, self.judge, "the judge")

    def kill_judge(self, away_s: float) -> None:
        """End it, and start another one a little later."""
        self.judge.kill()
        self.judge.wait()
        time.sleep(away_s)
        self.start_judge()

    def actors(self, pattern: str) -> list[int]:
        """Worker processes by their titles: Ray writes there what a worker is, or what it does."""
        known = re.compile(rf"^ray::.*({pattern})")
        return sorted(pid for pid in descendants(self.head.pid) if known.match(title(pid)))
