"""The fastest all-reduce that passes its own test, by size; NCCL otherwise.

Symmetric memory lets ranks of one node reach each other's buffers. Few rows are pushed to all peers
by the kernel that also finishes the residual step (exchange.py); more go two-shot (each rank sums
its part, then all gather) up to 8 MB, with one-shot in a band of small sizes. No multicast
operation is ever called. A rank that cannot rendezvous makes all fall back.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from actors.kernels.exchange import WORLDS, Mailbox, alone, exchange_residual, half_row

logger = logging.getLogger(__name__)

# Measured in graphs on four H200s: two-shot is ahead below 32 KiB and above 160 KiB.
ONE_SHOT_BYTES = range(32 << 10, 160 << 10)
TWO_SHOT_BYTES = 8 << 20
EXCHANGE_BYTES = 6 << 20
"""Bytes of rows that one rank pushes to all its peers, at most: room, not speed, sets it."""
_TEST_PATIENCE = 1 << 20


class AllReduce:
    """Sums of ``[rows, width]`` partial results, from buffers that peers can read."""

    def __init__(
        self,
        group: dist.ProcessGroup | None,
        *,
        world_size: int,
        max_rows: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        symmetric: bool = True,
    ) -> None:
        self.group = group
        self.world_size = world_size
        self.is_symmetric = False
        shape = (2, max_rows, width)
        self._buffers = torch.zeros(shape, dtype=dtype, device=device)
        self._turn = 0
        self._mailbox: Mailbox | None = None
        fits = dtype == torch.bfloat16 and width % 2 == 0
        if world_size == 1 and fits and device.type == "cuda":
            self._mailbox = alone(device)
        if world_size > 1 and symmetric and group is not None:
            self._try_symmetric(group, shape, dtype, device)
            rows = EXCHANGE_BYTES // (2 * width * (world_size - 1))
            if fits and self.is_symmetric and world_size in WORLDS:
                self._try_exchange(group, min(rows, max_rows), width, device)

    def _try_symmetric(
        self,
        group: dist.ProcessGroup,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Switch to symmetric memory if every rank can and the sums come out right. Collective."""
        ok = torch.zeros(1, dtype=torch.int32, device=device)
        try:
            import torch.distributed._symmetric_memory as symmetric_memory

            buffers = symmetric_memory.empty(shape, dtype=dtype, device=device)
            symmetric_memory.rendezvous(buffers, group)
            ok += 1
        except (RuntimeError, ImportError, AttributeError):
            buffers = self._buffers
        dist.all_reduce(ok, op=dist.ReduceOp.MIN, group=group)
        if int(ok) == 0:
            return
        kept, self._buffers, self.is_symmetric = self._buffers, buffers, True
        good = torch.ones(1, dtype=torch.int32, device=device)
        for rows in {1, shape[1]}:
            out = self.buffer(rows)
            out.fill_(dist.get_rank(group) + 1)
            got = self.sum(out)
            want = self.world_size * (self.world_size + 1) / 2
            good *= int(bool((got == want).all()))
        dist.all_reduce(good, op=dist.ReduceOp.MIN, group=group)
        if int(good) == 0:
            self._buffers, self.is_symmetric = kept, False

    def _try_exchange(
        self, group: dist.ProcessGroup, rows: int, width: int, device: torch.device
    ) -> None:
        """Take a mailbox if every rank can have one and all sums come out right. Collective."""
        mailbox = make_mailbox(group, rows, width, device)
        self._mailbox = mailbox
        if mailbox is None:
            return
        good = torch.ones(1, dtype=torch.int32, device=device)
        for trial in range(8):  # both turns of both ways, twice
            x = torch.zeros(rows, width, dtype=torch.bfloat16, device=device)
            part = torch.full_like(x, mailbox.rank + 1 + trial)
            exchange_residual(
                part, x, torch.ones_like(x[0]), 1e-6, torch.empty_like(x), mailbox,
                two_steps=trial >= 4, patience=_TEST_PATIENCE,
            )  # fmt: skip
            want = self.world_size * (self.world_size + 1) / 2 + trial * self.world_size
            good *= int(bool((x == want).all()))
        dist.all_reduce(good, op=dist.ReduceOp.MIN, group=group)
        if int(good) == 0:
            self._mailbox = None

    def mailbox(self, rows: int) -> Mailbox | None:
        """Where ``rows`` rows may be exchanged, or None where they cannot."""
        box = self._mailbox
        fits = box is not None and (box.world == 1 or rows <= box.words.shape[2])
        return box if fits else None

    def buffer(self, rows: int) -> Tensor:
        """Where to write the next partial result: ``[rows, width]``, alternating."""
        self._turn ^= 1
        return self._buffers[self._turn, :rows]

    def sum(self, partial: Tensor) -> Tensor:
        """Sum over ranks of a tensor from ``buffer``; the result may alias it. Collective."""
        if self.world_size == 1 or self.group is None:
            return partial
        size = partial.numel() * partial.element_size()
        if self.is_symmetric and size <= TWO_SHOT_BYTES:
            name = self.group.group_name
            if size in ONE_SHOT_BYTES:
                summed: Tensor = torch.ops.symm_mem.one_shot_all_reduce(partial, "sum", name)
                return summed
            torch.ops.symm_mem.two_shot_all_reduce_(partial, "sum", name)
            return partial
        dist.all_reduce(partial, group=self.group)
        return partial


def make_mailbox(
    group: dist.ProcessGroup, rows: int, width: int, device: torch.device
) -> Mailbox | None:
    """Memory that peers can write, for ``rows`` rows; None where it cannot be had. Collective."""
    ok, found = torch.zeros(1, dtype=torch.int32, device=device), None
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    try:
        import torch.distributed._symmetric_memory as symmetric_memory

        shape = (2, world + 1, rows, half_row(width))
        words = symmetric_memory.empty(shape, dtype=torch.int64, device=device)
        handle: Any = symmetric_memory.rendezvous(words, group)
        words.zero_()
        # The handle speaks of the whole allocation; the tensor may begin inside it.
        inside = words.data_ptr() - handle.buffer_ptrs[rank]
        peers = torch.tensor([p + inside for p in handle.buffer_ptrs], device=device)
        numbers = torch.zeros(rows, dtype=torch.int32, device=device)
        found = Mailbox(peers, numbers, words, rank, world)
        ok += 1
    except (RuntimeError, ImportError, AttributeError) as error:
        logger.warning("rank %d cannot exchange rows through its peers' memory: %s", rank, error)
    # Also the barrier behind which every rank's words are zero.
    dist.all_reduce(ok, op=dist.ReduceOp.MIN, group=group)
    return found if int(ok) else None
