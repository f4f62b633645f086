"""One Ceph with its S3 gateway on this machine, from Debian's packages: the cross-check.

Monitor, manager, one store on a sparse file and the gateway, all on loopback, all killed with -9
and started again on the same state. Needs root, because Debian's packages do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import boto3
import botocore.exceptions

from tests.faults.servers import ServerMissingError, free_port, wait_for_port

PACKAGES = ("radosgw", "ceph-mon", "ceph-mgr", "ceph-osd")
PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "monmaptool", "radosgw-admin", "ceph")
MON_PORT = 6789
"""Ceph speaks its first protocol on this port alone; the second asks for keys that nobody has."""

STORE_BYTES = 12 * 1024**3

_CONFIG = """
[global]
fsid = {fsid}
mon host = 127.0.0.1:{mon_port}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon warn on pool no redundancy = false
run dir = {home}/run
admin socket = {home}/run/$name.asok
pid file = {home}/run/$name.pid
log file = {home}/log/$name.log
crash dir = {home}/log
mon data = {home}/mon.a
osd data = {home}/osd.0
mgr data = {home}/mgr.x
osd objectstore = bluestore
bluestore block size = {store_bytes}
bluestore block create = true
osd memory target = 1073741824
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
rgw gc obj min wait = 5
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {home}/rgw
"""


def ensure_ceph() -> None:
    """Install Ceph when this is root on Debian.

    Raises:
        ServerMissingError: It is not installed and cannot be.
    """
    if all(shutil.which(program) for program in PROGRAMS):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServerMissingError("Ceph is not installed, and installing it needs root on Debian")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
            check=True,
            timeout=900,
            env=quiet,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise ServerMissingError(f"Ceph could not be installed: {error}") from error


def ceph_version() -> str | None:
    """What ``radosgw --version`` says; None where it is not installed."""
    if shutil.which("radosgw") is None:
        return None
    asked = subprocess.run(["radosgw", "--version"], capture_output=True, text=True, check=False)
    return asked.stdout.strip().split("(")[0].strip()


class Ceph:
    """One-node Ceph with the bucket ``bucket`` and the test credentials."""

    name = "ceph"
    path = ""
    wants_equal_parts = False

    def __init__(self, home: Path) -> None:
        ensure_ceph()
        self._home = home
        self.port = free_port()
        for folder in ("mon.a", "osd.0", "mgr.x", "rgw", "run", "log"):
            (home / folder).mkdir(parents=True)
        self._config = home / "ceph.conf"
        fsid = str(uuid.uuid4())
        mon_port = MON_PORT
        self._config.write_text(
            _CONFIG.format(
                fsid=fsid, mon_port=mon_port, port=self.port, home=home, store_bytes=STORE_BYTES
            )
        )
        try:
            self._set_up(fsid, mon_port)
        except (subprocess.SubprocessError, OSError) as error:
            self.kill()
            raise ServerMissingError(
                f"Ceph did not come up: {error}; {self._last_words()}"
            ) from error

    def _set_up(self, fsid: str, mon_port: int) -> None:
        monmap = str(self._home / "monmap")
        address = f"127.0.0.1:{mon_port}"
        self._call("monmaptool", "--create", "--add", "a", address, "--fsid", fsid, monmap)
        self._ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._ceph("ceph-mon", "-i", "a", "--public-addr", address)
        self._mon_address = address
        self._ceph("ceph-mgr", "-i", "x")
        disk = str(uuid.uuid4())
        self._ceph("ceph", "osd", "new", disk, "0")
        self._ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._start_store()
        self._ceph("radosgw", "-n", "client.rgw")
        wait_for_port(self.port)
        self._ceph(
            "radosgw-admin",
            "user",
            "create",
            "--uid=t",
            "--display-name=t",
            "--access-key=testkey",
            "--secret=testsecret",
        )
        self._make_bucket()

    def _make_bucket(self) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="testkey",
            aws_secret_access_key="testsecret",
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="bucket")
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
                if time.monotonic() > deadline:
                    raise ServerMissingError("Ceph's gateway takes no bucket") from None
                time.sleep(1)
            else:
                return

    def _last_words(self) -> str:
        """The newest line of what the programs wrote, for the sentence that says why not."""
        logs = sorted((self._home / "log").iterdir(), key=lambda path: path.stat().st_mtime)
        lines = logs[-1].read_text(errors="replace").splitlines() if logs else []
        return lines[-1][:300] if lines else "no log"

    def start(self) -> None:
        """Start the four processes again on the same state."""
        self._ceph("ceph-mon", "-i", "a", "--public-addr", self._mon_address)
        self._ceph("ceph-mgr", "-i", "x")
        self._start_store()
        self._ceph("radosgw", "-n", "client.rgw")
        wait_for_port(self.port)

    def _start_store(self) -> None:
        """Start the store; one that asks its monitor too early hears "wrong fsid" and ends."""
        for tries_left in reversed(range(10)):
            try:
                self._ceph("ceph-osd", "-i", "0")
            except subprocess.CalledProcessError:
                if not tries_left:
                    raise
                time.sleep(0.5)
            else:
                return

    def kill(self) -> None:
        """kill -9, gateway first; returns when all are gone: a store has one owner at a time."""
        killed = []
        for name in ("client.rgw", "osd.0", "mgr.x", "mon.a"):
            path = self._home / "run" / f"{name}.pid"
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                number = int(path.read_text())
                os.kill(number, signal.SIGKILL)
                killed.append(number)
                path.unlink()
        deadline = time.monotonic() + 30
        while any(_is_alive(number) for number in killed):
            if time.monotonic() > deadline:
                raise TimeoutError(f"killed processes are still there: {killed}")
            time.sleep(0.05)

    def _ceph(self, program: str, *arguments: str) -> None:
        self._call(program, "--conf", str(self._config), *arguments)

    def _call(self, *command: str) -> None:
        with (self._home / "log/commands").open("ab") as log:
            subprocess.run(command, check=True, timeout=90, stdout=log, stderr=log)


def _is_alive(number: int) -> bool:
    """True while a process may still hold files: one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
