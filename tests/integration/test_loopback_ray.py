"""The Ray that a job starts listens on this machine alone, and its API asks for a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

SCRIPT = '''
import json, sys, urllib.error, urllib.request
from pathlib import Path
from jobs.loopback import prepare_environment
prepare_environment()
from conf.schema import ClusterConfig
from jobs import driver
import os, ray
from tests.head import descendants

def listening(pids):
    """Addresses on which these processes listen, as the kernel tells them."""
    mine = set()
    for pid in pids:
        try:
            mine |= {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                found.add(words[1].rsplit(":", 1)[0])
    return sorted(found)

def status(url, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code

with driver.cluster(ClusterConfig(name="alone", num_cpus=1)):
    url = "http://" + ray._private.worker._global_node.webui_url
    print(json.dumps({
        "url": url,
        "listening": listening([os.getpid(), *descendants(os.getpid())]),
        "without": status(url + "/api/jobs/"),
        "wrong": status(url + "/api/jobs/", "0" * 64),
        "with": status(url + "/api/jobs/", os.environ["RAY_AUTH_TOKEN"]),
    }))
'''
LOOPBACK = {
    "0100007F",
    "00000000000000000000000001000000",
    "0000000000000000FFFF00000100007F",
}
"""127.0.0.1, ::1, and the first written as the second, as /proc/net/tcp and tcp6 spell them."""


def test_everything_listens_on_the_loopback_address_and_the_api_wants_the_token(
    repo_root, tmp_path
):
    unset = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    unset += ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",)
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=repo_root,
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["url"].startswith("http://127.0.0.1:")
    assert seen["listening"] != []
    assert set(seen["listening"]) <= LOOPBACK
    assert (seen["without"], seen["with"]) == (401, 200)
    assert seen["wrong"] in (401, 403)
