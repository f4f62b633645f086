"""A submitted job as its user sees it: the dashboard's pages, and every panel of the metrics.

Needs Chromium and Debian's Prometheus, so it runs on demand: ``pytest -m packages``. With
``TRAITMILL_WATCH_DIR`` set, the pictures and what every query returned are kept there.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import submit
from tests.browser import PROGRAM, Browser
from tests.faults.servers import ServerMissingError
from tests.head import Head
from tests.integration.test_judge import Server, good_answer
from tests.prometheus import Prometheus
from tests.s3_server import moto_endpoint

pytestmark = [pytest.mark.ray, pytest.mark.packages]

DASHBOARD = Path(__file__).parents[2] / "conf" / "monitoring" / "grafana_dashboard.json"
COOKIE = "ray-authentication-token"
JOB = (
    "trait=[anxiety,guilt]",
    "layer=[1,2,3,4]",
    "coefficient=[40,80,120]",
    "method=mean_difference",
    "extraction.vetting=false",
    "steering.samples=2",
    "judge=endpoint",
    "judge.max_concurrency=4",
    "storage=r2",
)


def panels():
    """(panel, query) of the shipped dashboard."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in found for target in panel["targets"]]


def walk(head, folder):
    """What a person reads on the pages while the job runs, and pictures of them."""
    pages = {}
    with Browser() as browser:
        browser.cookie(head.dashboard, COOKIE, head.token)
        for name, has_come in (("jobs", is_running), ("actors", are_alive)):
            browser.open(f"{head.dashboard}/#/{name}")
            pages[name] = browser.wait_for_text(has_come, 30)
            browser.photograph(folder / f"{name}.png")
    return pages


def is_running(page):
    return "RUNNING" in page


def are_alive(page):
    return page.count("RankActor") == 2 and "PENDING" not in page and "ALIVE" in page


def task_names(head):
    """Names of Ray tasks as the dashboard's task table gets them."""
    body = head.get("/api/v0/tasks?limit=200")
    found = json.loads(body)["data"]["result"]["result"] if body else []
    return {one["name"] for one in found}


@pytest.fixture(scope="module")
def watched(tmp_path_factory, repo_root):
    """One job watched from its start to its end."""
    if not PROGRAM:
        pytest.skip("no Chromium here: apt-get install chromium")
    kept = os.environ.get("TRAITMILL_WATCH_DIR")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("watched")
    folder.mkdir(parents=True, exist_ok=True)
    judge = Server()
    judge.script = ["pause"]
    threading.Thread(target=judge.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch, moto_endpoint() as endpoint:
        patch.setenv("R2_ENDPOINT", endpoint)
        patch.setenv("R2_BUCKET_NAME", "bucket")
        patch.setenv("R2_ACCESS_KEY_ID", "testkey")
        patch.setenv("R2_SECRET_ACCESS_KEY", "testsecret")
        patch.setenv("TRAITMILL_JUDGE_API_KEY", "sk-test")
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with Head() as head:
            try:
                prometheus = Prometheus(head.folder, tmp_path_factory.mktemp("prometheus"))
            except ServerMissingError as error:
                pytest.skip(str(error))
            with prometheus:
                yield watch(head, prometheus, judge, folder, repo_root)
    judge.shutdown()


def watch(head, prometheus, judge, folder, repo_root):
    assert good_answer()["usage"]["prompt_tokens"] == 1000  # so that judging costs something
    client = submit.connect(head.dashboard)
    run_dir = head.folder / "run"
    arguments = [*JOB, f"judge.url={judge.url}", f"run_dir={run_dir}"]
    job = submit.send(client, "steer", arguments, repo_root)
    deadline = time.monotonic() + 480
    while "traitmill/toy_mla/rank1" not in str(head.get("/logical/actors")):
        assert not client.get_job_status(job).is_terminal(), client.get_job_logs(job)
        assert time.monotonic() < deadline
        time.sleep(0.5)
    pages = walk(head, folder)
    answers: dict[tuple[str, str], list] = {}
    names: set[str] = set()
    while True:
        is_over = client.get_job_status(job).is_terminal()
        for key in panels():
            answers[key] = prometheus.query(key[1]) or answers.get(key, [])
        names |= task_names(head)
        if is_over or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    rows = [
        {"panel": title, "query": query, "series": len(series), "first": series[:1]}
        for (title, query), series in answers.items()
    ]
    (folder / "queries.json").write_text(json.dumps(rows, indent=1) + "\n")
    return SimpleNamespace(
        pages=pages,
        answers=answers,
        names=names,
        log=client.get_job_logs(job),
        status=client.get_job_status(job).value,
    )


def test_the_watched_job_succeeds(watched):
    assert watched.status == "SUCCEEDED", watched.log


def test_the_jobs_page_names_the_job_and_its_command(watched):
    page = watched.pages["jobs"]
    assert "traitmill steer" in page
    assert "python -m jobs.steer" in page
    assert "RUNNING" in page


def test_the_actors_page_names_every_rank(watched):
    page = watched.pages["actors"]
    for rank in (0, 1):
        assert f"traitmill/toy_mla/rank{rank}" in page
    assert "RankActor" in page
    assert "ALIVE" in page


def test_tasks_have_names_that_a_person_reads(watched):
    runs = {name for name in watched.names if name.startswith("run ")}
    assert {"run steering-b0003 rank 0", "run steering-b0003 rank 1"} & runs
    assert any(name.startswith("run responses-b") for name in runs)


@pytest.mark.parametrize(("panel", "query"), panels())
def test_a_real_prometheus_answers_the_query_of_every_panel(watched, panel, query):
    series = watched.answers[panel, query]
    assert series, f"{panel}: {query}"
    assert all(float(one["value"][1]) == float(one["value"][1]) for one in series)  # not NaN


def test_the_groups_time_is_booked_to_what_it_went_to(watched):
    (uses,) = [series for (_, query), series in watched.answers.items() if "group_seconds" in query]
    assert {"busy", "judge"} <= {one["metric"]["use"] for one in uses}
    assert "the groups' time: " in watched.log


def test_the_job_log_tells_progress_and_time_left(watched):
    assert "tasks committed, " in watched.log
    assert " left; now " in watched.log
