"""What this machine has and lacks, in seconds; each line says what was found and what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from conf.schema import JobConfig
from jobs.entry import ExitCode
from jobs.points import redact
from jobs.report.console import Console
from jobs.services import Finding, check_bucket, check_clock, check_judge, check_ray

SHARED_MEMORY = Path("/dev/shm")
MIN_FREE_BYTES = 1024**3


def examine(console: Console, config: JobConfig) -> int:
    """Run every check, of this machine and of what the configuration names, and print them."""
    services: list[Callable[[], Finding]] = [partial(check, config) for check in SERVICES]
    num_bad = 0
    for check in [*CHECKS, *services]:
        finding = check()
        console.note(f"{'ok  ' if finding.is_good else 'LOOK'}  {redact(finding.sentence)}")
        num_bad += not finding.is_good
    return ExitCode.SOME_FAILED if num_bad else ExitCode.DONE


def check_packages() -> Finding:
    """The packages without which nothing runs."""
    names = ("torch", "transformers", "ray", "pyarrow", "hydra", "sklearn")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(False, f"packages: {', '.join(missing)} missing; run make setup")
    return Finding(True, f"packages: {', '.join(names)} are installed")


def check_gpus() -> Finding:
    """CUDA devices; none is fine for the toy models."""
    import torch

    if not torch.cuda.is_available():
        return Finding(True, "GPUs: none; cluster=laptop runs on the CPU")
    count = torch.cuda.device_count()
    names = {torch.cuda.get_device_name(i) for i in range(count)}
    free = min(torch.cuda.mem_get_info(i)[0] for i in range(count))
    return Finding(
        True, f"GPUs: {count} x {', '.join(sorted(names))}, {free / 1e9:.0f} GB free at least"
    )


def check_nccl() -> Finding:
    """Ranks on GPUs talk through NCCL, and fast only where GPUs reach each other's memory."""
    import torch

    if not torch.cuda.is_available():
        return Finding(True, "NCCL: not needed, ranks on the CPU use gloo")
    if not torch.distributed.is_nccl_available():
        return Finding(False, "NCCL: this torch has none; install a CUDA build")
    version = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    count = torch.cuda.device_count()
    apart = [
        f"{one}-{other}"
        for one in range(count)
        for other in range(one + 1, count)
        if not torch.cuda.can_device_access_peer(one, other)
    ]
    if apart:
        return Finding(
            False,
            f"NCCL {version}: GPUs {', '.join(apart)} do not reach each other's memory; "
            "tensor parallelism will be slow",
        )
    return Finding(True, f"NCCL {version}: all {count} GPUs reach each other's memory")


def check_shared_memory() -> Finding:
    """Ray's object store lives there."""
    if not SHARED_MEMORY.is_dir():
        return Finding(False, "shared memory: no /dev/shm; Ray will use slow files")
    free = shutil.disk_usage(SHARED_MEMORY).free
    sentence = f"shared memory: {free / 1e9:.1f} GB free"
    if free < MIN_FREE_BYTES:
        return Finding(False, f"{sentence}; 1 GB or more is better (docker: --shm-size=4g)")
    return Finding(True, sentence)


def check_disk() -> Finding:
    """Where results and Ray's own files go."""
    places = {Path.cwd(), Path(tempfile.gettempdir())}
    free = {place: shutil.disk_usage(place).free for place in places}
    text = ", ".join(f"{size / 1e9:.1f} GB in {place}" for place, size in free.items())
    return Finding(min(free.values()) >= MIN_FREE_BYTES, f"disk: free {text}")


def check_processors() -> Finding:
    """Two ranks share two cores well, and one core badly."""
    count = len(os.sched_getaffinity(0))
    return Finding(count >= 2, f"processors: {count}; cluster=laptop starts 2 ranks")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_packages,
    check_gpus,
    check_nccl,
    check_processors,
    check_shared_memory,
    check_disk,
)
"""Of this machine."""
SERVICES: tuple[Callable[[JobConfig], Finding], ...] = (
    check_bucket,
    check_judge,
    check_clock,
    check_ray,
)
"""Of what the configuration names."""
