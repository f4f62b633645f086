"""Captured rows reach the disk as a stream: bounded memory, one order, one layer in one place.

A file holds the row groups of its first layer and site, then of the next; inside a layer the rows
are in the order of prompt and position, whatever the order of arrival. So one layer is one run of
bytes, one prompt at one layer another, and the same rows give the same file. Rows that arrive
before their layer's turn wait in memory up to a limit, and above it in a spill file.

Shape suffixes: N rows, D width of the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.durable import full_disk_named, temporary_name
from storage.errors import CorruptFileError, SchemaError
from storage.flat import flat_groups
from storage.flat_writer import FlatWriter
from storage.hasher import FollowingHash
from storage.index import build_index
from storage.parquet import Provenance, Staged, Written, with_provenance
from storage.schema import DTYPE_BYTES, activation_schema, version_of
from storage.spill import Spill

COLUMN = "activation"

GROUP_BYTES = 32 * 1024**2
"""Row groups are cut at this many bytes of values."""

GROUP_ROWS = 20_000
"""Row groups are cut at this many rows: above it Parquet writers begin a second page."""

MAX_BUFFER_BYTES = 256 * 1024**2
"""Rows that wait in memory; above this they wait on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Rows of one prompt at one layer and site."""

    prompts: str
    """Prompt set."""
    prompt_id: str
    layer: int
    site: str
    values_ND: NDArray[np.generic]
    """bfloat16 and float16 as uint16 bit patterns, or float32."""
    positions: NDArray[np.int32]
    """Increasing."""
    token_ids: NDArray[np.int32]
    is_response: NDArray[np.bool_]


_NO_VALUES = np.empty((0, 0), np.uint16)


class _Piece(NamedTuple):
    """A block's keys, with its values in memory or in the spill file."""

    block: RowBlock
    values_ND: NDArray[np.generic] | None
    spilled_at: int


@dataclass(slots=True)
class _Group:
    """What has arrived for one layer and site."""

    pieces: list[_Piece] = field(default_factory=list)
    is_complete: bool = False

    def in_order(self) -> list[_Piece]:
        return sorted(self.pieces, key=lambda p: _order(p.block))


def _order(block: RowBlock) -> tuple[str, str, int]:
    return block.prompts, block.prompt_id, int(block.positions[0])


