"""A commit record says all there is to know about one task's files, in the same bytes every time.

Records hold no times and no hosts, so two attempts that computed the same thing wrote the same
record, and equality of bytes is equality of results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.errors import CorruptFileError, NewerSchemaError
from storage.layout import check_key

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One committed Parquet file."""

    table: str
    key: str
    """Relative to the run folder and to the run's prefix in the bucket."""
    num_rows: int
    size_bytes: int
    sha256: str
    index: Mapping[str, object] = field(default_factory=dict)
    """Flat files only: where each layer's and prompt's rows lie (``storage.flat``)."""

    def as_json(self) -> dict[str, object]:
        """Plain values, in the record's shape."""
        out: dict[str, object] = {
            "table": self.table,
            "key": self.key,
            "num_rows": self.num_rows,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
        }
        return out | ({"index": self.index} if self.index else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One finished task."""

    task_id: str
    model: str
    files: tuple[FileRecord, ...]
    provenance: Mapping[str, object]
    """What decided the result: digests, settings, versions; never a time or a host."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal commits give equal bytes."""
        return _dump(self.as_json())

    def as_json(self) -> dict[str, object]:
        """Plain values, in the record's shape."""
        return {
            "format": "traitmill.commit",
            "version": FORMAT_VERSION,
            "task_id": self.task_id,
            "model": self.model,
            "provenance": dict(self.provenance),
            "files": [file.as_json() for file in self.files],
        }

    @classmethod
    def from_bytes(cls, body: bytes, *, where: str) -> Commit:
        """Read a record.

        Raises:
            NewerSchemaError: It is of a version that this package does not know.
            CorruptFileError: It is no commit record, or names a file outside the run.
        """
        return cls.from_json(_load(body, "traitmill.commit", where), where=where)

    @classmethod
    def from_json(cls, found: Mapping[str, object], *, where: str) -> Commit:
        """Read a record from plain values."""
        try:
            return _commit(found)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(where, f"not a commit record: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All commits of a run at one moment."""

    commits: Mapping[str, Commit]

    def to_bytes(self) -> bytes:
        """Canonical JSON; holds no number and no time, so that equal runs have equal manifests."""
        body = {task: commit.as_json() for task, commit in sorted(self.commits.items())}
        return _dump({"format": "traitmill.manifest", "version": FORMAT_VERSION, "commits": body})

    @classmethod
    def from_bytes(cls, body: bytes, *, where: str) -> Manifest:
        """Read a manifest; raises as ``Commit.from_bytes`` does."""
        found = _load(body, "traitmill.manifest", where)
        commits = found.get("commits")
        if not isinstance(commits, dict):
            raise CorruptFileError(where, "it lists no commits")
        return cls(
            commits={task: Commit.from_json(each, where=where) for task, each in commits.items()}
        )


def _commit(found: Mapping[str, object]) -> Commit:
    files = found["files"]
    provenance = found["provenance"]
    if not isinstance(files, list) or not isinstance(provenance, dict):
        raise TypeError("files is no list or provenance no object")
    return Commit(
        task_id=str(found["task_id"]),
        model=str(found["model"]),
        provenance=provenance,
        files=tuple(
            FileRecord(
                table=str(each["table"]),
                key=check_key(str(each["key"])),
                num_rows=int(each["num_rows"]),
                size_bytes=int(each["size_bytes"]),
                sha256=str(each["sha256"]),
                index=each.get("index", {}),
            )
            for each in files
        ),
    )


def _dump(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode() + b"\n"


def _load(body: bytes, format_: str, where: str) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise CorruptFileError(where, f"not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != format_:
        raise CorruptFileError(where, f"it is no {format_}")
    version = found.get("version")
    if not isinstance(version, int):
        raise CorruptFileError(where, f"its version is {version!r}")
    if version > FORMAT_VERSION:
        raise NewerSchemaError(format_, where, version, FORMAT_VERSION)
    return found
