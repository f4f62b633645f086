"""A rank's experts in FP8: half the memory of bfloat16, half the bytes that a decode step reads.

The numbers and their scales are those of the checkpoint. Where every row uses one shared expert, it
is the last of the expert tensors; its module keeps a plain copy for forwards that run modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from actors.model.block_scales import FP8, LARGEST, BlockScaled, Matrix
from actors.model.checkpoint import Checkpoint
from actors.model.family import RANDOM_STD, ModelFacts
from actors.model.quantized import ExpertBlocks
from actors.model.random_weights import fill_normal_, name_key
from actors.model.shard import Slice, find_slice
from conf.errors import UserError

RANDOM_SCALE = RANDOM_STD * 3.5 / LARGEST
"""Of every block of random experts; no random weight is further than 3.5 deviations from 0."""
IS_EXPERT = re.compile(r"\.(experts\.\d+|shared_experts)\.(gate|up|down)_proj\.weight$")


def hold_fp8(model: nn.Module, blocks: ExpertBlocks) -> None:
    """Give a model on the meta device FP8 experts with scales instead of its own."""
    for mlp in _mixtures(model):
        experts = mlp.experts
        config: Any = model.config
        shared = int(getattr(config, "n_shared_experts", None) == 1)
        for name, block in (("gate_up", blocks.gate_up), ("down", blocks.down)):
            number, rows, columns = getattr(experts, f"{name}_proj").shape
            shape = (number + shared, rows, columns)
            values = torch.empty(shape, dtype=FP8, device="meta")
            setattr(experts, f"{name}_proj", nn.Parameter(values, requires_grad=False))
            counts = (-(-rows // block[0]), -(-columns // block[1]))
            scales = torch.empty(shape[0], *counts, dtype=torch.float32, device="meta")
            experts.register_buffer(f"{name}_scales", scales)
            setattr(experts, f"{name}_block", block)


def _mixtures(model: nn.Module) -> list[Any]:
    found: Any = model.modules()
    return [m for m in found if hasattr(m, "experts") and hasattr(m.experts, "gate_up_proj")]


def is_fp8(experts: Any) -> bool:
    """True for experts that ``hold_fp8`` gave their weights."""
    return bool(experts.gate_up_proj.dtype == FP8)


def block_scaled(experts: Any) -> tuple[BlockScaled, BlockScaled]:
    """(gate and up ``[E, 2I, D]``, down ``[E, D, I]``) of FP8 experts, a shared one last."""
    gate_up, down = (
        BlockScaled(
            getattr(experts, f"{name}_proj").data,
            getattr(experts, f"{name}_scales"),
            getattr(experts, f"{name}_block"),
        )
        for name in ("gate_up", "down")
    )
    return gate_up, down


def scales_of(model: nn.Module) -> list[Tensor]:
    """Scales of all FP8 experts."""
    return [b for n, b in model.named_buffers() if n.endswith((".gate_up_scales", ".down_scales"))]


def matrices(prefix: str, experts: Any, num_experts: int) -> Iterator[Matrix]:
    """Every matrix of a layer's FP8 experts; ``prefix`` ends with ``.experts``."""
    gate_up, down = block_scaled(experts)
    for expert in range(gate_up.shape[0]):
        is_shared = expert == num_experts
        owner = prefix.removesuffix("experts") + "shared_experts" if is_shared else None
        for half, kind in ((0, "gate"), (1, "up"), (-1, "down")):
            name = f"{owner or f'{prefix}.{expert}'}.{kind}_proj.weight"
            yield Matrix(name, down if half < 0 else gate_up, expert, half)


def fill_fp8_experts(
    model: nn.Module,
    checkpoint: Checkpoint | None,
    facts: ModelFacts,
    *,
    rank: int,
    world: int,
    seed: int,
) -> None:
    """Read, or invent, every FP8 expert's part of this rank.

    Raises:
        UserError: The checkpoint's experts are not FP8, not of the shape promised, or no numbers.
    """
    for prefix, experts in model.named_modules():
        if not prefix.endswith(".experts") or not is_fp8(experts):
            continue
        not_numbers = torch.zeros((), dtype=torch.bool, device=experts.gate_up_proj.device)
        for matrix in matrices(prefix, experts, facts.num_experts):
            rows, columns = matrix.values.shape
            shape: tuple[int, ...] = (
                (rows, columns * world) if matrix.half < 0 else (rows * world, columns)
            )
            if checkpoint is not None and matrix.name in checkpoint:
                shape = checkpoint.shape(matrix.name)
            part = find_slice(matrix.name, shape, facts, rank, world)
            if checkpoint is None:
                numbers = random_numbers(matrix.name, matrix.values, shape[1], part, seed)
                matrix.values.copy_(to_fp8(numbers))
                matrix.scales.fill_(RANDOM_SCALE)
            else:
                checkpoint.copy_fp8(prefix, matrix, part, rank=rank, world_size=world)
                not_numbers |= _is_no_number(matrix.values).any()
        if checkpoint is not None and not_numbers:
            raise UserError(
                f"model.path={str(checkpoint.folder)!r} holds FP8 weights in {prefix} that are not "
                "numbers; download the checkpoint again."
            )


def _is_no_number(values: Tensor) -> Tensor:
    """True where an e4m3 value is no number: all bits but the sign are set."""
    return (values.view(torch.uint8) & 0x7F) == 0x7F


def random_numbers(name: str, like: Tensor, columns: int, part: Slice | None, seed: int) -> Tensor:
    """float32 random weights of one rank's part of a matrix of so many columns."""
    numbers = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    first = part.start if part else 0
    fill_normal_(
        numbers,
        key=name_key(seed, name),
        std=RANDOM_STD,
        row_length=columns,
        row_start=first if part and part.dim == 0 else 0,
        column_start=first if part and part.dim == 1 else 0,
    )
    return numbers


def to_fp8(numbers: Tensor) -> Tensor:
    """Random weights as they are stored in FP8."""
    return (numbers / RANDOM_SCALE).to(FP8)
