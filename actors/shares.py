"""Each rank sends home its own layers of what was captured, and together they send all of it.

Every rank could hold all rows, because the residual stream is replicated; an engine that was told
so keeps only its own layers. Whole layers are shared out in turn, so one row is never cut, and
layers come in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from actors.request import CaptureResult, Reply, Result

PART_BYTES = 32 * 1024**2
"""Values in one part, about: two of them may be on their way from each rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRows:
    """Captured rows of one request at one layer and site."""

    request_id: str
    positions: NDArray[np.int32]
    values_ND: NDArray[np.generic]
    """bfloat16 as uint16 bit patterns."""
    token_ids: NDArray[np.int32]
    is_response: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedPart:
    """Some rows of one layer and site."""

    layer: int
    site: str
    rows: tuple[RequestRows, ...]
    is_last: bool
    """True when no more rows of this layer and site will come."""


def strip(reply: Reply) -> Reply:
    """The reply without its captured rows; means, projections and the like stay."""
    return replace(reply, results=tuple(_strip(one) for one in reply.results))


def own_parts(
    reply: Reply, *, rank: int, world_size: int, part_bytes: int = PART_BYTES
) -> Iterator[CapturedPart]:
    """This rank's share of the captured rows, layer by layer.

    Args:
        reply: A rank's own, or complete where the engine did not deal rows out.
        rank: Sends the layers whose place in the sorted list of all layers is its own, modulo
            ``world_size``; all that it holds, where the engine has dealt them out already.
        world_size: Ranks that share the work.
        part_bytes: Values of one part, about.
    """
    groups = sorted(
        {
            (layer, site)
            for result in reply.results
            for reading in row_readings(result)
            for layer in held_layers(reading)
            for site in reading.values
        }
    )
    layers = sorted({layer for layer, _ in groups})
    is_shared = any(
        reading.held is not None for result in reply.results for reading in row_readings(result)
    )
    mine = set(layers if is_shared else deal(layers, rank, world_size))
    for layer, site in groups:
        if layer in mine:
            yield from _parts(reply, layer, site, part_bytes)


def deal(layers: Sequence[int], rank: int, world_size: int) -> tuple[int, ...]:
    """A rank's layers of all those that are captured as rows."""
    return tuple(sorted(set(layers))[rank::world_size])


def held_layers(reading: CaptureResult) -> tuple[int, ...]:
    """Layers whose rows the reading holds here."""
    return reading.layers if reading.held is None else reading.held


def row_readings(result: Result) -> list[CaptureResult]:
    """The readings of a result that hold rows."""
    return [one for one in result.captures if one.reduction == "none"]


def _parts(reply: Reply, layer: int, site: str, part_bytes: int) -> Iterator[CapturedPart]:
    """One layer and site, cut into parts; the last one may be empty."""
    rows: list[RequestRows] = []
    size = 0
    for result in reply.results:
        for reading in row_readings(result):
            held = held_layers(reading)
            if layer not in held or site not in reading.values:
                continue
            values_ND = reading.values[site][held.index(layer)]
            if rows and size + values_ND.nbytes > part_bytes:
                yield CapturedPart(layer=layer, site=site, rows=tuple(rows), is_last=False)
                rows, size = [], 0
            rows.append(_rows(result, reading, values_ND))
            size += values_ND.nbytes
    yield CapturedPart(layer=layer, site=site, rows=tuple(rows), is_last=True)


def _rows(result: Result, reading: CaptureResult, values_ND: NDArray[np.generic]) -> RequestRows:
    """Rows of one request, with the tokens that they stand for."""
    ids = np.array((*result.prompt_ids, *result.completion_ids), np.int32)
    return RequestRows(
        request_id=result.id,
        positions=reading.positions,
        values_ND=np.ascontiguousarray(values_ND),
        token_ids=ids[reading.positions],
        is_response=reading.positions >= len(result.prompt_ids),
    )


def _strip(result: Result) -> Result:
    """A result whose row readings keep positions but no values."""
    return replace(
        result,
        captures=tuple(
            replace(one, values={}) if one.reduction == "none" else one for one in result.captures
        ),
    )
