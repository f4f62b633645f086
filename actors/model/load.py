"""Build one rank's plain local model: unmodified Hugging Face modules around this rank's slices.

No DTensor and no wrapped forward. Loading reads, of each checkpoint tensor, only the rows or
columns that this rank holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from actors.model.block_scales import FP8
from actors.model.checkpoint import Checkpoint
from actors.model.family import (
    RANDOM_STD,
    ModelFacts,
    kept_blocks,
    read_model_digest,
    read_model_facts,
)
from actors.model.fp8_experts import (
    IS_EXPERT,
    RANDOM_SCALE,
    fill_fp8_experts,
    hold_fp8,
    random_numbers,
    scales_of,
    to_fp8,
)
from actors.model.quantized import block_shape, expert_blocks, packed_group
from actors.model.random_weights import fill_normal_, name_key
from actors.model.shard import RANK0_ONLY, Slice, find_slice, local_config, vocab_rows
from actors.request import EngineSpec
from conf.errors import UserError

_EXPERT = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)$")
FP8_CAPABILITY = (8, 9)
"""Of GPUs whose instructions know e4m3: Ada, Hopper and later."""


@dataclass(slots=True)
class LocalModel:
    """One rank's share of a model.

    ``embedding_VD`` and ``head_VD`` hold this rank's vocabulary rows (padded to the same count on
    every rank; padding rows are zero). ``layers`` are the family's own decoder layers.
    """

    facts: ModelFacts
    module: nn.Module
    layers: list[Any]
    norm: nn.Module
    rotary: nn.Module
    embedding_VD: Tensor
    head_VD: Tensor
    vocab_start: int
    vocab_stop: int
    rank: int
    world_size: int
    digest: str

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights on this rank; a tied embedding counts once."""
        tensors = {p.data_ptr(): p for p in self.module.parameters()}
        tensors[self.embedding_VD.data_ptr()] = self.embedding_VD  # type: ignore[assignment]
        tensors[self.head_VD.data_ptr()] = self.head_VD  # type: ignore[assignment]
        held = [*tensors.values(), *scales_of(self.module)]
        return sum(t.numel() * t.element_size() for t in held)


def _pieces(
    name: str, local: Tensor, has: Callable[[str], bool]
) -> Iterator[tuple[str, Tensor, tuple[int, int] | None]]:
    """(checkpoint tensor, destination view, index of a fused tensor) for one local parameter.

    Transformers 5 holds experts fused as ``[experts, 2 * width, hidden]``; checkpoints hold one
    tensor per expert and projection, or the fused one.
    """
    match = _EXPERT.match(name)
    if not match:
        yield name, local, None
        return
    prefix, kind = match.groups()
    names = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
    for expert in range(local.shape[0]):
        parts = local[expert].chunk(len(names), dim=0)
        for projection, view in zip(names, parts, strict=True):
            single = f"{prefix}.{expert}.{projection}.weight"
            if not has(single) and has(name):
                half = names.index(projection) if len(names) == 2 else -1
                yield name, view, (expert, half)
            else:
                yield single, view, None


def _whole_shape(local: Tensor, name: str, facts: ModelFacts, world: int) -> tuple[int, ...]:
    """Shape of the whole tensor from the local one (random weights have no file to ask)."""
    shape = list(local.shape)
    probe = find_slice(name, tuple(shape), facts, 0, 1)
    if probe is None:
        return tuple(shape)
    if ".k_proj." in name or ".v_proj." in name:
        kept = max(1, facts.num_kv_heads // world)
        shape[0] = shape[0] // kept * facts.num_kv_heads
    else:
        shape[probe.dim] *= world
    return tuple(shape)


def _fill_random(
    name: str,
    out: Tensor,
    shape: tuple[int, ...],
    part: Slice | None,
    seed: int,
    *,
    is_fp8_model: bool,
) -> None:
    if is_fp8_model and IS_EXPERT.search(name):
        # The same model wherever its experts stay FP8 and wherever they cannot.
        numbers = random_numbers(name, out, shape[1], part, seed)
        out.copy_(to_fp8(numbers).float() * RANDOM_SCALE)
        return
    if out.ndim == 1:
        out.fill_(0.0 if name.endswith(("bias", "e_score_correction_bias")) else 1.0)
        return
    start = (part.start, 0) if part and part.dim == 0 else (0, part.start if part else 0)
    fill_normal_(
        out,
        key=name_key(seed, name),
        std=RANDOM_STD,
        row_length=shape[1],
        row_start=start[0],
        column_start=start[1],
    )


def hf_config(model_path: str, facts: ModelFacts, *, trust_remote_code: bool) -> Any:
    """The Hugging Face config of the whole model, aliases resolved."""
    if facts.config.get("model_type") == facts.model_type:
        return AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    plain = {k: v for k, v in facts.config.items() if k not in ("model_type", "auto_map")}
    return AutoConfig.for_model(facts.model_type, **plain)


def _build(spec: EngineSpec, facts: ModelFacts, config: Any, world: int) -> Any:
    """The rank's Hugging Face model: on the meta device, its vocabulary ends removed."""
    local = local_config(config, facts, world)
    blocks = kept_blocks(spec, facts, world)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            local,
            dtype=getattr(torch, spec.dtype),
            attn_implementation="traitmill",
        )
        model.model.embed_tokens = nn.Identity()
        model.lm_head = nn.Identity()
    if blocks:
        if spec.device == "cuda" and torch.cuda.get_device_capability() < FP8_CAPABILITY:
            raise UserError(
                f"model.path={spec.model_path!r} has FP8 experts, which {_gpu_name()} cannot "
                "read; set model.expert_weights=dequantized (twice the memory)."
            )
        hold_fp8(model, blocks)
    return model


