"""Bucket, judge, clock and cluster are each asked one small thing, and answer in seconds or not.

What is asked of a judge that is a server costs a fraction of a cent.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

from conf.errors import UserError
from conf.schema import JobConfig
from jobs.loopback import TOKEN_FILE
from storage.errors import StorageError

PATIENCE_S = 5.0
"""For each service; one that is slower is reported as silent."""
MAX_SKEW_S = 60.0
"""S3 refuses requests at 15 minutes; logs of several machines are hard to read long before."""
DEFAULT_PORT = 6379


class Finding(NamedTuple):
    """One check."""

    is_good: bool
    sentence: str


def check_bucket(config: JobConfig) -> Finding:
    """Every right that a run needs, on a key of its own that is gone afterwards."""
    storage = config.storage
    if storage.kind == "local":
        return Finding(True, f"bucket: none, storage={storage.name} keeps results on this machine")
    from jobs.stores import object_store
    from storage.preflight import preflight

    began_s = time.monotonic()
    try:
        store = object_store(storage, patience_s=PATIENCE_S)
        passed = preflight(store) if store is not None else []
    except (StorageError, UserError) as error:
        return Finding(False, f"bucket {storage.bucket}: {error}")
    took_s = time.monotonic() - began_s
    return Finding(True, f"bucket {storage.bucket}: {', '.join(passed)} work, in {took_s:.1f} s")


def check_judge(config: JobConfig) -> Finding:
    """One score; the loaded model as judge can be asked only in a run."""
    judge = config.judge
    if judge.kind == "local_model":
        return Finding(True, "judge: the loaded model itself, asked in the run")
    from actors.judge import make_judge
    from actors.judges.query import JudgeQuery
    from jobs.judges import judge_spec

    asked = JudgeQuery(
        id="doctor",
        kind="coherence",
        trait="none",
        definition="",
        rubric={},
        question="How was your day?",
        answer="It was fine, and I went for a walk in the evening.",
    )
    brief = dataclasses.replace(judge_spec(judge), timeout_s=PATIENCE_S, max_attempts=1)
    began_s = time.monotonic()
    try:
        (score,) = make_judge(brief).score([asked])
    except (UserError, OSError) as error:
        return Finding(False, f"judge {judge.name}: {error}")
    if score.score is None:
        return Finding(False, f"judge {judge.name}: no score ({score.reason})")
    took_s = time.monotonic() - began_s
    return Finding(True, f"judge {judge.name}: scored a text {score.score:.0f} in {took_s:.1f} s")


def check_clock(config: JobConfig) -> Finding:
    """This machine's clock against what a server says the time is."""
    asked = [config.storage.endpoint_url if config.storage.kind != "local" else None]
    asked.append(config.judge.url if config.judge.kind == "endpoint" else None)
    asked.append(os.environ.get("RAY_API_SERVER_ADDRESS"))
    for url in filter(None, asked):
        skew_s = _skew(url)
        if skew_s is not None:
            sentence = f"clock: {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} {url}"
            if abs(skew_s) > MAX_SKEW_S:
                return Finding(False, f"{sentence}; set it (a bucket refuses at 900 s)")
            return Finding(True, sentence)
    return Finding(True, "clock: no server is configured to compare it with")


def _skew(url: str) -> float | None:
    """Seconds that this clock is ahead of a server's ``Date``; None when it says none."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as reply:
            date = reply.headers.get("Date")
    except urllib.error.HTTPError as error:  # a refusal has a date too
        date = error.headers.get("Date")
    except (OSError, ValueError):
        return None
    return None if date is None else time.time() - parsedate_to_datetime(date).timestamp()


def check_ray(config: JobConfig) -> Finding:
    """A cluster that is reached over the network answers, and asks for a token that is here."""
    del config
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return Finding(True, "Ray: the job starts its own, on the loopback interface")
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return Finding(False, f"Ray: joins {address} without a token; set RAY_AUTH_MODE=token")
    if not _has_token():
        return Finding(False, f"Ray: {address} wants a token and none is here; set RAY_AUTH_TOKEN")
    host, _, port = address.rpartition("//")[2].partition(":")
    try:
        place = (host or "127.0.0.1", int(port or DEFAULT_PORT))
        socket.create_connection(place, timeout=PATIENCE_S).close()
    except (OSError, ValueError) as error:
        return Finding(False, f"Ray: {address} does not answer ({error}); is the head up?")
    return Finding(True, f"Ray: {address} answers, joined with a token")


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or Path(path or Path.home() / TOKEN_FILE).is_file()
