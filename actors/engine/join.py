"""A partial result joins the residual stream by the way that is fastest here for its size.

Which way that is depends on links, ranks and width, so it is measured once at start, inside graphs
as in use, and agreed on by all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from actors.engine.all_reduce import AllReduce
from actors.kernels.exchange import exchange_residual
from actors.kernels.moe import add_parts
from actors.kernels.residual import residual_norm

WAYS = ("sum", "one step", "two steps")
_CALLS, _REPLAYS = 10, 5


class Joiner:
    """Joins of one rank, by number of rows."""

    def __init__(self, reduce: AllReduce, sizes: list[int], *, measures: bool) -> None:
        self.reduce = reduce
        self.microseconds: dict[int, dict[str, float]] = {}
        """What was measured: rows -> way -> time of one join."""
        first = 0 if reduce.mailbox(1) is None else 1
        self._way = dict.fromkeys(sizes, first)
        if measures and first and reduce.world_size > 1:
            for rows in sizes:
                self._way[rows] = self._fastest(rows) if reduce.mailbox(rows) is not None else 0

    def way(self, rows: int) -> str:
        """Name of the way that a number of rows takes."""
        return WAYS[self._way[rows]]

    def join(
        self, x: Tensor, part: Tensor, norm: Tensor, eps: float, normed: Tensor, **also: Any
    ) -> None:
        """``x += sum of part over ranks``, then ``normed = RMSNorm(x)``. Collective.

        ``also`` is ``residual_norm``'s ``steer``, ``capture`` and ``keep``.
        """
        self._join(self._way[x.shape[0]], x, part, norm, eps, normed, **also)

    def _join(
        self,
        way: int,
        x: Tensor,
        part: Tensor,
        norm: Tensor,
        eps: float,
        normed: Tensor,
        **also: Any,
    ) -> None:
        rows = x.shape[0]
        mailbox = self.reduce.mailbox(rows) if way else None
        if mailbox is not None:
            two = WAYS[way] == "two steps"
            exchange_residual(part, x, norm, eps, normed, mailbox, two_steps=two, **also)
            return
        if part.ndim == 3:
            part = add_parts(part, self.reduce.buffer(rows))
        residual_norm(x, self.reduce.sum(part), norm, eps, normed, **also)

    @torch.inference_mode()
    def _fastest(self, rows: int) -> int:
        """Measure all ways; the slowest rank counts. Collective."""
        like = self.reduce.buffer(rows)
        x, normed = torch.zeros_like(like), torch.zeros_like(like)
        norm = torch.ones_like(x[0])
        times = torch.zeros(len(WAYS), device=x.device)
        for way in range(len(WAYS)):
            times[way] = self._time(way, x, norm, normed)
        dist.all_reduce(times, op=dist.ReduceOp.MAX, group=self.reduce.group)
        self.microseconds[rows] = dict(zip(WAYS, times.tolist(), strict=True))
        return int(times.argmin())

    def _time(self, way: int, x: Tensor, norm: Tensor, normed: Tensor) -> float:
        """Microseconds of one join inside a graph. Collective."""
        rows = x.shape[0]

        def calls() -> None:
            for _ in range(_CALLS):
                part = self.reduce.buffer(rows)
                self._join(way, x, part, norm, 1e-6, normed)

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            calls()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            calls()
        begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        graph.replay()
        begin.record()
        for _ in range(_REPLAYS):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) * 1e3 / (_CALLS * _REPLAYS)