def _gpu_name() -> str:
    return str(torch.cuda.get_device_name())


def _keep_router_biases(model: nn.Module) -> set[str]:
    """Names of the routers' biases; the family compares scores in float32, so they stay so."""
    for module in model.modules():
        bias = module._buffers.get("e_score_correction_bias")
        if bias is not None:
            module._buffers["e_score_correction_bias"] = bias.float()
    return {n for n, _ in model.named_buffers() if n.endswith("e_score_correction_bias")}


def load_model(spec: EngineSpec, *, rank: int, world_size: int) -> LocalModel:
    """Load (or invent) this rank's share of a model; not collective.

    Raises:
        UserError: The checkpoint does not hold what its config.json promises.
    """
    facts = read_model_facts(spec.model_path)
    device = torch.device(spec.device)
    dtype = getattr(torch, spec.dtype)
    config = hf_config(spec.model_path, facts, trust_remote_code=spec.trust_remote_code)
    model = _build(spec, facts, config, world_size)
    rotary = type(model.model.rotary_emb)(config=model.config).to(device)
    model.model.rotary_emb = nn.Identity()
    keep = _keep_router_biases(model)
    model.to_empty(device=device)
    start, stop = vocab_rows(facts.vocab_size, rank, world_size)
    per_rank = -(-facts.vocab_size // world_size)
    tied = bool(config.tie_word_embeddings)
    embedding = torch.zeros(per_rank, facts.hidden_size, dtype=dtype, device=device)
    head = embedding if tied else torch.zeros_like(embedding)
    wanted: list[tuple[str, Tensor]] = [("model.embed_tokens.weight", embedding[: stop - start])]
    if not tied:
        wanted.append(("lm_head.weight", head[: stop - start]))
    wanted += [(n, p) for n, p in model.named_parameters() if p.dtype != FP8]
    wanted += [(n, b) for n, b in model.named_buffers() if n in keep]
    with torch.no_grad(), ExitStack() as stack:
        checkpoint = None
        if spec.weights != "random":
            checkpoint = Checkpoint(
                Path(spec.model_path), stack, block_shape(facts.config), packed_group(facts.config)
            )
        _fill(spec, facts, wanted, rank, world_size, checkpoint)
        fill_fp8_experts(
            model, checkpoint, facts, rank=rank, world=world_size, seed=spec.random_seed
        )
    model.eval()
    return LocalModel(
        facts=facts,
        module=model,
        layers=list(model.model.layers),
        norm=model.model.norm,
        rotary=rotary,
        embedding_VD=embedding,
        head_VD=head,
        vocab_start=start,
        vocab_stop=stop,
        rank=rank,
        world_size=world_size,
        digest=read_model_digest(spec),
    )


def _fill(
    spec: EngineSpec,
    facts: ModelFacts,
    wanted: list[tuple[str, Tensor]],
    rank: int,
    world: int,
    checkpoint: Checkpoint | None,
) -> None:
    is_fp8_model = expert_blocks(facts.config, facts.moe_intermediate_size or 0) is not None
    for name, local in wanted:
        if RANK0_ONLY.search(name) and rank:
            local.zero_()
            continue
        has = (lambda _: True) if checkpoint is None else checkpoint.__contains__
        for source, out, fused in _pieces(name, local, has):
            if checkpoint is None:
                shape = _whole_shape(out, source, facts, world)
                if source.startswith(("model.embed", "lm_head")):
                    shape = (facts.vocab_size, facts.hidden_size)
                part = find_slice(source, shape, facts, rank, world)
                _fill_random(source, out, shape, part, spec.random_seed, is_fp8_model=is_fp8_model)
            elif fused is not None:
                checkpoint.copy_expert(source, fused, out, rank=rank, world_size=world)
            else:
                part = find_slice(source, checkpoint.shape(source), facts, rank, world)
                checkpoint.copy(source, part, out)
