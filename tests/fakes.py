"""A small engine with real collectives that fails on request: the fault-injection seam.

Load it with ``GroupSpec(engine="tests.fakes:FakeEngine.load")``. It "generates" token ids that
depend on the prompt alone, one real all-reduce per token. A request whose id starts with
``<fault>:<rank>`` makes that rank misbehave at the request's middle token:

``kill`` SIGKILL, ``exit`` leaves the process, ``raise`` raises, ``refuse`` raises UserError on
every rank, ``hang`` sleeps outside any collective, ``stop`` SIGSTOPs itself, ``skip`` leaves one
collective out, ``diverge`` answers other tokens, ``slow`` takes a second longer.

``EngineSpec.random_seed`` misbehaves at load: 1000 + rank kills that rank, 2000 + rank makes it
raise, 3000 makes every rank refuse the model, 4000 + rank makes it sleep.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time

import numpy as np
import torch
import torch.distributed as dist

from actors.request import (
    Bundle,
    CaptureResult,
    EngineSpec,
    ModelInfo,
    Reply,
    Result,
    Token,
)
from conf.errors import UserError


class FakeOutOfMemoryError(Exception):
    """Stands for what an allocator raises."""


WIDTH = 8


def captured(wish, num_tokens: int) -> CaptureResult:
    """Rows whose every value is 100 * layer + position, at every token."""
    positions = np.arange(num_tokens, dtype=np.int32)
    rows = 100 * np.array(wish.layers)[:, None, None] + positions[None, :, None]
    values = np.broadcast_to(rows, (len(wish.layers), num_tokens, WIDTH)).astype(np.float32)
    return CaptureResult(
        layers=wish.layers,
        tokens=wish.tokens,
        reduction=wish.reduction,
        positions=positions,
        values=dict.fromkeys(wish.sites, values),
    )


class FakeEngine:
    """Answers ``sum(prompt) + i`` as token i, agreed by an all-reduce per token."""

    def __init__(self, spec: EngineSpec, rank: int, world_size: int, group) -> None:
        self.rank = rank
        self.world_size = world_size
        self.group = group
        self.device = (
            torch.device("cuda", torch.cuda.current_device())
            if spec.device == "cuda"
            else torch.device("cpu")
        )
        self.info = ModelInfo(
            model_type="fake",
            num_layers=6,
            hidden_size=8,
            vocab_size=100_000,
            num_heads=8,
            num_kv_heads=8,
            max_position=512,
            eos_ids=(0,),
            dtype=spec.dtype,
            model_digest="f" * 64,
            num_pages=64,
            page_size=spec.page_size,
            weight_bytes=1,
        )

    @classmethod
    def load(cls, spec, *, rank, world_size, process_group, decode=None):
        kind, who = divmod(spec.random_seed, 1000)
        if kind == 1 and rank == who:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == 2 and rank == who:
            raise FakeOutOfMemoryError("tried to allocate 16.0 GiB, 2.5 GiB are free")
        if kind == 3:
            raise UserError("model.path=/nowhere has no config.json; give a folder that has one")
        if kind == 4 and rank == who:
            time.sleep(600)
        dist.barrier(group=process_group)
        return cls(spec, rank, world_size, process_group)

    def run(self, bundle: Bundle, on_token=None, *, share_rows=False) -> Reply:
        results = []
        for request in bundle.requests:
            fault, _, rest = request.id.partition(":")
            victim = int(rest.split("/")[0]) if rest.split("/")[0].isdigit() else -1
            num_tokens = request.sampling.max_new_tokens
            completion = []
            for i in range(num_tokens):
                if i == num_tokens // 2:
                    if fault == "refuse":
                        raise UserError(f"steering layer 99 of request {request.id} is not below 6")
                    if victim == self.rank:
                        self._misbehave(fault)
                if not (fault == "skip" and victim == self.rank and i == num_tokens // 2):
                    token = self._agree(sum(request.token_ids) + i)
                if fault == "diverge" and victim == self.rank:
                    token += 1
                completion.append(token)
                if on_token is not None:
                    on_token(Token(request_id=request.id, index=i, token_id=token))
            results.append(
                Result(
                    id=request.id,
                    prompt_ids=request.token_ids,
                    completion_ids=tuple(completion),
                    finish_reason="length",
                    captures=tuple(
                        captured(one, len(request.token_ids) + num_tokens)
                        for one in request.capture
                    ),
                )
            )
        text = repr([(one.id, one.completion_ids) for one in results])
        return Reply(
            bundle_id=bundle.id,
            results=tuple(results),
            digest=hashlib.sha256(text.encode()).hexdigest(),
            num_steps=sum(len(one.completion_ids) for one in results),
            num_decode_tokens=sum(len(one.completion_ids) for one in results),
        )

    def _agree(self, value: int) -> int:
        """The mean over ranks of what each computed. Collective."""
        total = torch.tensor([float(value)], dtype=torch.float64, device=self.device)
        dist.all_reduce(total, group=self.group)
        return int(total.item() / self.world_size)

    def _misbehave(self, fault: str) -> None:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "exit":
            os._exit(3)
        elif fault == "raise":
            raise FakeOutOfMemoryError("tried to allocate 16.0 GiB, 2.5 GiB are free")
        elif fault == "hang":
            time.sleep(600)
        elif fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault == "slow":
            time.sleep(1.0)
