"""The tables of an index: `documents` and `chunks` in LanceDB, under one lock for writers.

A group of documents is written in two commits: its chunks, then its rows in `documents`. The
second is what counts: chunks whose document's hash is in no row of `documents` are leftovers of
a run that ended early (or of a version since replaced), which readers pass over and writers
sweep. So an index reads the same before and after any moment at which a run may be killed.

Readers take a `Snapshot`, a pair of table versions that belong together, and wait for nobody.
The layout is written down in docs/index-format.md.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.errors import IndexStoreError
from dewey_embed.index.records import chunks_schema, documents_schema
from dewey_embed.index.settings import FILE_NAME, IndexSettings
from dewey_embed.index.snapshot import Snapshot
from dewey_embed.index.writer import Writer

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

LOCK_NAME = "dewey.lock"


class Store:
    """An index in a folder: its settings, its snapshots for readers, its writer."""

    def __init__(self, folder: Path, settings: IndexSettings) -> None:
        self.folder = folder
        self.settings = settings

    @classmethod
    def open(cls, folder: Path) -> Store:
        """The index in a folder.

        Raises:
            IndexStoreError: there is none, or it is damaged.

        """
        settings = IndexSettings.read(folder)
        if settings is None:
            what = "is no Dewey index" if folder.exists() else "does not exist"
            raise IndexStoreError(
                f"{folder} {what}; make one with: dewey index DOCS --index {folder}"
            )
        return cls(folder, settings)

    @cached_property
    def _database(self) -> DBConnection:
        # Lance reads texts for its full-text index by so many rows at once, 8,192 unless told:
        # of long documents that is the whole corpus. Our own scans name their batches.
        os.environ.setdefault("LANCE_DEFAULT_BATCH_SIZE", "64")
        import lancedb

        return lancedb.connect(str(self.folder))

    def versions(self) -> tuple[int, int] | None:
        """The latest versions of `documents` and `chunks`; `None` before the first writer."""
        if not _has_table(self.folder, "documents"):
            return None
        documents = self._database.open_table("documents").version
        return documents, self._database.open_table("chunks").version

    def snapshot(self) -> Snapshot | None:
        """The newest pair of versions that belong together; `None` before the first writer.

        Raises:
            IndexStoreError: it changes faster than it can be read.

        """
        if not _has_table(self.folder, "documents"):
            return None
        for _ in range(200):
            documents = self._database.open_table("documents")
            chunks = self._database.open_table("chunks")
            versions = documents.version, chunks.version
            # Chunks are swept only after a newer `documents`: if that has not moved, they fit.
            if self._database.open_table("documents").version == versions[0]:
                return Snapshot(documents, chunks, versions)
            time.sleep(0.01)
        raise IndexStoreError(f"index {self.folder} changes too fast to be read; try again")

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """The one writer of this index, which is made if there is none yet.

        Raises:
            IndexStoreError: another process is writing, or the folder holds something else.
            IndexMismatchError: another process has made it with other settings meanwhile.

        """
        _refuse_foreign(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / LOCK_NAME):
            settings = IndexSettings.read(self.folder)
            if settings is None:
                self.settings.write(self.folder)
            else:
                settings.require_model(self.settings.model, self.settings.fingerprint, self.folder)
                settings.require_options(self.settings.options, self.folder)
            width = self.settings.embedding_dim
            # `chunks` first: where there is a `documents` there are chunks.
            chunks = self._table("chunks", chunks_schema(width))
            documents = self._table("documents", documents_schema(width))
            yield Writer(documents, chunks)

    def _table(self, name: str, schema: pa.Schema) -> Table:
        """A table, made if missing, with its full-text index if it has texts."""
        from lancedb.index import FTS

        if _has_table(self.folder, name):
            table = self._database.open_table(name)
        else:
            shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)  # killed while made
            table = self._database.create_table(name, schema=schema)
        if name == "documents" and not list(table.list_indices()):
            table.create_index("text", config=FTS(with_position=False))
        return table


def _has_table(folder: Path, name: str) -> bool:
    """Whether a table has a first version; a run killed before that leaves only files."""
    return any((folder / f"{name}.lance" / "_versions").glob("*.manifest"))


def _refuse_foreign(folder: Path) -> None:
    """Raise unless a folder is missing, empty, an index, or the beginning of one."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise IndexStoreError(f"{folder} is a file; an index is a folder: choose another path")
    names = {path.name for path in folder.iterdir()}
    if FILE_NAME not in names and names - {LOCK_NAME, f".{FILE_NAME}.tmp"}:
        raise IndexStoreError(
            f"{folder} holds other files and no {FILE_NAME}: it is no Dewey index; "
            "choose an empty or a new folder"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock on a file, which the system lets go of when the process ends, however it ends."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise IndexStoreError(
                f"index {path.parent} is being written by another process (pid {holder}); "
                "wait until it is done, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
