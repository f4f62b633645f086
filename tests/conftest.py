"""Make every test repeatable: one thread, no network, no trace in the home folder, fixed draws."""

from __future__ import annotations

import gc
import importlib.util
import os
import secrets
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Set before torch, Ray or transformers is imported, and inherited by every process a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray would otherwise put a token file in the home folder, where a later `ray start` trips on it.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# Keeps a local cluster on the loopback address instead of the machine's own.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
# Rank actors import the packages from this checkout, also when it is not installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

if importlib.util.find_spec("triton"):
    import torch

    if not torch.cuda.is_available():
        # Triton's interpreter runs the kernels in plain numpy. Triton reads this once, when it is
        # first imported, and transformers imports it.
        os.environ.setdefault("TRITON_INTERPRET", "1")

if importlib.util.find_spec("hypothesis"):  # GPU machines bring pytest alone
    from hypothesis import settings

    settings.register_profile(
        "fixed", derandomize=True, deadline=None, max_examples=50, database=None
    )
    settings.load_profile("fixed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip GPU tests where there are too few CUDA devices, and others that run on demand."""
    for name in ("packages", "long"):
        if name in config.getoption("-m"):
            continue
        on_demand = pytest.mark.skip(reason=f"runs on demand: pytest -m {name}")
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(on_demand)
    needing_gpu = [
        item for item in items if item.get_closest_marker("gpu") or _num_gpus_asked(item) > 1
    ]
    if not needing_gpu:
        return
    import torch  # a second of start-up, so only when a GPU test was collected

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for item in needing_gpu:
        asked = _num_gpus_asked(item)
        if num_gpus < asked:
            reason = f"needs {asked} CUDA devices, this machine has {num_gpus}"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported and collected: it stays to the end."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it collect again: libraries complain at the end of what they still see."""
    gc.unfreeze()


def _num_gpus_asked(item: pytest.Item) -> int:
    """CUDA devices that a GPU test needs: 1, or what ``multi_gpu(N)`` says (2 when bare)."""
    marker = item.get_closest_marker("multi_gpu")
    if marker is None:
        return 1
    return int(marker.args[0]) if marker.args else 2


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def toy_mla_path() -> Path:
    """Folder of the shipped DeepSeek-V3 style toy model."""
    return ROOT / "jobs" / "toy" / "models" / "toy_mla"


@pytest.fixture(scope="session")
def toy_gqa_path() -> Path:
    """Folder of the shipped Qwen3-MoE style toy model."""
    return ROOT / "jobs" / "toy" / "models" / "toy_gqa"
