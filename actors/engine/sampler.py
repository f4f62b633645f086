"""The chosen token depends on logits and (seed, request, position) alone: not on batch or TP size.

Each rank works on its own vocabulary columns. Greedy takes the largest logit, the smallest token id
among equals. Otherwise Gumbel noise from a counter-based hash of (seed, request id, position, token
id) is added to logits / T and the largest sum wins, which draws from softmax(logits / T) exactly
(Gumbel-max trick, Maddison et al. 2014, arXiv:1411.0030). Top-k, top-p and min-p look at the
``MAX_CANDIDATES`` most likely tokens; a nucleus wider than that is cut there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actors.engine.collectives import Collectives
from actors.engine.landing import Landing, start_fetch
from actors.engine.sequence import Sequence
from actors.engine.staging import stage
from actors.model.random_weights import hash_int64, hash_int64_
from actors.request import Sampling

MAX_CANDIDATES = 1024
MAX_TOP_LOGPROBS = 20
NOISE_BLOCK = 1 << 15
"""Elements of noise made at once on the CPU, so that what is made stays in its cache."""
NOT_FINITE = -1
"""Chosen in place of a token when a row's logits are not finite."""
_GOLDEN = -7046029254386353131


def request_key(seed: int, request_id: str) -> int:
    """Signed 64-bit key of one request's random stream."""
    digest = hashlib.sha256(f"{seed}/{request_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def gumbel_noise(keys_B: Tensor, positions_B: Tensor, token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise, float32.

    Args:
        keys_B: int64 ``[B]`` from ``request_key``.
        positions_B: int64 ``[B]``, position of the token to choose.
        token_ids: int64 ``[V]`` or ``[B, V]``, global ids.
    """
    stream_B1 = hash_int64(keys_B + positions_B * _GOLDEN)[:, None]
    offsets = (token_ids if token_ids.ndim == 2 else token_ids[None]) * _GOLDEN + _GOLDEN
    out_BV = torch.empty(len(keys_B), offsets.shape[1], device=keys_B.device)
    rows, columns = _block_shape(out_BV)
    bits = torch.empty((rows, columns), dtype=torch.int64, device=keys_B.device)
    scratch, uniform = torch.empty_like(bits), torch.empty_like(bits, dtype=torch.float64)
    for row in range(0, len(out_BV), rows):
        here = slice(row, row + rows)
        for column in range(0, out_BV.shape[1], columns):
            out = out_BV[here, column : column + columns]
            high, wide = out.shape
            x, u = bits[:high, :wide], uniform[:high, :wide]
            offset = offsets[here] if len(offsets) > 1 else offsets
            torch.add(stream_B1[here], offset[:, column : column + columns], out=x)
            hash_int64_(x, scratch[:high, :wide])
            x >>= 11
            x &= (1 << 53) - 1
            u.copy_(x).add_(0.5).mul_(2.0**-53)
            out.copy_(u.log_().neg_().log_()).neg_()
    return out_BV


def _block_shape(out_BV: Tensor) -> tuple[int, int]:
    """Rows and columns of noise that are made at once."""
    rows, columns = out_BV.shape
    if out_BV.is_cuda:
        return max(rows, 1), max(columns, 1)
    columns = max(1, min(columns, NOISE_BLOCK))
    return max(1, min(rows, NOISE_BLOCK // columns)), columns


@dataclass(frozen=True, slots=True)
class Sampled:
    """Choices of one step for B sequences, on the device."""

    token_ids: Tensor
    """int64 ``[B]``"""
    chosen_logprobs: Tensor | None = None
    """float32 ``[B]``; only when some request asks for log-probabilities."""
    top_ids: Tensor | None = None
    top: Tensor | None = None
    named: Tensor | None = None

    def send(self) -> list[Landing]:
        """Start to bring the choices to the host, tokens first."""
        fields = (self.token_ids, self.chosen_logprobs, self.top_ids, self.top, self.named)
        return [start_fetch(field) for field in fields if field is not None]

    @classmethod
    def landed(cls, coming: list[Landing]) -> Sampled:
        """What ``send`` started, waited for."""
        for one in coming:
            one.wait()
        return cls(*(one.host for one in coming))


def _penalise(logits_BV: Tensor, sequences: tuple[Sequence, ...], start: int, stop: int) -> None:
    """Apply the repetition penalty (CTRL, arXiv:1909.05858) in place to this rank's columns."""
    for row, sequence in enumerate(sequences):
        penalty = sequence.request.sampling.repetition_penalty
        if penalty == 1.0:
            continue
        here = sorted({t - start for t in sequence.tokens if start <= t < stop})
        if not here:
            continue
        columns = stage(np.array(here, np.int64), logits_BV.device)
        values = logits_BV[row, columns]
        logits_BV[row, columns] = torch.where(values > 0, values / penalty, values * penalty)


def _best(values_BC: Tensor, ids_BC: Tensor, collectives: Collectives) -> Tensor:
    """Global id of the largest value per row; the smallest id among equals. Collective."""
    value, column = values_BC.max(dim=-1)
    ids = ids_BC.gather(-1, column[:, None])[:, 0]
    ids = torch.where(value.isnan(), NOT_FINITE, ids)
    if collectives.world_size == 1:
        return ids
    both = torch.stack((value.double(), ids.double()), dim=-1)
    gathered = collectives.all_gather(both)  # [world, B, 2]; ranks are in order of vocabulary
    winner = gathered[..., 0].argmax(dim=0)  # NaN counts as largest
    return gathered[..., 1].gather(0, winner[None])[0].long()


def _candidates(
    logits_BV: Tensor, ids_V: Tensor, count: int, collectives: Collectives
) -> tuple[Tensor, Tensor]:
    """The ``count`` largest logits of the whole vocabulary and their ids, sorted. Collective."""
    local = min(count, logits_BV.shape[-1])
    values, columns = logits_BV.topk(local, dim=-1)
    ids = ids_V[columns]
    if collectives.world_size > 1:
        both = torch.stack((values.double(), ids.double()), dim=-1)
        parts = collectives.all_gather(both)  # [world, B, local, 2]
        merged = parts.permute(1, 0, 2, 3).reshape(values.shape[0], -1, 2)
        values, ids = merged[..., 0].float(), merged[..., 1].long()
    # Order by value, then by id, so that ties fall the same way at every tensor-parallel size.
    order = ids.argsort(dim=-1, stable=True)
    values, ids = values.gather(-1, order), ids.gather(-1, order)
    values, order = values.sort(dim=-1, descending=True, stable=True)
    return values[:, :count], ids.gather(-1, order)[:, :count]


def _log_normalizer(logits_BV: Tensor, collectives: Collectives) -> Tensor:
    """Logsumexp over the whole vocabulary, ``[B]``. Collective."""
    local = logits_BV.double().logsumexp(dim=-1)
    return collectives.all_gather(local).logsumexp(dim=0).float()


def _truncate(values_BC: Tensor, log_z_B: Tensor, options: list[Sampling]) -> Tensor:
    """Mask candidates (sorted, already divided by T) outside top-k, top-p and min-p with -inf."""
    device, width = values_BC.device, values_BC.shape[-1]
    top_k = stage(np.array([o.top_k or width for o in options]), device)[:, None]
    top_p = stage(np.array([o.top_p for o in options], np.float32), device)[:, None]
    min_p = stage(np.array([o.min_p for o in options], np.float32), device)[:, None]
    rank = torch.arange(width, device=device)[None]
    kept = rank < top_k
    # Filters apply one after the other on the renormalised rest, as in transformers.
    log_z = torch.where(
        (top_k < width)[:, 0],
        values_BC.masked_fill(~kept, float("-inf")).logsumexp(dim=-1),
        log_z_B,
    )
    probability = (values_BC - log_z[:, None]).exp()
    before = probability.cumsum(dim=-1) - probability
    kept = kept & ((before < top_p) | (rank == 0))
    kept = kept & (probability >= min_p * probability[:, :1])
    return values_BC.masked_fill(~kept, float("-inf"))


def sample(
    logits_BV: Tensor,
    sequences: tuple[Sequence, ...],
    *,
    vocab_start: int,
    vocab_stop: int,
    collectives: Collectives,
) -> Sampled:
    """Choose the next token of each sequence, without a wait for the device. Collective.

    Args:
        logits_BV: float32, this rank's columns; overwritten.
        sequences: One per row.
        vocab_start: Global id of column 0.
        vocab_stop: One past the last real column's global id.
        collectives: Of the group.
    """
    device = logits_BV.device
    ids_V = torch.arange(logits_BV.shape[-1], device=device) + vocab_start
    options = [s.request.sampling for s in sequences]
    if any(o.repetition_penalty != 1.0 for o in options):
        _penalise(logits_BV, sequences, vocab_start, vocab_stop)
    temperature = stage(np.array([o.temperature or 1.0 for o in options], np.float32), device)
    scaled = logits_BV / temperature[:, None]
    wants = any(wants_logprobs(s) for s in sequences)
    free = [r for r, o in enumerate(options) if o.temperature and not _is_cut(o)]
    cut = [r for r, o in enumerate(options) if o.temperature and _is_cut(o)]
    log_z = _log_normalizer(scaled, collectives) if wants or cut else None
    scores = scaled
    if free:
        noise = gumbel_noise(*_draw_keys(sequences, free, device), ids_V)
        if len(free) == len(sequences):
            scores = scaled + noise
        else:
            scores = _add_rows(scaled, stage(np.array(free), device), noise)
    chosen = _best(scores, ids_V[None].expand_as(scores), collectives)
    if cut and log_z is not None:
        rows = stage(np.array(cut), device)
        width = min(MAX_CANDIDATES, logits_BV.shape[-1] * collectives.world_size)
        values, ids = _candidates(scaled[rows], ids_V, width, collectives)
        values = _truncate(values, log_z[rows], [options[r] for r in cut])
        values += gumbel_noise(*_draw_keys(sequences, cut, device), ids)
        drawn = ids.gather(-1, values.argmax(dim=-1, keepdim=True))[:, 0]
        chosen[rows] = torch.where(chosen[rows] == NOT_FINITE, NOT_FINITE, drawn)
    if not wants or log_z is None:
        return Sampled(chosen)
    return _with_logprobs(chosen, scaled, log_z, ids_V, sequences, collectives)


def _is_cut(sampling: Sampling) -> bool:
    """True when not every token may be drawn."""
    return bool(sampling.top_k or sampling.top_p < 1 or sampling.min_p)


def _add_rows(scaled_BV: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
    """The noise added to these rows; the others are greedy or drawn among candidates."""
    scores = scaled_BV.clone()
    scores[rows] += noise
    return scores


def _draw_keys(
    sequences: tuple[Sequence, ...], rows: list[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What each sequence's next draw depends on: its request's key and its position."""
    requests = [sequences[r].request for r in rows]
    keys = np.array([request_key(q.sampling.seed, q.id) for q in requests], np.int64)
    positions = np.array([len(sequences[r].tokens) for r in rows], np.int64)
    return stage(keys, device), stage(positions, device)


def wants_logprobs(sequence: Sequence) -> bool:
    """True when the request asks for log-probabilities."""
    request = sequence.request
    return bool(request.num_top_logprobs or request.logprob_token_ids)


def _with_logprobs(
    chosen: Tensor,
    scaled_BV: Tensor,
    log_z: Tensor,
    ids_V: Tensor,
    sequences: tuple[Sequence, ...],
    collectives: Collectives,
) -> Sampled:
    """Log-probabilities of the chosen, the likeliest and the named tokens. Collective."""
    most = max(len(s.request.logprob_token_ids) for s in sequences)
    wanted = np.zeros((len(sequences), most + 1), np.int64)
    for row, sequence in enumerate(sequences):
        ids = sequence.request.logprob_token_ids
        wanted[row, 1 : 1 + len(ids)] = ids
    named = stage(wanted, chosen.device)
    named[:, 0] = chosen
    local = named - ids_V[0]
    mine = (local >= 0) & (local < scaled_BV.shape[-1])
    values = scaled_BV.gather(-1, local.clamp(0, scaled_BV.shape[-1] - 1))
    # A token is held by one rank; the others contribute nothing to the sum.
    finite = torch.where(mine, values, torch.zeros_like(values))
    named_logprobs = collectives.all_reduce(finite) - log_z[:, None]
    top, top_ids = _candidates(scaled_BV, ids_V, MAX_TOP_LOGPROBS, collectives)
    return Sampled(
        token_ids=chosen,
        chosen_logprobs=named_logprobs[:, 0],
        top_ids=top_ids,
        top=top - log_z[:, None],
        named=named_logprobs[:, 1:],
    )
