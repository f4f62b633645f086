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

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.engine.bank import Bank
from actors.engine.batch import Batch
from actors.engine.positions import Where, parse_steering
from actors.engine.staging import rows_of, stage
from actors.request import Bundle, Operator, Request, Steering, SteeringReceipt

OPERATORS: tuple[Operator, ...] = ("add", "add_norm_matched", "ablate", "floor", "ceiling")
Place = tuple[str, int]
"""(site, layer)"""


@dataclass(slots=True)
class Entry:
    """One steering entry of one request, ready to apply."""

    steering: Steering
    where: Where
    slot: int
    """Row of the bank."""
    num_rows: int = 0
    kind: int = field(init=False)
    """The operator, as its place in ``OPERATORS``."""
    is_idle: bool = field(init=False)
    """True when the operator cannot change a row."""

    def __post_init__(self) -> None:
        s = self.steering
        self.kind = OPERATORS.index(s.operator)
        self.is_idle = s.coefficient == 0 and s.operator not in ("floor", "ceiling")


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
            s, touched = entry.steering, entry.where
            where = sorted(touched.explicit) if touched.explicit else (touched.start, touched.stop)
            parts.append(repr((s.layer, s.site, s.operator, s.coefficient, entry.slot, where)))
            first = min(first, where[0])
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
        depth: dict[Place, int] = {}
        for entry in plan.entries.get(span.sequence.request.id, ()):
            if entry.is_idle:
                continue
            touched = entry.where.within(span.start, span.stop)
            # Positions in shared pages were steered alike by the sequence that wrote them; a
            # preempted sequence's earlier positions were counted then.
            captured = span.sequence.num_captured
            fresh = touched if captured == span.start else entry.where.within(captured, span.stop)
            entry.num_rows += len(fresh)
            if not touched:
                continue
            place = (entry.steering.site, entry.steering.layer)
            number = depth.get(place, 0)
            depth[place] = number + 1
            rounds = collected.setdefault(place, [])
            if len(rounds) <= number:
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
    return Run(rows, len(touched), (entry.slot, entry.kind, entry.steering.coefficient))


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
    wide = -(-num_rows // 4) * 4
    device = bank.vectors_VD.device
    # Only the steered rows' numbers leave the host: the tables hold every row once for each place.
    at_host, packed_host = _over_places([rounds[place][0].runs for place in places], wide)
    at, packed = stage(at_host, device), stage(packed_host, device)
    ints = torch.zeros(2, len(places) * wide, dtype=torch.int32, device=device)
    coefficients = torch.zeros(len(places) * wide, device=device)
    ints[:, at] = packed[:2].to(torch.int32)
    coefficients[at] = packed[2]
    slots, kinds = ints.view(2, len(places), wide)
    by_place = coefficients.view(len(places), wide)
    vectors, units = bank.vectors_VD, bank.units_VD
    tables = zip(slots.unbind(), kinds.unbind(), by_place.unbind(), strict=True)
    return {place: (vectors, units, *table) for place, table in zip(places, tables, strict=True)}


def _over_places(
    runs_by_place: Sequence[Sequence[Run]], wide: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where each steered row lies in tables ``[places, wide]``, and its numbers ``[3, R]``."""
    starts: list[int] = []
    counts: list[int] = []
    numbers: list[tuple[int, int, float]] = []
    for i, runs in enumerate(runs_by_place):
        for run in runs:
            if isinstance(run.rows, slice):
                starts.append(i * wide + run.rows.start)
                counts.append(run.count)
                numbers.append(run.numbers)
            else:
                starts += (run.rows + i * wide).tolist()
                counts += [1] * run.count
                numbers += [run.numbers] * run.count
    lengths = np.asarray(counts, np.int64)
    ends = np.cumsum(lengths)
    before = np.asarray(starts, np.int64) - (ends - lengths)
    at = np.repeat(before, lengths) + np.arange(ends[-1], dtype=np.int64)
    return at, np.repeat(np.asarray(numbers, np.float32).T, lengths, axis=1)


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
