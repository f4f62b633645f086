"""Answer bundles: every rank runs the same schedule on the same requests and checks that it did.

There is no control traffic between ranks. Scheduling is a pure function of the bundle and of the
token ids, which all ranks compute alike; a digest over both is compared before and after a bundle,
and on the CPU before every forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from actors.engine.agreement import Comparison
from actors.engine.batch import Batch, build_batch
from actors.engine.bundle_run import BundleRun
from actors.engine.burst import Burst
from actors.engine.cache import PagedCache, cache_shape
from actors.engine.collectives import Collectives
from actors.engine.forward import Forward
from actors.engine.fused import fused_decoder, fused_forward, fused_layers
from actors.engine.launched import Launched
from actors.engine.pages import PageTable
from actors.engine.sampler import Sampled, sample
from actors.engine.scheduler import Scheduler
from actors.engine.sites import StepSites
from actors.engine.steer import plan_rows
from actors.engine.stops import Decode
from actors.engine.validate import Limits, check_bundle
from actors.model.load import LocalModel, load_model
from actors.request import Bundle, EngineSpec, ModelInfo, Reply, RequestError, Token

CPU_CACHE_BYTES = 512 << 20


class Engine:
    """One rank's engine: a local model, its paged cache and the loop that answers bundles."""

    def __init__(
        self,
        spec: EngineSpec,
        model: LocalModel,
        collectives: Collectives,
        decode: Decode | None = None,
    ) -> None:
        self.spec = spec
        self.model = model
        self.collectives = collectives
        self.device = torch.device(spec.device)
        self._decode = decode
        self.goes_ahead = self.device.type == "cuda"
        """Forwards are launched behind one another; a CPU is done when a launch returns."""
        layers = fused_layers(model, self.device)  # joined before memory is sized
        shape = cache_shape(model)
        num_pages = self._agree_pages(shape.bytes_per_token(len(model.layers), self._itemsize()))
        config: Any = model.module.config
        self.cache = PagedCache(
            shape,
            num_layers=len(model.layers),
            num_pages=num_pages,
            page_size=spec.page_size,
            latent_dim=config.kv_lora_rank if model.facts.is_mla else 0,
            dtype=getattr(torch, spec.dtype),
            device=self.device,
        )
        self.forward = Forward(model, self.cache, collectives)
        self.info = self._describe(num_pages)
        self.limits = self._limits(num_pages)
        self.fast = fused_decoder(
            layers, model, self.cache, collectives, spec, self.limits.max_tokens
        )
        self.rows_forward = fused_forward(layers, self.forward, self.fast)

    @classmethod
    def load(
        cls,
        spec: EngineSpec,
        *,
        rank: int,
        world_size: int,
        process_group: dist.ProcessGroup | None,
        decode: Decode | None = None,
    ) -> Engine:
        """Load this rank's share of the model and size its cache. Collective.

        Raises:
            UserError: The checkpoint does not hold what its config.json promises.
        """
        model = load_model(spec, rank=rank, world_size=world_size)
        return cls(spec, model, Collectives(rank, world_size, process_group), decode)

    def _itemsize(self) -> int:
        return int(getattr(torch, self.spec.dtype).itemsize)

    def _agree_pages(self, bytes_per_token: int) -> int:
        """Pages that every rank can hold. Collective."""
        budget = self.spec.kv_cache_bytes
        if budget is None and self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info()
            budget = int(free * 0.85)  # the rest is workspace for the largest forward
        pages = (budget or CPU_CACHE_BYTES) // (bytes_per_token * self.spec.page_size)
        return self.collectives.minimum(int(pages), self.device)

    def _describe(self, num_pages: int) -> ModelInfo:
        facts = self.model.facts
        return ModelInfo(
            model_type=facts.model_type,
            num_layers=facts.num_layers,
            hidden_size=facts.hidden_size,
            vocab_size=facts.vocab_size,
            num_heads=facts.num_heads,
            num_kv_heads=facts.num_kv_heads,
            max_position=facts.max_position,
            eos_ids=facts.eos_ids,
            dtype=self.spec.dtype,
            model_digest=self.model.digest,
            num_pages=num_pages,
            page_size=self.spec.page_size,
            weight_bytes=self.model.weight_bytes,
        )

    def _limits(self, num_pages: int) -> Limits:
        facts = self.model.facts
        longest = min(facts.max_position, (num_pages - 1) * self.spec.page_size)
        asked = self.spec.max_sequence_tokens
        routers = (n for n, layer in enumerate(self.model.layers) if hasattr(layer.mlp, "gate"))
        return Limits(
            num_layers=facts.num_layers,
            hidden_size=facts.hidden_size,
            vocab_size=facts.vocab_size,
            max_tokens=min(longest, asked) if asked else longest,
            router_layers=frozenset(routers),
            is_mla=facts.is_mla,
            can_decode_text=self._decode is not None,
        )

    def check(self, bundle: Bundle) -> dict[str, RequestError]:
        """Requests that would be refused, by id. Pure: no collective, nothing runs."""
        return check_bundle(bundle, self.limits)

    def run(
        self,
        bundle: Bundle,
        on_token: Callable[[Token], None] | None = None,
        *,
        share_rows: bool = False,
    ) -> Reply:
        """Answer a bundle. Collective: every rank gives the same bundle.

        Args:
            bundle: Requests and vectors.
            on_token: Called with every new token, in order, when its forward is booked.
            share_rows: Deal the layers of raw rows out among the ranks, instead of giving all to
                rank 0: each rank's reply then holds its own (``CaptureResult.held``).

        Raises:
            RanksDisagree: The ranks' bundles, schedules or tokens differ.
        """
        run = self._open(bundle, on_token, share_rows=share_rows)
        run.given = self._compare(run.digest(), "were given another bundle")
        while run.scheduler.has_work or run.launched is not None:
            self._step(run)
        run.check_given()
        ended = self._compare(run.digest(), "ran another schedule or chose other tokens")
        reply = run.reply()
        ended.check()
        return reply

    def _open(
        self, bundle: Bundle, on_token: Callable[[Token], None] | None, *, share_rows: bool
    ) -> BundleRun:
        """The bundle's state before anything has run."""
        run = BundleRun(
            bundle,
            self.check(bundle),
            scheduler=Scheduler(
                PageTable(self.cache.num_pages, self.cache.page_size),
                max_tokens=self.spec.max_batch_tokens,
                max_sequences=self.spec.max_batch_requests,
            ),
            width=self.model.facts.hidden_size,
            max_tokens=self.limits.max_tokens,
            eos_ids=self.model.facts.eos_ids,
            device=self.device,
            # The residual stream is the same on every rank, and rank 0 answers.
            answers=self.model.rank == 0,
            share=(self.model.rank, self.model.world_size) if share_rows else None,
            decode=self._decode,
            on_token=on_token,
        )
        if self.fast is not None:
            run.burst = Burst(
                fast=self.fast,
                plan=run.plan,
                capturer=run.capturer,
                bank=run.bank,
                eos_ids=self.model.facts.eos_ids,
                while_waiting=run.while_waiting,
            )
        return run

    def _step(self, run: BundleRun) -> None:
        """Run one burst, or one forward, and book what it decides. Collective.

        Behind a forward the next one is launched before the tokens of the first are known, if it
        has prompts to run; otherwise a burst, if it can be. So the device does not stand still.
        """
        began = time.perf_counter()
        launched, run.launched = run.launched, None
        if launched is None and run.burst is not None:
            result = run.burst.run(run.scheduler)
            if result is not None:
                run.take_burst(run.burst, result)
                run.decode_s += time.perf_counter() - began
                return
        launched = launched or self._launch(run)
        if self.goes_ahead and run.scheduler.may_go_ahead:
            run.launched = self._launch(run)
        elif run.burst is not None and launched.sampled is not None:
            token_ids = launched.sampled.token_ids
            run.burst.follow(run.scheduler, launched.batch.sampling, token_ids)
        run.while_waiting()
        batch = launched.batch
        run.take_step(batch.spans, batch.sampling, launched.on_host())
        run.num_decode += batch.num_decode
        run.num_prefill += batch.num_rows - batch.num_decode
        spent = time.perf_counter() - began
        if batch.num_decode == batch.num_rows:
            run.decode_s += spent
        else:
            run.prefill_s += spent

    def _launch(self, run: BundleRun) -> Launched:
        """Launch the next general forward; waits for nothing on a GPU. Collective."""
        spans = run.scheduler.next_step()
        if self.device.type == "cpu" and self.collectives.world_size > 1:
            # A GPU would wait here, so its ranks are compared before and after a bundle only.
            run.check_given()
            self._compare(run.digest(spans), f"chose otherwise before step {run.num_steps}").check()
        batch = build_batch(spans, self.cache.page_size, self.device)
        run.capturer.begin(batch)
        rounds = plan_rows(run.plan, batch)
        sites = StepSites(rounds, run.bank, run.capturer, batch.num_rows)
        run.check_given()
        hidden = self.rows_forward.run(batch, sites)
        run.capturer.end()
        sampled = self._sample(batch, hidden)
        coming = sampled.send() if sampled is not None else []
        run.launch_step(batch.spans)
        return Launched(batch, sampled, coming)

    @torch.inference_mode()
    def _sample(self, batch: Batch, hidden_ND: torch.Tensor) -> Sampled | None:
        """Choose the next tokens. Collective."""
        if not batch.sampling:
            return None
        logits = self.forward.local_logits(hidden_ND[batch.sample_rows])
        return sample(
            logits,
            batch.sampling,
            vocab_start=self.model.vocab_start,
            vocab_stop=self.model.vocab_stop,
            collectives=self.collectives,
        )

    def _compare(self, digest: bytes, difference: str) -> Comparison:
        """Start to compare the ranks' digests. Collective."""
        return Comparison(self.collectives, self.device, digest, difference)
