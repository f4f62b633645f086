"""Debian's own Prometheus for tests: fetched once, unpacked without root, gone at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.faults.servers import CACHE, ServerMissingError, free_port, wait_for_port

CONFIG = Path(__file__).parents[1] / "conf" / "monitoring" / "prometheus.yml"
SESSION = "/tmp/ray/"
"""Where the shipped configuration expects Ray's files."""


def ensure_prometheus() -> Path:
    """The program: installed, or from Debian's package unpacked into the cache.

    Raises:
        ServerMissingError: It is not there and cannot be fetched.
    """
    home = CACHE / "prometheus"
    unpacked = home / "usr" / "bin" / "prometheus"
    installed = shutil.which("prometheus")
    if installed or unpacked.exists():
        return Path(installed or unpacked)
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise ServerMissingError("Prometheus is not installed, and this is no Debian to fetch it")
    home.mkdir(parents=True, exist_ok=True)
    try:
        fetch = ["apt-get", "download", "-qq", "prometheus"]
        subprocess.run(fetch, cwd=home, check=True, timeout=120, capture_output=True)
        package = next(home.glob("prometheus_*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(home)], check=True, timeout=120)
    except (subprocess.SubprocessError, OSError, StopIteration) as error:
        raise ServerMissingError(f"Debian's prometheus could not be fetched: {error}") from error
    return unpacked


class Prometheus:
    """A server with the shipped configuration, pointed at one Ray session, looking every second."""

    def __init__(self, session: Path, state: Path) -> None:
        program = ensure_prometheus()
        config = yaml.safe_load(CONFIG.read_text().replace(SESSION, f"{session}/"))
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        for scrape in config["scrape_configs"]:
            scrape["file_sd_configs"][0]["refresh_interval"] = "1s"
        state.mkdir(parents=True, exist_ok=True)
        (state / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        with (state / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(program), f"--config.file={state}/prometheus.yml"),
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    f"--storage.tsdb.path={state}/data",
                ],
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Prometheus:
        wait_for_port(self.port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series that an expression gives now, with their labels and value."""
        text = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{text}"
        with urllib.request.urlopen(url, timeout=5) as reply:
            return list(json.load(reply)["data"]["result"])
