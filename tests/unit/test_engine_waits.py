"""A decode step reads one thing back from the device: the chosen tokens, whatever is asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from actors.engine.steer import OPERATORS
from actors.request import STEERING_SITES, Capture, Steering
from tests import tiny
from tests.tiny import ask


class _Waits(TorchDispatchMode):
    """Names of what would wait for a device: values read on the host, shapes made by values."""

    OPERATORS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2")
    # On the CPU no operator shows the first three, and under inference mode none shows the others.
    METHODS = (
        *("tolist", "numpy", "cpu"),
        *("item", "__bool__", "__int__", "__float__", "__index__", "__complex__"),
    )

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.num_calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num_calls += 1
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if name in self.OPERATORS or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self._plain = {name: getattr(torch.Tensor, name) for name in self.METHODS}
        for name, method in self._plain.items():
            setattr(torch.Tensor, name, self._noting(name, method))
        return super().__enter__()

    def __exit__(self, *error):
        for name, method in self._plain.items():
            setattr(torch.Tensor, name, method)
        return super().__exit__(*error)

    def _noting(self, name, method):
        def call(tensor, *args, **kwargs):
            self.found.append(name)
            return method(tensor, *args, **kwargs)

        return call


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: [10, 20, 30, 40][x.argmax()],
        lambda x: 1 if x.any() else 0,
        lambda x: bool(x[0] > 0),
        lambda x: int(x.argmax()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.unique(),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_the_watch_sees_every_way_to_wait(wait, inference):
    """Under inference mode too, as the engine runs: scalars are read past the dispatcher there."""
    with torch.inference_mode(inference):
        value = torch.arange(4.0)
        with _Waits() as watch:
            torch.where(value > 2, value, value[torch.tensor([0, 0, 1, 1])]).clamp_min(1).sum()
        assert watch.num_calls >= 4
        assert watch.found == []
        with watch:
            wait(value)
        assert len(watch.found) >= 1


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_a_greedy_decode_step_never_waits_for_the_device(name):
    """Steered and captured too: nothing between the ids and the chosen token reads a value."""
    engine = tiny.engine(tiny.model_path(name))
    width = engine.info.hidden_size
    modes, forward, choose = [], engine.forward.run, engine._sample

    def watched(function):
        def call(batch, *args):
            if batch.num_decode < batch.num_rows:
                return function(batch, *args)
            modes.append(_Waits())
            with modes[-1]:
                return function(batch, *args)

        return call

    engine.rows_forward.run, engine._sample = watched(forward), watched(choose)
    steering = Steering(layer=1, vector="v", coefficient=0.3, operator="ablate")
    read = Capture(layers=(0, 1, 2), reduction="mean")
    requests = [
        ask(i, p, 6, ignore_eos=True, steering=(steering,), capture=(read,))
        for i, p in enumerate(tiny.prompts(4, 20))
    ]
    tiny.run(engine, requests, {"v": np.ones(width, dtype=np.float32)})
    calls = [mode.num_calls for mode in modes]
    assert sum(n > 50 for n in calls) >= 5  # forwards
    assert sum(3 < n <= 50 for n in calls) >= 5  # choices
    assert [name for mode in modes for name in mode.found] == []


SAMPLINGS = (
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 5, "seed": 3},
    {"temperature": 1.1, "top_p": 0.8, "min_p": 0.01},
    {"repetition_penalty": 1.3},
)
REDUCTIONS = ("none", "mean", "sum", "projection", "moments")


def _demanding(count: int, name: str) -> list:
    """Requests of every sampling, operator, site and reduction."""
    requests = []
    for i, prompt in enumerate(tiny.prompts(count, 20)):
        reduction = REDUCTIONS[i % 5]
        read = Capture(
            layers=(0, 2),
            sites=STEERING_SITES,
            tokens=("response[:]", "all", "response[1:]", "prompt[-2:]", "all[3:]")[i // 5],
            reduction=reduction,
            bank=("v",) if reduction == "projection" else (),
            moments_key="m" if reduction == "moments" else "",
        )
        reads = [read]
        if name in tiny.LATENT:
            reads.append(Capture(layers=(1,), sites=("mla_latent",), tokens="all"))
        if name in tiny.ROUTED:
            reads.append(Capture(layers=(1,), sites=("router",), tokens="response[:]"))
        steering = tuple(
            Steering(
                layer=(i + k) % 3,
                site=STEERING_SITES[(i + k) % 5],
                vector="v",
                coefficient=0.3,
                operator=OPERATORS[(i + k) % 5],
                positions=("all", "response", "from:4")[k % 3],
            )
            for k in range(2)
        )
        options = SAMPLINGS[i % len(SAMPLINGS)]
        requests.append(
            ask(i, prompt, 7, ignore_eos=True, steering=steering, capture=tuple(reads), **options)
        )
    return requests


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3_moe", "llama"])
def test_a_step_of_any_sampling_steering_and_capture_reads_only_the_chosen_tokens(name):
    engine = tiny.engine(tiny.model_path(name))
    width = engine.info.hidden_size
    batches, seen = [], []
    forward, step = engine.rows_forward.run, engine._step

    def note(batch, sites):
        batches.append(batch)
        return forward(batch, sites)

    def watched(run):
        with _Waits() as mode:
            step(run)
        batch = batches[-1]
        if batch.num_decode == batch.num_rows and not any(s.sequence.is_done for s in batch.spans):
            seen.append((mode.num_calls, mode.found))

    engine.rows_forward = dataclasses.make_dataclass("Noting", ["run"])(note)
    engine._step = watched
    reply = tiny.run(engine, _demanding(25, name), {"v": np.ones(width, dtype=np.float32)})
    assert [r.error for r in reply.results] == [None] * 25
    assert len(seen) >= 4
    assert all(calls > 500 for calls, _ in seen)  # the whole step was watched
    assert [found for _, found in seen] == [["tolist"]] * len(seen)
