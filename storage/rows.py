"""Reading activations touches the bytes that were asked for, and no others.

A layer, a site, a prompt or a token range is looked up in the commit records and read as runs of
bytes: a memory map on this disk (no copy at all), exact range requests in the bucket.

Shape suffixes: N rows, D width of the site.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage import layout
from storage.errors import MissingFileError, NewerSchemaError, ObjectMissingError
from storage.index import PromptRows, RowIndex, Segment
from storage.ranges import as_arrow_file
from storage.records import FileRecord
from storage.schema import DTYPE_BYTES, schema_of, version_of
from storage.store import ObjectStore

if TYPE_CHECKING:
    from storage.manifest import Run

TABLE = "activations"


class RowKey(NamedTuple):
    """What one row is: which prompt, which token."""

    prompts: str
    prompt_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one layer and site.

    For torch: ``torch.from_numpy(rows.values_ND).view(torch.bfloat16)`` (float32 as it is).
    """

    values_ND: NDArray[np.generic]
    """bfloat16 and float16 as uint16 bit patterns, or float32. A view of the file when the rows lie
    side by side on this disk; writing to it changes memory only."""
    dtype: str
    keys: tuple[RowKey, ...]


class _Source:
    """One committed file, here or in the bucket."""

    def __init__(self, run: Run, file: FileRecord) -> None:
        found, known = int(str(file.index.get("version", 1))), version_of(schema_of(TABLE))
        if found > known:
            raise NewerSchemaError(f"table {TABLE}", file.key, found, known)
        self.file = file
        self.index = RowIndex(dict(file.index), DTYPE_BYTES)
        self._path = layout.path_of(run.root, file.key)
        self._store: ObjectStore | None = run.store
        self._map: NDArray[np.uint8] | None = None
        self._pages: mmap.mmap

    def read(self, segment: Segment) -> NDArray[np.uint8]:
        """The bytes of a segment: a view of the map, or one range request."""
        size_bytes = segment.num_rows * self.index.row_bytes
        if self._map is None and self._path.exists():
            self._open_map()
        if self._map is not None:
            return self._mapped(segment.offset, size_bytes)
        body = self._stored().get_range(self.file.key, segment.offset, size_bytes)
        return np.frombuffer(bytearray(body), np.uint8)

    def _open_map(self) -> None:
        with self._path.open("rb") as handle:
            pages = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
        # The kernel would read ahead into rows that nobody asked for.
        pages.madvise(mmap.MADV_RANDOM)
        self._pages = pages
        self._map = np.frombuffer(pages, np.uint8)

    def _mapped(self, offset: int, size_bytes: int) -> NDArray[np.uint8]:
        """A view of the map, whose pages the disk is asked for all at once."""
        assert self._map is not None
        first = offset - offset % mmap.PAGESIZE
        self._pages.madvise(mmap.MADV_WILLNEED, first, offset + size_bytes - first)
        return self._map[offset : offset + size_bytes]

    def parquet(self) -> pq.ParquetFile:
        """The file as ordinary Parquet, for the key columns."""
        if self._path.exists():
            return pq.ParquetFile(self._path)
        return pq.ParquetFile(as_arrow_file(self._stored(), self.file))

    def _stored(self) -> ObjectStore:
        if self._store is None:
            raise MissingFileError(self.file.key, str(self._path.parent))
        return self._store


class ActivationReader:
    """All committed activations of a run.

    Args:
        run: The run; with a store, files that are not on this disk are read from the bucket.
        model: Slug; None reads all models, which makes sense only when there is one.

    Raises:
        NewerSchemaError: A file is of a version that this package does not know.
    """

    def __init__(self, run: Run, *, model: str | None = None) -> None:
        self._sources = [
            _Source(run, file)
            for commit in run.commits().values()
            if model in (None, commit.model)
            for file in commit.files
            if file.table == TABLE
        ]

    @property
    def sections(self) -> list[tuple[int, str]]:
        """Layers and sites that have rows, in order."""
        return sorted({section for source in self._sources for section in source.index.sections})

    def prompts(self, layer: int, site: str = "resid_post") -> list[tuple[str, str]]:
        """(prompt set, prompt id) of every prompt that has rows, in file order."""
        found = (source.index.prompts(layer, site) for source in self._sources)
        return [(each.prompts, each.prompt_id) for rows in found for each in rows]

    def read(
        self,
        layer: int,
        site: str = "resid_post",
        *,
        prompts: str | None = None,
        prompt_ids: Sequence[str] | None = None,
        positions: range | None = None,
    ) -> Rows:
        """Rows of a layer and site.

        Args:
            layer: 0-based.
            site: Place in the layer.
            prompts: Prompt set; None is all.
            prompt_ids: Prompts; None is all.
            positions: Token range, 0-based over prompt and completion; None is all.

        Raises:
            ObjectMissingError: No committed row fits.
        """
        parts: list[NDArray[np.generic]] = []
        keys: list[RowKey] = []
        dtype = ""
        for source in self._sources:
            found = source.index.prompts(layer, site, prompts=prompts, prompt_ids=prompt_ids)
            dtype = source.index.dtype if found else dtype
            runs = [(each, *_cut(each, positions)) for each in found]
            keys += [
                RowKey(each.prompts, each.prompt_id, int(position))
                for each, first, last in runs
                for position in each.positions[first:last]
            ]
            for first, last in _joined(runs):
                for segment in source.index.segments(layer, site, first, last):
                    parts.append(_typed(source, source.read(segment)))
        if not parts:
            raise ObjectMissingError("read", f"layer {layer} {site}", "no committed row fits")
        values_ND = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return Rows(values_ND=values_ND, dtype=dtype, keys=tuple(keys))

    def tokens(self, layer: int, site: str = "resid_post") -> pa.Table:
        """Key columns of a layer and site, without the values: which token each row is."""
        parts = []
        for source in self._sources:
            if (layer, site) in source.index.sections:
                with source.parquet() as file:
                    names = [n for n in file.schema_arrow.names if n != "activation"]
                    groups = source.index.groups_of(layer, site)
                    parts.append(file.read_row_groups(groups, columns=names))
        if not parts:
            raise ObjectMissingError("read", f"layer {layer} {site}", "no committed row fits")
        return pa.concat_tables(parts)


def _cut(each: PromptRows, positions: range | None) -> tuple[int, int]:
    """First and last (exclusive) row of a prompt whose position is wanted."""
    if positions is None:
        return 0, len(each.positions)
    first, last = np.searchsorted(each.positions, [positions.start, positions.stop])
    return int(first), int(last)


def _joined(runs: Sequence[tuple[PromptRows, int, int]]) -> Iterator[tuple[int, int]]:
    """Rows within the section; runs that touch become one."""
    start = stop = -1
    for each, first, last in runs:
        if first == last:
            continue
        if each.first_row + first != stop:
            if stop > start:
                yield start, stop
            start = each.first_row + first
        stop = each.first_row + last
    if stop > start:
        yield start, stop


def _typed(source: _Source, body: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Bytes as rows, without a copy."""
    kind = np.float32 if source.index.dtype == "float32" else np.uint16
    rows_ND: NDArray[np.generic] = body.view(kind).reshape(-1, source.index.width)
    return rows_ND
