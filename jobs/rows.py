"""Captured rows become table rows layer by layer, bit for bit, and are read back the same way.

bfloat16 values travel as 16-bit patterns; only arithmetic turns them into float32.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from actors.request import CaptureResult, Result, Site
from storage.activations import ActivationWriter, RowBlock
from storage.parquet import Staged
from storage.schema import activation_schema

STORED = {"bfloat16": "<u2", "float16": "<f2", "float32": "<f4"}
"""How values lie in memory and in the file, by the dtype that the file names."""


class RowKey(NamedTuple):
    """Which token a row belongs to."""

    prompt_id: str
    position: int
    token_id: int
    is_response: bool


@dataclass(frozen=True)
class CapturedRows:
    """Rows of one layer and site, in the order of the keys."""

    keys: list[RowKey]
    rows_ND: NDArray[np.float32]


def captured_bytes(results: Sequence[Result]) -> int:
    """Memory of everything that was captured."""
    readings = (reading for result in results for reading in result.captures)
    return sum(array.nbytes for reading in readings for array in reading.values.values())


def to_table(
    prompts: str,
    prompt_ids: Sequence[str],
    results: Sequence[Result],
    *,
    layers: Sequence[int],
    sites: Sequence[Site],
) -> pa.Table:
    """Rows of several results, layer-major, then site, prompt and position.

    Args:
        prompts: Name of the prompt set.
        prompt_ids: One for each result.
        results: Each with one capture of all these layers and sites, reduction ``none``.
        layers: In the order they were captured.
        sites: Places in each layer.
    """
    reads = [result.captures[0] for result in results]
    width = int(reads[0].values[sites[0]].shape[-1])
    schema = activation_schema(width, reads[0].dtype)
    value = schema.field("activation")
    columns: dict[str, list[object]] = {
        name: [] for name in ("prompt_id", "layer", "site", "position", "token_id", "is_response")
    }
    body = bytearray()
    for place, layer in enumerate(layers):
        for site in sites:
            for prompt_id, result, read in zip(prompt_ids, results, reads, strict=True):
                body += np.ascontiguousarray(read.values[site][place]).tobytes()
                _add_keys(columns, prompt_id, result, read, layer=layer, site=site)
    count = len(columns["layer"])
    rows = pa.FixedSizeBinaryArray.from_buffers(
        value.type, count, [None, pa.py_buffer(bytes(body))]
    )
    fields = [schema.field(name) for name in ("prompts", *columns)]
    arrays = [pa.array([prompts] * count, pa.string())]
    arrays += [pa.array(columns[f.name], f.type) for f in fields[1:]]
    return pa.Table.from_arrays([*arrays, rows], schema=pa.schema([*fields, value]))


def _add_keys(
    columns: dict[str, list[object]],
    prompt_id: str,
    result: Result,
    read: CaptureResult,
    *,
    layer: int,
    site: Site,
) -> None:
    ids = (*result.prompt_ids, *result.completion_ids)
    for position in read.positions.tolist():
        columns["prompt_id"].append(prompt_id)
        columns["layer"].append(layer)
        columns["site"].append(site)
        columns["position"].append(position)
        columns["token_id"].append(ids[position])
        columns["is_response"].append(position >= len(result.prompt_ids))


def stage(
    table: pa.Table, wip: Path, *, task_id: str, model: str, provenance: Mapping[str, object]
) -> Staged:
    """Write an activations table as the flat file that is read layer by layer.

    Args:
        table: As ``to_table`` makes it: each prompt's rows at one layer and site together.
        wip: The run's folder for half-written files.
        task_id: Task that the rows answer.
        model: Slug of the model.
        provenance: What decided the rows.

    Raises:
        DiskFullError: No room; nothing is left behind.
    """
    facts = table.schema.field("activation").metadata
    (width,) = json.loads(facts[b"shape"])
    names = ("layer", "site", "prompt_id")
    keys = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    writer = ActivationWriter(
        wip,
        task_id=task_id,
        model=model,
        groups=list(dict.fromkeys(key[:2] for key in keys)),
        width=width,
        dtype=facts[b"dtype"].decode(),
        provenance=provenance,
    )
    try:
        for start, stop in itertools.pairwise([*starts, len(keys)]):
            writer.add(_block(table.slice(start, stop - start), width))
        return writer.finish()
    except BaseException:
        writer.abort()
        raise


def _block(rows: pa.Table, width: int) -> RowBlock:
    """One prompt's rows at one layer and site."""
    first = rows.slice(0, 1).to_pylist()[0]
    dtype = rows.schema.field("activation").metadata[b"dtype"].decode()
    values = np.frombuffer(b"".join(rows["activation"].to_pylist()), dtype=STORED[dtype])
    return RowBlock(
        prompts=first["prompts"],
        prompt_id=first["prompt_id"],
        layer=first["layer"],
        site=first["site"],
        values_ND=values.reshape(-1, width),
        positions=rows["position"].to_numpy(),
        token_ids=rows["token_id"].to_numpy(),
        is_response=np.array(rows["is_response"].to_pylist(), dtype=np.bool_),
    )


def from_table(table: pa.Table, *, layer: int, site: str) -> CapturedRows:
    """Rows of one layer and site of an activations table."""
    chosen = pc.and_(pc.equal(table["layer"], layer), pc.equal(table["site"], site))
    table = table.filter(chosen)
    field = table.schema.field("activation")
    dtype = (field.metadata or {}).get(b"dtype", b"float32").decode()
    stored = np.dtype(STORED[dtype])
    flat = np.frombuffer(b"".join(table["activation"].to_pylist()), dtype=stored)
    keys = [
        RowKey(*each)
        for each in zip(
            table["prompt_id"].to_pylist(),
            table["position"].to_pylist(),
            table["token_id"].to_pylist(),
            table["is_response"].to_pylist(),
            strict=True,
        )
    ]
    width = field.type.byte_width // stored.itemsize
    return CapturedRows(keys, as_float32(flat, dtype).reshape(len(keys), width))


def as_float32(values: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Stored values (bfloat16 as uint16 bit patterns) in float32."""
    if dtype != "bfloat16":
        return np.asarray(values, dtype=np.float32)
    return (np.asarray(values, dtype=np.uint32) << 16).view(np.float32)
