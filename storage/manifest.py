"""A result exists if and only if its task's commit record exists; everything else is litter.

A commit writes the data files, each whole or not at all, and then links the record into place: the
first attempt at a task wins and all others read its record. A manifest is a numbered copy of all
records at one moment and decides nothing. A crash at any point leaves the run as if the task had
not been started, and whoever opens the run next sweeps what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from storage import audit, layout, readme
from storage.audit import Report
from storage.bucket import Bucket
from storage.durable import fsync_folder, make_folders, publish, publish_if_absent, write_bytes
from storage.errors import CorruptFileError, MissingFileError
from storage.parquet import Filters, Provenance, Staged, write_table
from storage.ranges import read_rows
from storage.records import Commit, FileRecord, Manifest
from storage.schema import conform, migrate, schema_of
from storage.store import ObjectStore
from storage.upload import MAX_PENDING_BYTES, OnPending, Uploader, push_papers
from storage.wip import Workshop

__all__ = ["Report", "Run", "Staged"]


class Run:
    """One run folder, and the bucket behind it; several processes may have it open."""

    def __init__(self, root: Path, store: ObjectStore | None, limit: int, told: OnPending) -> None:
        self.root = root
        self.store = store
        self._workshop = Workshop(root / layout.WIP)
        self._known: dict[str, Commit] = {}
        self._bucket = Bucket(store) if store else None
        self._uploader: Uploader | None = None
        if store:
            self._uploader = Uploader(
                root,
                store,
                wip=self.wip,
                on_replaced=lambda commit: self.forget(commit.task_id),
                max_pending_bytes=limit,
                on_pending=told,
            )

    @classmethod
    def open(
        cls,
        root: str | Path,
        *,
        store: ObjectStore | None = None,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        on_pending: OnPending = None,
    ) -> Self:
        """Open or create a run folder, and sweep what dead writers left half-written.

        Args:
            root: Run folder.
            store: Holds the run as well: its commits count as done, and each one made is uploaded.
            max_pending_bytes: ``commit`` waits while more than this is not yet in the bucket.
            on_pending: Told how many bytes wait for the bucket, whenever that changes.
        """
        root = Path(root).absolute()
        for folder in (layout.DATA, layout.COMMITS, layout.MANIFESTS, layout.JOURNAL):
            make_folders(root / folder)
        run = cls(root, store, max_pending_bytes, on_pending)
        run._resume_uploads()
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(wait=error is None)

    def close(self, *, wait: bool = True) -> None:
        """Give up this writer's folder; with ``wait``, once all is in the bucket.

        Raises:
            UploadError: Some commits did not reach the bucket; they are safe here.
        """
        try:
            if self._uploader:
                self._uploader.close(wait=wait)
            if self.store and wait:
                push_papers(self.root, self.store)
        finally:
            self._workshop.close()

    def flush(self) -> None:
        """Wait until every commit made here is in the bucket; nothing to do without one."""
        if self._uploader:
            self._uploader.flush()

    @property
    def wip(self) -> Path:
        """This writer's folder for half-written files; swept when the writer dies."""
        return self._workshop.folder

    def forget(self, task_id: str) -> None:
        """Read the task's record again at its next use: the bucket's has replaced it."""
        self._known.pop(task_id, None)

    def is_done(self, task_id: str) -> bool:
        """True when the task has a commit, here or in the bucket."""
        if layout.path_of(self.root, layout.commit_key(task_id)).exists():
            return True
        return self._bucket is not None and task_id in self._bucket.commits()

    def commits(self) -> dict[str, Commit]:
        """All commits by task, in the order of task ids."""
        found = dict(self._bucket.commits()) if self._bucket else {}
        for path in (self.root / layout.COMMITS).iterdir():
            task_id = layout.task_of(f"{layout.COMMITS}/{path.name}")
            if task_id is not None:
                found[task_id] = self._local_commit(task_id)
        return dict(sorted(found.items()))

    def commit(
        self,
        task_id: str,
        tables: Mapping[str, pa.Table],
        *,
        model: str,
        provenance: Provenance,
        staged: Sequence[Staged] = (),
    ) -> Commit:
        """Make a task done: write its tables, then its record. The first attempt wins.

        Args:
            task_id: Hash of everything that decides the answer.
            tables: Table name -> rows; ``task_id`` and ``model`` columns may be left out.
            model: Slug of the model.
            provenance: What decided the answer, for the record and each file; no times.
            staged: Files that are finished already, in ``wip`` (see ``activations``).

        Returns:
            The record that counts: this one, or the one of an earlier attempt.

        Raises:
            SchemaError: A table is not as declared. Nothing is written.
            DiskFullError: No room. Earlier commits are untouched.
        """
        if self.is_done(task_id):
            return self.commits()[task_id]
        ready = {
            name: conform(name, table, task_id=task_id, model=model)
            for name, table in sorted(tables.items())
        }
        files = [
            Staged(name, write_table(table, self.wip, provenance=provenance), {})
            for name, table in ready.items()
        ]
        placed = tuple(self._place(each, task_id, model) for each in [*files, *staged])
        mine = Commit(task_id=task_id, model=model, files=placed, provenance=dict(provenance))
        record = write_bytes(self.wip, mine.to_bytes())
        final = layout.path_of(self.root, layout.commit_key(task_id))
        counts = mine if publish_if_absent(record, final) else self._local_commit(task_id)
        self._discard_unnamed(mine, counts)
        if self._uploader:
            self._uploader.submit(counts)
        return counts

    def read(
        self, table: str, columns: Sequence[str] | None = None, filters: Filters = None
    ) -> pa.Table:
        """Rows of a table over all commits, in the order of task ids; by ``ranges.read_rows``."""
        wanted = list(columns) if columns is not None else schema_of(table).names
        parts = [
            read_rows(self, file, wanted, filters)
            for commit in self.commits().values()
            for file in commit.files
            if file.table == table
        ]
        if not parts:
            return migrate(table, schema_of(table).empty_table()).select(wanted)
        plain = [part.replace_schema_metadata(schema_of(table).metadata) for part in parts]
        return pa.concat_tables(plain, promote_options="permissive")

    def fetch(self, file: FileRecord) -> Path:
        """Local path of a committed file, downloaded and checked first if only the bucket has it.

        Raises:
            MissingFileError: The file is neither here nor in the bucket.
            CorruptFileError: Its size, or when downloaded its digest, differs from the record.
        """
        path = layout.path_of(self.root, file.key)
        if not path.exists():
            if self._bucket is None:
                raise MissingFileError(file.key, str(self.root))
            self._bucket.download(file, self.root, self.wip)
        size_bytes = path.stat().st_size
        if size_bytes != file.size_bytes:
            raise CorruptFileError(file.key, f"{size_bytes} bytes, not {file.size_bytes}")
        return path

    def write_manifest(self) -> Path:
        """Write all commits into the next numbered manifest; no new one when nothing changed.

        Litter is collected first, so a reader of ``data/**`` then sees what was committed and
        nothing else. With a bucket, waits for the uploads and writes its manifest as well.
        """
        self.flush()
        self.gc()
        if self._bucket:
            self._bucket.refresh()
            self._bucket.write_manifest()
        body = Manifest(commits=self.commits()).to_bytes()
        while True:
            numbers = self._manifest_numbers()
            number = max(numbers, default=0)
            latest = self.root / layout.manifest_key(number)
            if number and latest.read_bytes() == body:
                return latest
            final = self.root / layout.manifest_key(number + 1)
            if publish_if_absent(write_bytes(self.wip, body), final):
                return final

    def verify(self) -> Report:
        """Hash every committed file again and list what is wrong."""
        return audit.verify(self)

    def gc(self, *, older_than_s: float = 86_400.0) -> list[str]:
        """Delete data files that no commit names.

        Args:
            older_than_s: While other writers are alive, younger files may be theirs, on the way to
                a commit, and stay.

        Returns:
            Keys of the deleted files.
        """
        age_s = older_than_s if self._workshop.others_alive() else 0.0
        return audit.collect_litter(self, older_than_s=age_s)

    def write_readme(self) -> Path:
        """Write the run folder's README.md, by which ``datasets`` and people find the tables."""
        final = self.root / layout.README
        publish(write_bytes(self.wip, readme.text(self.commits()).encode()), final)
        return final

    def _place(self, staged: Staged, task_id: str, model: str) -> FileRecord:
        """Give a finished file its final name."""
        written = staged.written
        key = layout.data_key(staged.table, model, task_id, written.sha256)
        publish(written.path, layout.path_of(self.root, key))
        return FileRecord(
            table=staged.table,
            key=key,
            num_rows=written.num_rows,
            size_bytes=written.size_bytes,
            sha256=written.sha256,
            index=staged.index,
        )

    def _discard_unnamed(self, mine: Commit, counts: Commit) -> None:
        """Delete this attempt's files when another attempt's record counts and names others."""
        named = {file.key for file in counts.files}
        for file in mine.files:
            if file.key not in named:
                path = layout.path_of(self.root, file.key)
                path.unlink(missing_ok=True)
                fsync_folder(path.parent)

    def _resume_uploads(self) -> None:
        """Queue the commits that an earlier process made here but did not get into the bucket."""
        if self._uploader and self._bucket:
            there = self._bucket.commits()
            for path in sorted((self.root / layout.COMMITS).iterdir()):
                task_id = layout.task_of(f"{layout.COMMITS}/{path.name}")
                if task_id is not None and there.get(task_id) != self._local_commit(task_id):
                    self._uploader.submit(self._local_commit(task_id))

    def _local_commit(self, task_id: str) -> Commit:
        if task_id not in self._known:
            key = layout.commit_key(task_id)
            body = layout.path_of(self.root, key).read_bytes()
            self._known[task_id] = Commit.from_bytes(body, where=key)
        return self._known[task_id]

    def _manifest_numbers(self) -> list[int]:
        names = [path.name for path in (self.root / layout.MANIFESTS).iterdir()]
        found = (layout.manifest_number(f"{layout.MANIFESTS}/{name}") for name in names)
        return sorted(number for number in found if number is not None)
