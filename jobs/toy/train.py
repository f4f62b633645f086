"""Train a toy model from nothing but the corpus, and save it as any other checkpoint is saved.

``python -m jobs.toy.train --model toy_mla --out DIR`` runs on a GPU or on CPU cores. The seed fixes
the corpus, the initial weights and the order of the batches.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from jobs.toy.architecture import build_config
from jobs.toy.batches import Batch, build_corpus, draw_batch, map_chunks, swap_some
from jobs.toy.corpus import write_chunk
from jobs.toy.graphs import StepGraphs
from jobs.toy.held_out import TRAITS
from jobs.toy.recipe import Recipe, parse_recipe
from jobs.toy.regularise import (
    ResidualNoise,
    StateReadout,
    balance_loss,
    balance_router,
    run_experts_densely,
)
from jobs.toy.tokenizer import train_tokenizer

log = logging.getLogger(__name__)

TOKENIZER_SEED = 7
TOKENIZER_DOCUMENTS = 40_000
WARM_UP_STEPS = 100
BALANCE_WEIGHT = 0.01
LOG_EVERY = 200
DECIDED_TOKENS = 14
"""How many tokens after a cue weigh more in the loss: they show whether the cue was read."""
DECIDED_WEIGHT = 4.0
GRAPH_WIDTH = 24
"""Batches are padded to a multiple of this when steps are replayed, so that few are recorded."""

# Shapes: B sequences, T positions.


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Float32 weights: the start's, or fresh ones that the seed fixes."""
    torch.manual_seed(recipe.seed)
    if recipe.start is not None:
        loaded = AutoModelForCausalLM.from_pretrained(recipe.start, dtype=torch.float32)
        return cast(PreTrainedModel, loaded)
    config = build_config(
        recipe.model,
        vocab_size=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
    )
    build = cast(Callable[..., PreTrainedModel], AutoModelForCausalLM.from_config)
    return build(config, dtype=torch.float32)


def token_loss(
    logits_BTV: Tensor, ids_BT: Tensor, pad: int, decided_B: Tensor | None = None
) -> Tensor:
    """Weighted mean cross-entropy of each next token; padding counts for nothing.

    Args:
        logits_BTV: Predictions of the token after each position.
        ids_BT: The tokens themselves.
        pad: Id of the padding token.
        decided_B: Position of the first token that a cue decides; the tokens from there weigh
            more. Otherwise all weigh the same.
    """
    losses = nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(),
        ids_BT[:, 1:].flatten(),
        ignore_index=pad,
        reduction="none",
    ).view(ids_BT.shape[0], -1)
    weights = (ids_BT[:, 1:] != pad).float()
    if decided_B is not None:
        since = torch.arange(1, ids_BT.shape[1], device=ids_BT.device) - decided_B[:, None]
        early = (since >= 0) & (since < DECIDED_TOKENS)
        weights = torch.where(early, weights * DECIDED_WEIGHT, weights)
    return (losses * weights).sum() / weights.sum()


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine down to a fiftieth of the peak; progress goes from 0 to 1."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return peak * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))


