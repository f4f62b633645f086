"""Steering is applied by row: each row gets its own request's operators and nobody else's.

Operators, on a row h of the residual stream with vector v and coefficient c (float32, then cast):

* add: ``h + c v`` (ActAdd, arXiv:2308.10248);
* add_norm_matched: ``h + c |h| v`` (arXiv:2512.15674);
* ablate: ``h - c (h . u) u`` with ``u = v / |v|`` (directional ablation, arXiv:2406.11717);
* floor / ceiling: move the projection on u up / down to c where it is below / above
  (activation capping).

An entry whose coefficient is 0 and whose operator then does nothing is dropped before it reaches a
row, so it is bit-identical to no steering.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.batch import Batch
from actors.engine.positions import Where, parse_steering
from actors.engine.staging import rows_of, stage
from actors.request import Bundle, Operator, Request, Steering, SteeringReceipt

OPERATORS: tuple[Operator, ...] = ("add", "add_norm_matched", "ablate", "floor", "ceiling")
Place = tuple[str, int]
"""(site, layer)"""
MANY_VECTORS = 32


def vector_sha256(vector: np.ndarray) -> str:
    """sha256 of a vector's float32 little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()


@dataclass(slots=True)
class Entry:
    """One steering entry of one request, ready to apply."""

    steering: Steering
    where: Where
    slot: int
    """Row of the bank."""
    sha256: str
    num_rows: int = 0

    @property
    def is_idle(self) -> bool:
        """True when the operator cannot change a row."""
        return self.steering.coefficient == 0 and self.steering.operator not in ("floor", "ceiling")


@dataclass(frozen=True, slots=True)
class Round:
    """Operators applied at once: at most one per row. On the host until it is applied."""

    rows: NDArray[np.int64]
    """``[R]``"""
    packed: NDArray[np.float32]
    """``[3, R]``: slots, operators (index into ``OPERATORS``), coefficients. Slots and operators
    are small whole numbers, exact in float32."""
    kinds: frozenset[int]
    """Operators present."""


@dataclass(slots=True)
class Bank:
    """A bundle's vectors on the device; slot 0 is zeros."""

    vectors_VD: Tensor
    units_VD: Tensor
    slot_of: dict[str, int]
    sha256_of: dict[str, str]


def build_bank(bundle: Bundle, width: int, device: torch.device) -> Bank:
    """Stack a bundle's vectors of the residual width (others belong to no steerable site)."""
    keys = [k for k in sorted(bundle.vectors) if bundle.vectors[k].shape == (width,)]
    stacked = np.zeros((len(keys) + 1, width), dtype=np.float32)
    for slot, key in enumerate(keys, start=1):
        stacked[slot] = bundle.vectors[key]
    vectors = stage(stacked, device)
    norms = vectors.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    return Bank(
        vectors_VD=vectors,
        units_VD=vectors / norms,
        slot_of={k: i for i, k in enumerate(keys, start=1)},
        sha256_of=_digests(bundle, keys),
    )


def _digests(bundle: Bundle, keys: list[str]) -> dict[str, str]:
    """Digest of each vector; many are made by several threads, for hashing needs no lock."""
    if len(keys) < MANY_VECTORS:
        return {k: vector_sha256(bundle.vectors[k]) for k in keys}
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as threads:
        return dict(
            zip(keys, threads.map(vector_sha256, (bundle.vectors[k] for k in keys)), strict=True)
        )


@dataclass(slots=True)
class Plan:
    """The entries of every request that is open, in each request's own order."""

    bank: Bank
    limit: int
    """Tokens of one sequence at most."""
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    """Request id -> its entries, in request order."""

    def open(self, request: Request) -> None:
        """Resolve a request's steering; it was checked before."""
        if request.steering:
            self.entries[request.id] = [
                Entry(
                    steering=s,
                    where=parse_steering(s.positions, request.prompt_length, self.limit),
                    slot=self.bank.slot_of[s.vector],
                    sha256=self.bank.sha256_of[s.vector],
                )
                for s in request.steering
            ]

    def close(self, request: Request) -> None:
        """Forget a request."""
        self.entries.pop(request.id, None)

    def receipts(self, request: Request) -> tuple[SteeringReceipt, ...]:
        """What was really applied to a request so far."""
        return tuple(
            SteeringReceipt(
                layer=e.steering.layer,
                site=e.steering.site,
                operator=e.steering.operator,
                vector=e.steering.vector,
                vector_sha256=e.sha256,
                coefficient=e.steering.coefficient,
                num_rows=e.num_rows,
            )
            for e in self.entries.get(request.id, ())
        )

    def prefix_key(self, request: Request, prompt_length: int) -> tuple[bytes, int]:
        """(what steering does to the prompt, first position it touches) for page sharing."""
        parts, first = [], prompt_length
        for entry in self.entries.get(request.id, ()):
            if entry.is_idle or not entry.where.touches_before(prompt_length):
                continue
            s = entry.steering
            where = sorted(entry.where.explicit or ()) or (entry.where.start, entry.where.stop)
            parts.append(repr((s.layer, s.site, s.operator, s.coefficient, entry.sha256, where)))
            start = min(entry.where.explicit) if entry.where.explicit else entry.where.start
            first = min(first, start)
        return "|".join(parts).encode(), first


