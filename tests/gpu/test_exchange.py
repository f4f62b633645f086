"""Rows pushed between GPUs add up to the same bits on every rank, time after time.

Every rank checks against a float32 sum of all ranks' rows; ranks' results are compared bit by bit.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

WIDTH, ROWS, ROUNDS = 7168, 24, 60


def numbers(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator(device="cuda").manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cuda").bfloat16()


def exchange_rows(rank: int, world: int, folder: str) -> None:
    """One rank: exchange rows of changing number with skew between ranks; raise on a wrong bit."""
    from actors.engine.all_reduce import make_mailbox
    from actors.kernels.exchange import exchange_residual
    from actors.kernels.residual import residual_norm

    torch.cuda.set_device(rank)
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("nccl", store=store, rank=rank, world_size=world)
    assert dist.group.WORLD is not None
    device = torch.device("cuda", rank)
    mailbox = make_mailbox(dist.group.WORLD, ROWS, WIDTH, device)
    assert mailbox is not None, "symmetric memory is there on GPUs of one host"
    weight = numbers(WIDTH, seed=1)
    for number in range(ROUNDS):
        rows = (number * 7) % ROWS + 1
        parts = [numbers(rows, WIDTH, seed=1000 * number + r) for r in range(world)]
        if number % world == rank:
            torch.cuda._sleep(2_000_000)  # about a millisecond late
        x = numbers(rows, WIDTH, seed=5)
        want, normed, got = x.clone(), torch.empty_like(x), torch.empty_like(x)
        total = torch.zeros(rows, WIDTH, device=device)
        for part in parts:
            total += part.float()
        residual_norm(want, total.bfloat16(), weight, 1e-6, normed)
        exchange_residual(parts[rank], x, weight, 1e-6, got, mailbox)
        # The order of four float32 additions may move a sum over a rounding edge of bfloat16.
        assert (x == want).float().mean() > 0.995, number
        torch.testing.assert_close(x.float(), want.float(), rtol=2**-7, atol=2**-7)
        torch.testing.assert_close(got.float(), normed.float(), rtol=2**-5, atol=2**-5)
        every = [torch.empty_like(x) for _ in range(world)]
        dist.all_gather(every, x)
        assert all(torch.equal(x, other) for other in every), number
    lost = numbers(1, WIDTH, seed=6)
    if rank == 0:  # nobody answers: the row is NaN after its patience, never a wrong number
        exchange_residual(lost, lost.clone(), weight, 1e-6, lost, mailbox, patience=1000)
        assert lost.isnan().all()
    torch.cuda.synchronize()
    dist.barrier()
    os._exit(0)


@pytest.mark.gpu
@pytest.mark.parametrize("world", [2, 4, 8])
def test_exchanged_rows_have_the_same_bits_on_every_rank(world: int) -> None:
    if torch.cuda.device_count() < world:
        pytest.skip(f"needs {world} GPUs on one host")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(exchange_rows, args=(world, folder), nprocs=world)
        assert Path(folder, "store").exists()
