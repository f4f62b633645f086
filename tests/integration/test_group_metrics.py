"""What a running group counts can be scraped, under the names that the dashboard asks for."""

from __future__ import annotations

import re
import socket
import time
import urllib.request

import pytest
import ray

from actors.group import ModelGroup
from actors.group_spec import GroupSpec
from actors.judges.query import JudgeScore
from actors.metrics import METER, METRICS
from actors.request import Bundle, EngineSpec, Request, Sampling

pytestmark = pytest.mark.ray

SILENT = {"ray_traitmill_failures_total", "ray_traitmill_non_finite_values_total"}
"""Counters of things that did not happen have no series; their panels show 0."""


@pytest.fixture
def metrics_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},  # 10 s, else
    )
    yield port
    ray.shutdown()


def scrape(port):
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.read().decode()
    except OSError:
        return ""


def test_every_metric_of_a_running_group_can_be_scraped(metrics_port):
    spec = EngineSpec(model_path="/nowhere", tensor_parallel_size=1)
    cluster = GroupSpec(name="scraped", engine="tests.fakes:FakeEngine.load")
    request = Request(id="r", token_ids=(1, 2, 3), sampling=Sampling(max_new_tokens=8))
    METER.note_scores("lexicon", [JudgeScore(id="a", score=1.0, cost_usd=0.5, latency_s=0.2)])
    METER.note_tasks({"done": 1})
    METER.set("traitmill_upload_backlog_bytes", 5)
    METER.add("traitmill_engine_seconds", 1.5, group="scraped", phase="decode")
    METER.add("traitmill_group_seconds", 1.5, group="scraped", use="busy")
    METER.add("traitmill_tokens", 3, group="scraped", phase="prefill")
    wanted = {one.exported for one in METRICS} - SILENT
    with ModelGroup.start(spec, cluster) as group:
        deadline = time.monotonic() + 40
        found: set[str] = set()
        while not wanted <= found and time.monotonic() < deadline:
            group.run(Bundle(id="b", requests=(request,)))
            text = scrape(metrics_port)
            found = {
                re.sub("_(bucket|sum|count)$", "", one)
                for one in re.findall(r"^(ray_traitmill_\w+)\{", text, re.MULTILINE)
            }
            time.sleep(0.5)
    assert wanted - found == set()
    assert re.search(r'ray_traitmill_tokens_total\{[^}]*phase="decode"[^}]*\} [1-9]', text)