def build_plan(bundle: Bundle, bank: Bank, limit: int) -> Plan:
    """A plan in which all requests of a bundle are open."""
    plan = Plan(bank, limit)
    for request in bundle.requests:
        plan.open(request)
    return plan


_Run = tuple[NDArray[Any], Entry]
"""Rows of one entry."""


def plan_rows(plan: Plan, batch: Batch) -> dict[Place, list[Round]]:
    """Which rows of this forward get which operator, per place; counts them for the receipts."""
    collected: dict[Place, list[list[_Run]]] = {}
    row = 0
    for span in batch.spans:
        entries = [e for e in plan.entries.get(span.sequence.request.id, ()) if not e.is_idle]
        depth: dict[Place, int] = {}
        for entry in entries:
            place = (entry.steering.site, entry.steering.layer)
            # Positions in shared pages were steered alike by the sequence that wrote them; a
            # preempted sequence's earlier positions were counted then.
            entry.num_rows += len(entry.where.within(span.sequence.num_captured, span.stop))
            touched = entry.where.within(span.start, span.stop)
            if not touched:
                continue
            number = depth.get(place, 0)
            depth[place] = number + 1
            rounds = collected.setdefault(place, [])
            while len(rounds) <= number:
                rounds.append([])
            rounds[number].append((rows_of(touched) + (row - span.start), entry))
        row += span.stop - span.start
    return {place: [_to_round(runs) for runs in rounds] for place, rounds in collected.items()}


def fuse_rounds(
    rounds: dict[Place, list[Round]], bank: Bank, num_rows: int
) -> dict[Place, tuple[Tensor, ...]]:
    """Places with one round as arguments of the fused residual kernel.

    Returns:
        By place: (bank ``[V, D]``, units ``[V, D]``, slots ``[N]`` int32, operators ``[N]`` int32,
        coefficients ``[N]`` float32) over all N rows of the forward; slot 0 changes nothing.
    """
    places = [place for place, found in rounds.items() if len(found) == 1]
    if not places:
        return {}
    # Rows of 16 bytes, or Triton would compile a kernel for every alignment that comes along.
    host = np.zeros((len(places), 3, -(-num_rows // 4) * 4), np.float32)
    for number, place in enumerate(places):
        (found,) = rounds[place]
        host[number][:, found.rows] = found.packed
    whole = stage(host, bank.vectors_VD.device)  # one copy for all places
    ints = whole[:, :2].to(torch.int32)
    return {
        place: (bank.vectors_VD, bank.units_VD, ints[i, 0], ints[i, 1], whole[i, 2])
        for i, place in enumerate(places)
    }


def _to_round(runs: list[_Run]) -> Round:
    counts = [len(rows) for rows, _ in runs]
    kinds = [OPERATORS.index(e.steering.operator) for _, e in runs]
    columns = [[e.slot for _, e in runs], kinds, [e.steering.coefficient for _, e in runs]]
    return Round(
        rows=np.concatenate([rows for rows, _ in runs]),
        packed=np.repeat(np.asarray(columns, np.float32), counts, axis=1),
        kinds=frozenset(kinds),
    )


def apply_round(hidden_ND: Tensor, batch_round: Round, bank: Bank) -> None:
    """Change the round's rows of ``hidden_ND`` in place; other rows are not touched."""
    device = hidden_ND.device
    at, packed = stage(batch_round.rows, device), stage(batch_round.packed, device)
    slots, operators = packed[0].long(), packed[1].long()
    rows = hidden_ND[at].float()
    c = packed[2][:, None]
    changed = rows
    if batch_round.kinds & {0, 1}:
        vector = bank.vectors_VD[slots]
        length = torch.where((operators == 1)[:, None], rows.norm(dim=-1, keepdim=True), 1.0)
        changed = torch.where((operators <= 1)[:, None], rows + c * length * vector, rows)
    if batch_round.kinds & {2, 3, 4}:
        unit = bank.units_VD[slots]
        along = (rows * unit).sum(dim=-1, keepdim=True)
        kind = operators[:, None]
        shift = torch.where(kind == 2, -c * along, torch.zeros_like(along))
        shift = torch.where(kind == 3, (c - along).clamp_min(0.0), shift)
        shift = torch.where(kind == 4, (c - along).clamp_max(0.0), shift)
        changed = torch.where(kind >= 2, rows + shift * unit, changed)
    hidden_ND[at] = changed.to(hidden_ND.dtype)
