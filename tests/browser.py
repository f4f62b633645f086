"""A headless Chromium, steered over its own protocol: open a page, read it, photograph it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), "")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
    "--window-size=1500,1100",
)
PORT_FILE = "DevToolsActivePort"
DEADLINE_S = 60.0


class Browser:
    """One page of one browser with a fresh profile, gone at the end."""

    def __init__(self) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="tmb"))
        self._process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._loop.run_until_complete(self._connect())

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def cookie(self, url: str, name: str, value: str) -> None:
        """Set a cookie, as a page's log-in would."""
        self._call("Network.setCookie", url=url, name=name, value=value, httpOnly=True)

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("Page.navigate", url=url)

    def text(self) -> str:
        """What a person reads on the page."""
        found = self._call("Runtime.evaluate", expression="document.body.innerText")
        return str(found["result"].get("value", ""))

    def wait_for_text(self, is_there: Callable[[str], bool], timeout_s: float = DEADLINE_S) -> str:
        """The page's text once it says what is expected, or when time is up."""
        deadline = time.monotonic() + timeout_s
        text = self.text()
        while not is_there(text) and time.monotonic() < deadline:
            time.sleep(0.3)
            text = self.text()
        return text

    def photograph(self, path: Path) -> None:
        """Save the page as PNG."""
        shot = self._call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        return self._loop.run_until_complete(self._ask(method, parameters))

    async def _ask(self, method: str, parameters: dict[str, object]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._page.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._page.receive_json(timeout=DEADLINE_S)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    async def _connect(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not (self._profile / PORT_FILE).exists():
            assert time.monotonic() < deadline, "Chromium did not come up"
            await asyncio.sleep(0.1)
        port = (self._profile / PORT_FILE).read_text().split()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as reply:
            pages = await reply.json()
        address = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
        self._page = await self._session.ws_connect(address, max_msg_size=0)
