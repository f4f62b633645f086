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
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.batch import Batch
from actors.engine.positions import Where, parse_steering
from actors.engine.staging import blank, rows_of, stage, there
from actors.request import Bundle, Operator, Request, Steering, SteeringReceipt

OPERATORS: tuple[Operator, ...] = ("add", "add_norm_matched", "ablate", "floor", "ceiling")
Place = tuple[str, int]
"""(site, layer)"""


def vector_sha256(vector: np.ndarray) -> str:
    """sha256 of a vector's float32 little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()


@dataclass(slots=True)
class Entry:
    """One steering entry of one request, ready to apply."""

    steering: Steering
    where: Where
    slot: int
    """Row of the bank."""
    num_rows: int = 0

    @property
    def is_idle(self) -> bool:
        """True when the operator cannot change a row."""
        return self.steering.coefficient == 0 and self.steering.operator not in ("floor", "ceiling")


@dataclass(slots=True)
class Run:
    """Rows of one entry in a forward."""

    rows: slice | NDArray[np.int64]
    count: int
    numbers: tuple[int, int, float]
    """Slot, operator (index into ``OPERATORS``), coefficient. Slots and operators are small whole
    numbers, exact in float32."""


@dataclass(frozen=True, slots=True)
class Round:
    """Operators applied at once: at most one per row. On the host until it is applied."""

    runs: tuple[Run, ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Of the forward, ``[R]``."""
        parts = (r.rows for r in self.runs)
        return np.concatenate(
            [np.arange(p.start, p.stop) if isinstance(p, slice) else p for p in parts]
        )

    @property
    def packed(self) -> NDArray[np.float32]:
        """``[3, R]``: the numbers of each row's run."""
        columns = np.asarray([r.numbers for r in self.runs], np.float32)
        return np.repeat(columns.T, [r.count for r in self.runs], axis=1)

    @property
    def kinds(self) -> frozenset[int]:
        """Operators present."""
        return frozenset(r.numbers[1] for r in self.runs)


@dataclass(slots=True)
class Bank:
    """A bundle's vectors on the device; slot 0 is zeros."""

    vectors_VD: Tensor
    units_VD: Tensor
    slot_of: dict[str, int]
    marks: dict[str, int]
    """By key: the sum of a vector's bits. What decides that ranks were given the same vectors must
    be there before the first forward, and a digest of all of them would keep the GPU waiting."""
    _digests: Future[dict[str, str]]

    def sha256(self, key: str) -> str:
        """Digest of a vector, made while forwards run."""
        return self._digests.result()[key]


def build_bank(bundle: Bundle, width: int, device: torch.device) -> Bank:
    """Stack a bundle's vectors of the residual width (others belong to no steerable site)."""
    keys = [k for k in sorted(bundle.vectors) if bundle.vectors[k].shape == (width,)]
    host = blank((len(keys) + 1, width), device)
    stacked = host.numpy()
    for slot, key in enumerate(keys, start=1):
        stacked[slot] = bundle.vectors[key]
    vectors = there(host, device)
    norms = vectors.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    bits = stacked.view(np.uint32 if width % 2 else np.uint64).sum(axis=1, dtype=np.uint64)
    return Bank(
        vectors_VD=vectors,
        units_VD=vectors / norms,
        slot_of={k: i for i, k in enumerate(keys, start=1)},
        marks=dict(zip(keys, bits[1:].tolist(), strict=True)),
        _digests=_hasher().submit(_digests, {k: bundle.vectors[k] for k in keys}),
    )


@cache
def _hasher() -> ThreadPoolExecutor:
    """One thread: hashing needs no lock, so it goes on beside the thread that feeds the device."""
    return ThreadPoolExecutor(1, thread_name_prefix="digests")


def _digests(vectors: dict[str, NDArray[np.float32]]) -> dict[str, str]:
    return {key: vector_sha256(vector) for key, vector in vectors.items()}


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
                vector_sha256=self.bank.sha256(e.steering.vector),
                coefficient=e.steering.coefficient,
                num_rows=e.num_rows,
            )
            for e in self.entries.get(request.id, ())
        )

    def prefix_key(self, request: Request, prompt_length: int) -> tuple[bytes, int]:
        """(what steering does to the prompt, first position it touches) for page sharing.

        Pages are shared inside a bundle, where a slot of the bank says which vector it is.
        """
        parts, first = [], prompt_length
        for entry in self.entries.get(request.id, ()):
            if entry.is_idle or not entry.where.touches_before(prompt_length):
                continue
            s = entry.steering
            where = sorted(entry.where.explicit or ()) or (entry.where.start, entry.where.stop)
            parts.append(repr((s.layer, s.site, s.operator, s.coefficient, entry.slot, where)))
            start = min(entry.where.explicit) if entry.where.explicit else entry.where.start
            first = min(first, start)
        return "|".join(parts).encode(), first


def build_plan(bundle: Bundle, bank: Bank, limit: int) -> Plan:
    """A plan in which all requests of a bundle are open."""
    plan = Plan(bank, limit)
    for request in bundle.requests:
        plan.open(request)
    return plan


def plan_rows(plan: Plan, batch: Batch) -> dict[Place, list[Round]]:
    """Which rows of this forward get which operator, per place; counts them for the receipts."""
    collected: dict[Place, list[list[Run]]] = {}
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
            rounds[number].append(_to_run(touched, row - span.start, entry))
        row += span.stop - span.start
    return {place: [Round(tuple(runs)) for runs in rounds] for place, rounds in collected.items()}


def _to_run(touched: Sequence[int], offset: int, entry: Entry) -> Run:
    """The rows of a forward that lie ``offset`` behind the touched positions."""
    rows: slice | NDArray[np.int64]
    if isinstance(touched, range):
        rows = slice(touched.start + offset, touched.stop + offset)
    else:
        rows = rows_of(touched) + offset
    kind = OPERATORS.index(entry.steering.operator)
    return Run(rows, len(touched), (entry.slot, kind, entry.steering.coefficient))


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
    device = bank.vectors_VD.device
    host = blank((len(places), 3, -(-num_rows // 4) * 4), device)
    for packed, place in zip(host.numpy(), places, strict=True):
        for run in rounds[place][0].runs:
            packed[0, run.rows], packed[1, run.rows], packed[2, run.rows] = run.numbers
    whole = there(host, device)  # one copy for all places
    ints = whole[:, :2].to(torch.int32)
    return {
        place: (bank.vectors_VD, bank.units_VD, ints[i, 0], ints[i, 1], whole[i, 2])
        for i, place in enumerate(places)
    }


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
