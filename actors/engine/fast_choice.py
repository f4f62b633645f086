"""The end of a decode step: every row's next token, and the rows one position further."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from actors.engine.collectives import Collectives
from actors.engine.fast_state import DecodeState
from actors.kernels.choose import PART, advance, choose_local
from actors.model.load import LocalModel


def choose_tokens(
    state: DecodeState, model: LocalModel, collectives: Collectives, normed_BD: Tensor
) -> None:
    """Choose every row's next token and move on. Collective."""
    rows, device = normed_BD.shape[0], normed_BD.device
    logits = torch.mm(normed_BD, model.head_VD.t(), out_dtype=torch.float32)
    parts = -(-logits.shape[1] // PART)
    scratch = (
        torch.empty(rows, parts, dtype=torch.float32, device=device),
        torch.empty(rows, parts, dtype=torch.int32, device=device),
    )
    best = torch.empty(rows, 2, dtype=torch.float32, device=device)
    choose_local(
        logits, state.keys[:rows], state.positions[:rows], state.temperatures[:rows], scratch,
        best, held=model.vocab_stop - model.vocab_start, start=model.vocab_start,
    )  # fmt: skip
    world = collectives.world_size
    gathered = best[None]
    if world > 1:
        gathered = torch.empty(world, rows, 2, dtype=torch.float32, device=device)
        dist.all_gather_into_tensor(gathered.view(-1), best.view(-1), group=collectives.group)
    _move_on(state, gathered)


@torch.inference_mode()
def take_tokens(state: DecodeState, token_ids: Tensor) -> None:
    """Give the first rows tokens that were chosen elsewhere, as a step of theirs would.

    Args:
        state: Of rows whose newest token's row has been run.
        token_ids: int64 ``[B]``; negative where logits were not finite.
    """
    chosen = torch.zeros(1, token_ids.shape[0], 2, device=token_ids.device)
    chosen[0, :, 1] = token_ids.to(torch.int32).view(torch.float32)
    state.step.zero_()
    _move_on(state, chosen)


def _move_on(state: DecodeState, gathered: Tensor) -> None:
    """Join the ranks' choices ``[ranks, B, 2]`` and move every row one position on."""
    advance(
        gathered, state.tokens, state.positions, state.live, state.eos, state.left,
        state.history, state.step,
    )  # fmt: skip