class ActivationWriter:
    """Writes one activations file; single-threaded.

    Args:
        wip: This writer's folder for half-written files.
        task_id: Task that the rows answer.
        model: Slug of the model.
        groups: Layers and sites to come, in the order of the file.
        width: Values in a row; files with another width are other files.
        dtype: ``bfloat16``, ``float16`` or ``float32``.
        provenance: What decides the rows, for the file's metadata.
    """

    def __init__(
        self,
        wip: Path,
        *,
        task_id: str,
        model: str,
        groups: Sequence[tuple[int, str]],
        width: int,
        dtype: str = "bfloat16",
        provenance: Provenance,
        max_buffer_bytes: int = MAX_BUFFER_BYTES,
    ) -> None:
        self._wip = wip
        self._partition = {"task_id": task_id, "model": model}
        self._waiting = {group: _Group() for group in groups}
        self._order = list(groups)
        self._dtype, self._width = dtype, width
        self._row_bytes = width * DTYPE_BYTES[dtype] if dtype in DTYPE_BYTES else 0
        self._schema = with_provenance(activation_schema(width, dtype), provenance)
        self._max_buffer_bytes = max_buffer_bytes
        self._buffered_bytes = 0
        self._path = temporary_name(wip)
        self._spill = Spill(temporary_name(wip))
        self._index_rows: list[tuple[int, str, list[RowBlock]]] = []
        self._num_rows = 0
        self._ends: list[int] = []
        with full_disk_named(wip):
            self._file = FlatWriter(self._path, self._schema)
        self._hash = FollowingHash(self._path)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of rows that wait in memory for their layer's turn."""
        return self._buffered_bytes

    def add(self, block: RowBlock) -> None:
        """Take rows, in any order of prompts and layers.

        The values are not copied unless spilled: they must not change before ``finish`` returns.

        Raises:
            SchemaError: The block's shape, dtype, layer or site is not as announced.
            DiskFullError: No room to spill or write.
        """
        self._check(block)
        if not len(block.positions):
            return
        group = self._waiting[block.layer, block.site]
        # The keys outlive the values: what is spilled or written must not be held by its block.
        keys = replace(block, values_ND=_NO_VALUES)
        group.pieces.append(_Piece(keys, np.ascontiguousarray(block.values_ND), -1))
        self._buffered_bytes += block.values_ND.nbytes
        if self._buffered_bytes > self._max_buffer_bytes:
            with full_disk_named(self._wip):
                self._spill_all()

    def complete(self, layer: int, site: str) -> None:
        """No more rows of this layer and site will come; written as soon as it is their turn."""
        self._waiting[layer, site].is_complete = True
        with full_disk_named(self._wip):
            while self._order and self._waiting[self._order[0]].is_complete:
                self._write_group(self._order.pop(0))

    def finish(self) -> Staged:
        """Write what waits, close, fsync and hash the file; it is ready to be committed.

        Raises:
            SchemaError: Two blocks hold the same prompt and position.
            DiskFullError: No room; call ``abort``.
        """
        with full_disk_named(self._wip):
            while self._order:
                self._write_group(self._order.pop(0))
            self._file.close()
            digest = self._hash.finish()
            self._spill.drop()
            size_bytes = self._path.stat().st_size
        groups = flat_groups(self._path, COLUMN)
        if [group.offset + group.num_rows * self._row_bytes for group in groups] != self._ends:
            raise CorruptFileError(self._path.name, "a row group does not end with its values")
        index = build_index(self._index_rows, groups, dtype=self._dtype, width=self._width)
        # Rows are read by the index alone, so it says which version of the table it is of.
        index["version"] = version_of(self._schema)
        return Staged("activations", Written(self._path, self._num_rows, size_bytes, digest), index)

    def abort(self) -> None:
        """Give the file up and delete it."""
        self._file.abandon()
        self._hash.stop()
        self._spill.drop()
        self._path.unlink(missing_ok=True)

    def _check(self, block: RowBlock) -> None:
        """Refuse a block that is not as announced, with both numbers."""
        key = (block.layer, block.site)
        if key not in self._waiting or self._waiting[key].is_complete:
            raise SchemaError("activations", f"layer {key[0]} {key[1]} is not expected (any more)")
        shape = (len(block.positions), self._width)
        wanted = np.float32 if self._dtype == "float32" else np.uint16
        if block.values_ND.shape != shape or block.values_ND.dtype != wanted:
            found = f"{block.values_ND.dtype}{list(block.values_ND.shape)}"
            problem = f"values are {found}, not {np.dtype(wanted)}{list(shape)}"
            raise SchemaError("activations", f"{problem} ({self._dtype})")
        if np.any(np.diff(block.positions) <= 0):
            raise SchemaError("activations", f"positions of {block.prompt_id} do not increase")

    def _write_group(self, key: tuple[int, str]) -> None:
        """Write one layer and site as row groups of limited size."""
        pieces = self._waiting.pop(key).in_order()
        self._refuse_doubles(key, pieces)
        group_rows = max(1, min(GROUP_ROWS, GROUP_BYTES // self._row_bytes))
        batch: list[tuple[_Piece, int, int]] = []
        num_rows = 0
        for piece in pieces:
            first, length = 0, len(piece.block.positions)
            while first < length:
                take = min(length - first, group_rows - num_rows)
                batch.append((piece, first, first + take))
                first, num_rows = first + take, num_rows + take
                if num_rows == group_rows:
                    self._write_rows(key, batch)
                    batch, num_rows = [], 0
        if batch:
            self._write_rows(key, batch)
        in_memory = (p.values_ND.nbytes for p in pieces if p.values_ND is not None)
        self._buffered_bytes -= sum(in_memory)
        if pieces:
            self._index_rows.append((*key, [piece.block for piece in pieces]))

    def _write_rows(self, key: tuple[int, str], batch: list[tuple[_Piece, int, int]]) -> None:
        """Write one row group."""
        values = [self._values(*each) for each in batch]
        rows_ND = values[0] if len(values) == 1 else np.concatenate(values)
        num_rows = len(rows_ND)
        blocks = [(piece.block, first, last) for piece, first, last in batch]
        columns: dict[str, pa.Array] = {
            name: pa.repeat(pa.scalar(value, self._schema.field(name).type), num_rows)
            for name, value in {**self._partition, "layer": key[0], "site": key[1]}.items()
        }
        for name in ("prompts", "prompt_id"):
            names = [getattr(b, name) for b, first, last in blocks for _ in range(first, last)]
            columns[name] = pa.array(names, pa.string())
        for name, source in (
            ("position", "positions"),
            ("token_id", "token_ids"),
            ("is_response", "is_response"),
        ):
            parts = [getattr(b, source)[first:last] for b, first, last in blocks]
            columns[name] = pa.array(np.concatenate(parts), self._schema.field(name).type)
        keys = [columns[name] for name in self._schema.names if name != COLUMN]
        self._file.add(keys, rows_ND.data)
        self._num_rows += num_rows
        # The values are the file's last column, so they are what it ends with now.
        self._ends.append(self._hash.grown(rows_ND.data))

    def _values(self, piece: _Piece, first: int, last: int) -> NDArray[np.generic]:
        """Rows of a piece, from memory or from the spill file."""
        if piece.values_ND is not None:
            return piece.values_ND[first:last]
        body = self._spill.read(
            piece.spilled_at + first * self._row_bytes, (last - first) * self._row_bytes
        )
        wanted = np.float32 if self._dtype == "float32" else np.uint16
        return np.frombuffer(body, wanted).reshape(last - first, self._width)

    def _spill_all(self) -> None:
        """Move every waiting row to the spill file."""
        for group in self._waiting.values():
            for i, piece in enumerate(group.pieces):
                if piece.values_ND is not None:
                    at = self._spill.append(piece.values_ND)
                    group.pieces[i] = _Piece(piece.block, None, at)
        self._buffered_bytes = 0

    def _refuse_doubles(self, key: tuple[int, str], pieces: list[_Piece]) -> None:
        for before, after in pairwise(pieces):
            same = _order(before.block)[:2] == _order(after.block)[:2]
            if same and before.block.positions[-1] >= after.block.positions[0]:
                problem = f"prompt {after.block.prompt_id} has position "
                problem += f"{after.block.positions[0]} twice at layer {key[0]} {key[1]}"
                raise SchemaError("activations", problem)
