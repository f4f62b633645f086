"""The short form of ``make faults``: every step of a commit, a full disk, and a small chaos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import steps
from tests.faults.chaos import run_chaos
from tests.faults.run import figure
from tests.faults.scenarios import GOOD, run_scenarios
from tests.faults.servers import CACHE, R2Local, ServerMissingError
from tests.faults.tls import self_signed


def test_a_writer_killed_at_any_step_leaves_all_or_nothing(tmp_path):
    deaths = steps.kill_at_every_step(tmp_path)
    assert deaths.num_injected > 40
    assert deaths[1:] == (0, 0, 0)


def test_a_full_disk_is_named_and_earlier_results_stay(tmp_path):
    deaths = steps.fill_the_disk(tmp_path)
    assert deaths == (6, 0, 0, 0)


def test_a_real_disk_that_is_full_is_named_and_earlier_results_stay(tmp_path):
    deaths = steps.fill_a_small_disk(tmp_path)
    if deaths.num_injected == 0:
        pytest.skip("this user may not mount a small disk of its own")
    assert deaths == (4, 0, 0, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (CACHE / "wrangler/node_modules/miniflare").exists():
        pytest.skip("Cloudflare's local R2 is not installed: `make faults` installs it")
    try:
        started = R2Local(tmp_path_factory.mktemp("r2local"))
    except ServerMissingError as reason:
        pytest.skip(str(reason))
    yield started
    started.kill()


@pytest.fixture
def good(monkeypatch):
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_each_refusal_and_each_race_has_its_one_right_outcome(server, tmp_path, good):
    out = run_scenarios(server, tmp_path)
    assert out.is_clean, figure(out)
    assert len(out.injected) == 11


@pytest.mark.slow
def test_a_small_chaos_over_tls_loses_nothing(server, tmp_path, good):
    tls, bundle = self_signed(tmp_path)
    out = run_chaos(
        server,
        tmp_path,
        num_tasks=6,
        tls=tls,
        ca_bundle=bundle,
        kill_server=False,
        deadline_s=60.0,
    )
    assert out.is_clean, figure(out)
    assert sum(out.injected.values()) >= 5


@pytest.mark.slow
def test_the_suite_for_a_real_bucket_runs_and_settles_what_this_server_does(server, good):
    """The opt-in suite is worth something only if it is known to work."""
    asked = {"R2_ENDPOINT": f"http://127.0.0.1:{server.port}{server.path}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "remote"]
    done = subprocess.run(
        [*command, "tests/integration/test_storage_r2.py"],
        env={**os.environ, **asked, "R2_BUCKET_NAME": "bucket"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (line,) = [text for text in done.stdout.splitlines() if text.startswith("settled: ")]
    settled = json.loads(line.removeprefix("settled: "))
    assert settled["winners of a race of conditional puts, at most"] == 1
    assert settled["completion of uneven parts"].startswith("40")
    assert settled["ContentMD5, wrong"].startswith("400")
    assert len(settled) == 10


def test_without_credentials_the_suite_for_a_real_bucket_skips_with_a_sentence():
    bare = {name: value for name, value in os.environ.items() if not name.startswith("R2_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
    command.append("--assert=plain")  # rewriting takes seconds, and nothing asserts
    done = subprocess.run(
        [*command, "tests/integration/test_storage_r2.py"],
        env=bare,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "a real bucket needs R2_ENDPOINT, R2_BUCKET_NAME" in done.stdout
    assert "passed" not in done.stdout
