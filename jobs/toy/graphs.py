"""Replay training steps as CUDA graphs, for launching a step's kernels takes longer than they run.

A toy model's step is thousands of tiny kernels. A step is recorded once per key, after two
ordinary steps that set up what must not be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch

from jobs.toy.batches import Batch

WARM_UP_STEPS = 2


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batch: Batch
    """Where the graph reads its input."""
    loss: torch.Tensor
    """Where the graph writes its result."""


class StepGraphs:
    """Records and replays a step; the device's memory pool is shared by all recordings."""

    def __init__(self, step: Callable[[Batch], torch.Tensor], reset: Callable[[], None]) -> None:
        """Wrap a step.

        Args:
            step: One whole training step that reads only its batch and device tensors whose
                addresses stay; returns the loss without waiting for it.
            reset: Drops gradients, so that a recording allocates its own.
        """
        self._step = step
        self._reset = reset
        self._pool: Any = None
        self._recorded: dict[Hashable, _Recorded] = {}

    def __call__(self, key: Hashable, batch: Batch) -> torch.Tensor:
        """Learn from a batch.

        Args:
            key: Whatever the recording depends on beside the batch's shape.
            batch: On the device.

        Returns:
            The loss; the next call overwrites it.
        """
        key = (key, tuple(batch.ids_BT.shape))
        if key not in self._recorded:
            self._recorded[key] = self._record(batch)
        graph, static, loss = self._recorded[key]
        for fixed, given in zip(static, batch, strict=True):
            fixed.copy_(given)
        graph.replay()
        return loss

    def _record(self, batch: Batch) -> _Recorded:
        static = Batch(*(tensor.clone() for tensor in batch))
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                self._step(static)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self._reset()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss = self._step(static)
        self._pool = graph.pool()
        return _Recorded(graph, static, loss)