class Trainer:
    """One model with its optimiser; ``step`` learns from one batch."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, device: str) -> None:
        """Build the model on the device and attach what acts in training only."""
        self.recipe = recipe
        self.model: PreTrainedModel = build_model(recipe, tokenizer)
        nn.Module.to(self.model, device).train()
        self._device = device
        self._pad = int(tokenizer.pad_token_id)
        self._vocab_size = len(tokenizer)
        if device == "cuda":
            run_experts_densely(self.model)
        self._router_logits: list[Tensor] = []
        gates = [m for name, m in self.model.named_modules() if name.endswith("mlp.gate")]
        for gate in gates:
            biased = hasattr(gate, "e_score_correction_bias")
            gate.register_forward_hook(balance_router if biased else self._keep_logits)
        self._noise = ResidualNoise(self.model, share=recipe.noise, seed=recipe.seed)
        self._readout = StateReadout(self.model, num_states=2 * len(TRAITS))
        self._parameters = [*self.model.parameters(), *self._readout.parameters()]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=torch.tensor(0.0, device=device),
            betas=(0.9, 0.95),
            weight_decay=recipe.weight_decay,
            fused=True,
            capturable=recipe.graph,
        )
        self._graphs = (
            StepGraphs(self._learn, lambda: self._optimizer.zero_grad(set_to_none=True))
            if recipe.graph
            else None
        )

    def _keep_logits(self, gate: nn.Module, _: object, output: tuple[Tensor, ...]) -> None:
        if gate.training:
            self._router_logits.append(output[0])

    def _learn(self, batch: Batch) -> Tensor:
        """One whole step with no wait for the device."""
        self._router_logits.clear()
        self._readout.clear()
        self._optimizer.zero_grad(set_to_none=True)
        ids_BT = batch.ids_BT
        shown_BT = swap_some(
            ids_BT,
            share=self.recipe.typos,
            vocab_size=self._vocab_size,
            cue_share=self.recipe.cue_typos,
            decided_B=batch.decided_B,
        )
        length = ids_BT.shape[1]
        # Given whole, the mask is not derived from positions, which would wait for the device.
        causal_11TT = torch.ones(length, length, dtype=torch.bool, device=self._device).tril()
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._device == "cuda"):
            output = self.model(
                input_ids=shown_BT, attention_mask=causal_11TT[None, None], use_cache=False
            )
        loss = token_loss(output.logits, ids_BT, self._pad, batch.decided_B)
        total = loss + self.recipe.readout * self._readout.loss(batch.decided_B, batch.labels_B)
        if self._router_logits:
            total = total + BALANCE_WEIGHT * balance_loss(tuple(self._router_logits))
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        return loss.detach()

    def step(self, batch: Batch, rate: float) -> float:
        """Learn from one batch and return the loss per token, in nats."""
        self._noise.choose_layer()
        for group in self._optimizer.param_groups:
            group["lr"].fill_(rate)
        if self._graphs is None:
            return float(self._learn(batch))
        return float(self._graphs(self._noise.chosen, batch))

    def finish(self) -> PreTrainedModel:
        """The model in evaluation mode."""
        nn.Module.train(self.model, mode=False)
        return self.model


def train(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, device: str) -> PreTrainedModel:
    """Train and return the model in evaluation mode, float32, on the device."""
    begun = time.monotonic()
    corpus = build_corpus(
        tokenizer,
        seed=recipe.seed,
        count=recipe.num_documents,
        length=recipe.sequence_length,
        processes=recipe.processes,
    ).to(device)
    trainer = Trainer(recipe, tokenizer, device)
    multiple = GRAPH_WIDTH if recipe.graph else 1
    order = torch.Generator().manual_seed(recipe.seed)
    started = time.monotonic()
    allowed = recipe.max_seconds - (started - begun)
    log.info("corpus encoded documents=%d elapsed_s=%.1f", recipe.num_documents, started - begun)
    for step in range(recipe.num_steps):
        elapsed = time.monotonic() - started
        progress = max(step / recipe.num_steps, elapsed / allowed if allowed > 0 else 1.0)
        if progress >= 1:
            break
        batch = draw_batch(corpus, recipe.batch_size, order, multiple=multiple)
        loss = trainer.step(batch, learning_rate(step, progress, recipe.learning_rate))
        if step % LOG_EVERY == 0 or step == recipe.num_steps - 1:
            log.info("step=%d loss=%.4f elapsed_s=%.1f", step, loss, elapsed)
    return trainer.finish()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write bf16 weights (router bias float32), configuration and tokenizer."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def _chunk_texts(seed: int, chunk: int) -> list[str]:
    return [document.text for document in write_chunk(seed, chunk)]


def corpus_tokenizer(
    count: int = TOKENIZER_DOCUMENTS, processes: int = 1
) -> PreTrainedTokenizerFast:
    """The tokenizer that both models share, trained anew from its own seed, on whole chunks."""
    chunks = map_chunks(partial(_chunk_texts, TOKENIZER_SEED), count, processes)
    return train_tokenizer(text for texts in chunks for text in texts)


def main() -> None:
    """Train one model as the command line says."""
    recipe, folder, device = parse_recipe(__doc__)
    logging.basicConfig(level=logging.INFO, format=f"{recipe.model} %(message)s")
    tokenizer = (
        corpus_tokenizer(processes=recipe.processes)
        if recipe.start is None
        else cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(recipe.start))
    )
    save(train(recipe, tokenizer, device), tokenizer, folder)


if __name__ == "__main__":
    main()
