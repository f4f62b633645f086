"""The doctor says what this machine has and lacks, one line each, with what to do."""

from __future__ import annotations

import io
from collections import namedtuple
from pathlib import Path

import pytest

from conf.schema import JobConfig
from jobs import doctor
from jobs.doctor import Finding, examine
from jobs.report.console import Console

Usage = namedtuple("Usage", "total used free")


def examined() -> tuple[int, list[str]]:
    out = io.StringIO()
    code = examine(Console(out), JobConfig(job="generate"))
    return code, out.getvalue().splitlines()


def test_every_check_gives_one_line() -> None:
    _, lines = examined()

    assert len(lines) == len(doctor.CHECKS) + len(doctor.SERVICES) == 10
    assert all(line.startswith(("ok    ", "LOOK  ")) for line in lines)


def test_one_bad_finding_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Finding(True, "memory: much"), Finding(False, "disk: none; buy one")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: good,))
    monkeypatch.setattr(doctor, "SERVICES", (lambda config: bad,))

    code, lines = examined()
    assert code == 1
    assert lines == ["ok    memory: much", "LOOK  disk: none; buy one"]


def test_all_good_is_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (lambda: Finding(True, "fine"),))
    monkeypatch.setattr(doctor, "SERVICES", ())

    assert examined() == (0, ["ok    fine"])


def test_installed_packages_are_found() -> None:
    assert doctor.check_packages().is_good


def test_a_missing_package_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == "ray" else real(name)
    )

    assert doctor.check_packages() == Finding(False, "packages: ray missing; run make setup")


def test_no_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert doctor.check_gpus() == Finding(True, "GPUs: none; cluster=laptop runs on the CPU")


@pytest.mark.parametrize(
    ("free", "is_good", "end"),
    [
        (4_000_000_000, True, "shared memory: 4.0 GB free"),
        (64_000_000, False, "0.1 GB free; 1 GB or more is better (docker: --shm-size=4g)"),
    ],
)
def test_little_shared_memory_is_told_with_the_docker_option(
    free: int, is_good: bool, end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(0, 0, free))
    found = doctor.check_shared_memory()

    assert found.is_good is is_good
    assert found.sentence.endswith(end)


def test_a_machine_without_shared_memory_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")

    assert not doctor.check_shared_memory().is_good


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(0, 0, 10_000_000))
    found = doctor.check_disk()

    assert not found.is_good
    assert "0.0 GB in" in found.sentence


@pytest.mark.parametrize(("count", "is_good"), [(1, False), (2, True), (64, True)])
def test_two_ranks_want_two_processors(
    count: int, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(count)))

    assert doctor.check_processors().is_good is is_good


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Four GPUs of which 0 and 3 do not reach each other, unless told otherwise."""
    import torch

    apart = {(0, 3)}
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 4,
        "get_device_name": lambda i: "NVIDIA H200",
        "mem_get_info": lambda i: (140_000_000_000 - i, 150_000_000_000),
        "can_device_access_peer": lambda one, other: (one, other) not in apart,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 3))
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    return apart


def test_gpus_are_counted_with_their_free_memory(gpus) -> None:
    assert doctor.check_gpus() == Finding(True, "GPUs: 4 x NVIDIA H200, 140 GB free at least")


def test_gpus_that_do_not_reach_each_other_are_named(gpus) -> None:
    found = doctor.check_nccl()
    assert not found.is_good
    assert found.sentence.startswith("NCCL 2.28.3: GPUs 0-3 do not reach each other's memory")
    gpus.clear()
    assert doctor.check_nccl() == Finding(True, "NCCL 2.28.3: all 4 GPUs reach each other's memory")


def test_a_torch_without_nccl_is_told_only_where_there_are_gpus(
    gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert doctor.check_nccl().sentence == "NCCL: this torch has none; install a CUDA build"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor.check_nccl().is_good


def test_a_secret_in_a_services_answer_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-" + "a1b2" * 9
    said = Finding(False, f"judge: Incorrect API key provided: {key}")
    monkeypatch.setattr(doctor, "CHECKS", ())
    monkeypatch.setattr(doctor, "SERVICES", (lambda config: said,))
    _, lines = examined()
    assert key not in lines[0]
    assert "***" in lines[0]
