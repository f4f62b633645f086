"""All faults against all servers that run here; the last line is the figure.

``python -m tests.faults.run`` takes minutes and injects at least 512 faults into Cloudflare's local
R2, some of them over TLS. ``--short`` is the form inside ``make test``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from tests.faults import steps
from tests.faults.bucket_steps import kill_at_every_request
from tests.faults.ceph import Ceph, ceph_version
from tests.faults.chaos import Outcome, run_chaos
from tests.faults.scenarios import GOOD, run_scenarios
from tests.faults.servers import WRANGLER, R2Local, ServerMissingError
from tests.faults.tls import self_signed

SERVERS = {"r2local": R2Local, "ceph": Ceph}
"""Cloudflare's own local R2 is the reference, Ceph's gateway the cross-check."""

TARGET = 512


def main() -> int:
    """Run, print one line a round and the figure last; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one small round")
    parser.add_argument("--target", type=int, default=TARGET, help="faults to inject at least")
    parser.add_argument("--only", choices=sorted(SERVERS), help="one server instead of all")
    parser.add_argument("--record", type=Path, help="write what was done to this JSON file, too")
    chosen = parser.parse_args()
    os.environ.update(GOOD)
    rounds: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="traitmill-faults-") as scratch:
        names = [chosen.only] if chosen.only else (["r2local"] if chosen.short else list(SERVERS))
        total = run_all(Path(scratch), names, rounds, short=chosen.short, target=chosen.target)
    for kind, count in sorted(total.injected.items()):
        _say(f"  {count:5d}  {kind}")
    if chosen.record:
        chosen.record.write_text(json.dumps(record_of(total, rounds), indent=1) + "\n")
    _say(figure(total))
    return 0 if total.is_clean else 1


def figure(total: Outcome) -> str:
    """The last line."""
    return (
        f"faults: {sum(total.injected.values())} injected, {total.num_lost} lost, "
        f"{total.num_half_visible} half-visible, {total.num_double} double commits, "
        f"{total.num_wrong_bytes} wrong bytes, {total.num_tasks} tasks"
    )


def record_of(total: Outcome, rounds: list[dict[str, object]]) -> dict[str, object]:
    """The run as a record: what was injected, round by round, and the figure."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return {
        "what": "storage faults",
        "command": " ".join(["python -m tests.faults.run", *sys.argv[1:]]),
        "commit": head.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()}), servers on this machine",
        "versions": {
            "python": platform.python_version(),
            "boto3": metadata.version("boto3"),
            "r2local": f"wrangler {WRANGLER}",
            "ceph": ceph_version(),
        },
        "ceilings": {},
        "injected": dict(sorted(total.injected.items())),
        "figure": figure(total),
        "rows": rounds,
    }


def run_all(
    scratch: Path,
    names: list[str],
    rounds: list[dict[str, object]],
    *,
    short: bool,
    target: int,
) -> Outcome:
    """Local steps, then every server; ``rounds`` gains a row for each."""
    total = Outcome()
    begun = time.monotonic()

    def add(part: Outcome, name: str) -> None:
        nonlocal begun
        total.add(part)
        seconds, begun = time.monotonic() - begun, time.monotonic()
        rounds.append({"what": name, "figure": figure(part), "seconds": round(seconds)})
        _say(f"{time.strftime('%H:%M:%S')} {name}: {figure(part)}")

    for name, deaths in (
        ("kill -9 at a step of the commit", steps.kill_at_every_step(scratch / "steps")),
        ("write refused at a byte", steps.fill_the_disk(scratch / "full")),
        ("disk full", steps.fill_a_small_disk(scratch / "small")),
    ):
        add(outcome_of(name, deaths), name)
    for name in names:
        try:
            server = start(name, scratch)
        except ServerMissingError as reason:
            _say(f"no faults against {name}: {reason}")
            continue
        try:
            _bucket_rounds(server, scratch, total, add, short=short, target=target)
        finally:
            server.kill()
    return total


def start(name: str, scratch: Path):
    """A server; one that does not come up gets a second try, on a busy machine it may time out."""
    try:
        return SERVERS[name](scratch / name)
    except ServerMissingError as reason:
        _say(f"{name}, first try: {reason}")
        return SERVERS[name](scratch / f"{name}-again")


def outcome_of(name: str, deaths: steps.Deaths) -> Outcome:
    """A round of deaths, as the sum takes it."""
    part = Outcome(num_lost=deaths.num_lost, num_half_visible=deaths.num_half_visible)
    part.injected[name] = deaths.num_injected
    part.num_wrong_bytes = deaths.num_wrong_bytes
    return part


def _bucket_rounds(server, scratch: Path, total: Outcome, add, *, short: bool, target: int) -> None:
    add(run_scenarios(server, scratch / server.name), f"{server.name}: scenarios")
    if not short:
        name = "kill -9 at a request to the bucket"
        deaths = kill_at_every_request(server, scratch / f"{server.name}-requests")
        add(outcome_of(name, deaths), f"{server.name}: {name}")
    num_tasks = 8 if short else 40
    tls, ca_bundle = self_signed(scratch)
    number = 0
    # The reference server gets its rounds until the target is reached, the cross-check two.
    at_least = 1 if short else {"r2local": 3}.get(server.name, 2)
    if server.name != "r2local":
        target = 0
    while number < at_least or (not short and sum(total.injected.values()) < target):
        number += 1
        folder = scratch / f"{server.name}-{number}"
        folder.mkdir()
        over_tls = number % 3 == (1 if short else 0)
        part = run_chaos(
            server,
            folder,
            num_tasks=num_tasks,
            same_bytes=number % 2 == 1,
            kill_server=not short,
            tls=tls if over_tls else None,
            ca_bundle=ca_bundle if over_tls else None,
            seed=number,
            deadline_s=60.0 if short else 400.0,
        )
        over = "TLS" if over_tls else "TCP"
        same = "same bytes" if number % 2 == 1 else "other bytes each attempt"
        add(part, f"{server.name}: chaos {number} over {over}, {same}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
