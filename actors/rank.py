"""One process, one device, one rank: it does what its driver says and decides nothing itself.

All torch work happens on one thread, because torch keeps the current device and the gradient mode
per thread. Questions about the rank are answered from another thread, so they get an answer while
the first sits in a collective. Importing this module is cheap: torch is imported by ``join``.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import ray

from actors import rank_log
from actors.rank_report import RankAnswer, RankFacts, RankStatus
from actors.request import Bundle, EngineSpec, ModelInfo, Reply, Token
from actors.shares import CapturedPart, own_parts, strip

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch._C._distributed_c10d import TCPStore

    from actors.rendezvous import RankAssignment

logger = logging.getLogger(__name__)

CONCURRENCY_GROUPS = {"watch": 1, "control": 1, "rows": 1}
"""``watch`` blocks one thread for ever, ``control`` answers meanwhile, ``rows`` leave meanwhile."""


class RankEngine(Protocol):
    """What a rank needs from an engine."""

    info: ModelInfo

    def run(
        self,
        bundle: Bundle,
        on_token: Callable[[Token], None] | None = None,
        *,
        share_rows: bool = False,
    ) -> Reply:
        """Answer a bundle; ``share_rows`` deals raw rows out among the ranks. Collective."""
        ...


class RankActor:
    """A rank as a Ray actor. Create it with ``CONCURRENCY_GROUPS``; call its stages in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stage = "starting"
        self._rank = -1
        self._bundle_id = ""
        self._num_tokens = 0
        self._sequence = 0
        self._finished_at = time.monotonic()
        self._assignment: RankAssignment | None = None
        self._store: TCPStore | None = None
        self._group: dist.ProcessGroup | None = None
        self._engine: RankEngine | None = None
        self._held: dict[int, Reply] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._thread_id: int | None = None

    def __repr__(self) -> str:
        return self._name

    def hello(self) -> RankFacts:
        """Say where this process came up."""
        context = ray.get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        gpu_id = str(gpus[0]) if gpus else ""
        return RankFacts(
            node_id=context.get_node_id(),
            node_ip=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
            pid=os.getpid(),
            gpu_id=gpu_id,
            device_index=device_index(gpu_id, os.environ.get("CUDA_VISIBLE_DEVICES", "")),
        )

    def host_store(self, host: str, timeout_s: float) -> int:
        """Bind the group's store in this process and return its port (rank 0 only)."""
        # Imported here: torch takes about a second, and hello() must not wait for it.
        from actors import rendezvous

        self._store = rendezvous.host_store(host, timeout_s=timeout_s)
        return int(self._store.port)

    def join(self, assignment: RankAssignment) -> None:
        """Form the process group. Collective."""
        self._stage = "joining"
        self._rank = assignment.rank
        self._assignment = assignment
        self._thread.submit(self._join, assignment).result()

    def load(self, spec: EngineSpec, engine: str) -> ModelInfo:
        """Make the engine and read the weights. Collective.

        Args:
            spec: What to load.
            engine: Import path ``module:attribute`` of the function that makes the engine.
        """
        self._stage = "loading"
        info = self._thread.submit(self._load, spec, engine).result()
        self._finished_at = time.monotonic()
        self._stage = "idle"
        return info

    def run(self, sequence: int, bundle: Bundle, *, hold_rows: bool = False) -> RankAnswer:
        """Answer one bundle. Collective.

        Args:
            sequence: Number of this bundle in the group's life; ranks refuse to skip one.
            bundle: The same on every rank.
            hold_rows: Keep captured rows here until ``rows`` is called for this bundle.
        """
        answer = self._thread.submit(self._run, sequence, bundle, self._count_token, hold_rows)
        return answer.result()

    def stream(self, sequence: int, bundle: Bundle) -> Iterator[Token | RankAnswer]:
        """Like ``run``, but yields every token as it comes, and the answer last. Collective."""
        tokens: SimpleQueue[Token | None] = SimpleQueue()

        def forward(token: Token) -> None:
            self._count_token(token)
            tokens.put(token)

        future = self._thread.submit(self._run, sequence, bundle, forward)
        future.add_done_callback(lambda _: tokens.put(None))
        while (token := tokens.get()) is not None:
            yield token
        yield future.result()

    @ray.method(concurrency_group="rows")
    def rows(self, sequence: int) -> Iterator[CapturedPart]:
        """Give this rank's share of a bundle's captured rows, and let go of them."""
        world_size = self._assignment.world_size if self._assignment else 1
        yield from own_parts(self._held.pop(sequence), rank=self._rank, world_size=world_size)

    @ray.method(concurrency_group="control")
    def status(self, *, with_stack: bool = False) -> RankStatus:
        """Say what the rank is doing; answers while the rank is stuck."""
        frame = sys._current_frames().get(self._thread_id or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        num_collectives = self._count_collectives()
        marker = f"{self._stage} {self._sequence} {num_collectives} {self._num_tokens}"
        if self._assignment is None or self._assignment.world_size == 1:
            # Alone, a rank makes no collectives: a moving stack is its only sign of life.
            marker += hashlib.sha256(stack.encode()).hexdigest()
        return RankStatus(
            rank=self._rank,
            stage=self._stage,
            bundle_id=self._bundle_id,
            num_collectives=num_collectives,
            num_tokens=self._num_tokens,
            in_collective="torch/distributed/" in stack,
            stack=stack if with_stack else "",
            marker=marker,
        )

    @ray.method(concurrency_group="watch")
    def watch(self) -> None:
        """Never return: the end of this call is the end of the process."""
        threading.Event().wait()

    def _join(self, assignment: RankAssignment) -> None:
        """Set the engine's thread up and join. Collective."""
        import torch

        from actors import rendezvous

        rank_log.open_log(self._name, assignment.rank)
        self._thread_id = threading.get_ident()
        torch.set_num_threads(assignment.threads)
        torch.set_grad_enabled(False)
        self._group = rendezvous.join(assignment, self._store)

    def _load(self, spec: EngineSpec, engine: str) -> ModelInfo:
        """Make the engine on its thread. Collective."""
        if self._assignment is None:
            raise RuntimeError("load was called before join")
        module, _, attribute = engine.partition(":")
        began = time.monotonic()
        factory: Any = importlib.import_module(module)
        for part in attribute.split("."):
            factory = getattr(factory, part)
        self._engine = factory(
            spec,
            rank=self._assignment.rank,
            world_size=self._assignment.world_size,
            process_group=self._group,
            decode=TextDecoder(spec.model_path, trust_remote_code=spec.trust_remote_code),
        )
        info, took_s = self._engine.info, time.monotonic() - began
        logger.info(
            "loaded %s in %.1f s: %d layers, %.3f GB of weights on this rank, %d KV pages",
            *(info.model_type, took_s, info.num_layers, info.weight_bytes / 1e9, info.num_pages),
        )
        return info

    def _run(
        self,
        sequence: int,
        bundle: Bundle,
        on_token: Callable[[Token], None],
        hold_rows: bool = False,
    ) -> RankAnswer:
        """Answer one bundle on the engine's thread. Collective."""
        if self._engine is None:
            raise RuntimeError("run was called before load")
        if sequence != self._sequence + 1:
            raise RuntimeError(f"bundle {sequence} came after bundle {self._sequence}")
        started = time.monotonic()
        self._sequence, self._bundle_id, self._stage = sequence, bundle.id, "running"
        reply = self._engine.run(bundle, on_token, share_rows=hold_rows)
        if hold_rows:
            self._held[sequence], reply = reply, strip(reply)
        idle_s = started - self._finished_at
        self._finished_at = time.monotonic()
        self._stage = "returning"
        return RankAnswer(
            rank=self._rank,
            digest=reply.digest,
            reply=reply if self._rank == 0 else None,
            engine_s=self._finished_at - started,
            idle_s=idle_s,
        )

    def _count_token(self, token: Token) -> None:  # noqa: ARG002 - the engine's callback
        """A token is progress."""
        self._num_tokens += 1

    def _count_collectives(self) -> int:
        """Collectives entered so far; 0 before the group exists."""
        if self._group is None:
            return 0
        from actors import rendezvous

        return rendezvous.count_collectives(self._group)


class TextDecoder:
    """Token ids to text for stop strings; the tokenizer is read at the first call."""

    def __init__(self, model_path: str, *, trust_remote_code: bool) -> None:
        self._model_path = model_path
        self._trust_remote_code = trust_remote_code
        self._decode: Callable[[list[int]], str] | None = None

    def __call__(self, token_ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included."""
        if self._decode is None:
            self._decode = self._load()
        return self._decode(list(token_ids))

    def _load(self) -> Callable[[list[int]], str]:
        """The fast tokenizer alone where there is one: transformers takes seconds to import."""
        file = Path(self._model_path) / "tokenizer.json"
        if file.exists():
            from tokenizers import Tokenizer

            fast = Tokenizer.from_file(str(file))
            return lambda ids: str(fast.decode(ids, skip_special_tokens=False))
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(
            self._model_path, trust_remote_code=self._trust_remote_code
        )
        return lambda ids: str(slow.decode(ids, skip_special_tokens=False))


def device_index(gpu_id: str, visible: str) -> int:
    """Index of a GPU among the devices this process sees; 0 without a GPU.

    Ranks see every GPU of their node (symmetric memory needs it). Where the node itself was given
    only some, ``CUDA_VISIBLE_DEVICES`` lists those and CUDA counts within that list.
    """
    if not gpu_id:
        return 0
    listed = [one.strip() for one in visible.split(",") if one.strip()]
    return listed.index(gpu_id) if gpu_id in listed else int(gpu_id)
