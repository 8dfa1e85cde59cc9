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
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dewey_embed.errors import IndexStoreError
from dewey_embed.index.records import (
    Record,
    chunks_schema,
    chunks_table,
    documents_schema,
    documents_table,
)
from dewey_embed.index.settings import FILE_NAME, IndexSettings

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.db import DBConnection
    from lancedb.table import Table

LOCK_NAME = "dewey.lock"
SCAN_ROWS = 8192
COMPACT_FRAGMENTS = 10
"""A table in so many fragments is written into one again when a run ends."""

COMPACT_VERSIONS = 32
"""And so is one of so many versions, whose older ones then leave the disk."""

COMPACT_COMMITS = 256
"""So it is after so many groups within a run: every version lists all fragments before it."""

KEPT = timedelta(hours=1)
"""For readers in the middle of something, versions so young stay when only words are indexed."""

UNINDEXED_SHARE = 256
"""The full-text index is brought up to date once one document in so many is not in it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The two tables at versions that belong together: every document has its chunks."""

    documents: Table
    chunks: Table
    versions: tuple[int, int]

    def texts(self, row_ids: Sequence[int]) -> dict[int, str]:
        """The documents' texts by row id."""
        rows = self.rows(row_ids, ["text"])
        return {row["_rowid"]: row["text"] for row in rows}

    def rows(self, row_ids: Sequence[int], columns: list[str]) -> list[dict[str, Any]]:
        """Rows of `documents` with the columns asked for and `_rowid`, in no promised order."""
        if not row_ids:
            return []
        query = self.documents.take_row_ids([int(row) for row in row_ids])
        rows: list[dict[str, Any]] = query.select(columns).with_row_id().to_arrow().to_pylist()
        return rows

    def full_text(self, question: str, limit: int) -> list[tuple[str, float]]:
        """Ids and BM25 scores of the documents that share words with a question, best first.

        The question is words only: no character in it is an operator.
        """
        from lancedb.query import MatchQuery

        words = MatchQuery(question.replace("\0", " "), "text")  # type: ignore[call-arg]
        query = self.documents.search(words, query_type="fts").limit(limit)
        found = query.select(["id", "_score"]).to_arrow().to_pylist()
        return sorted(
            ((row["id"], row["_score"]) for row in found), key=lambda each: (-each[1], each[0])
        )


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


class Writer:
    """Writes groups of documents, removes documents, and leaves the tables tidy.

    `hashes` holds what is committed: document id → hash.
    """

    def __init__(self, documents: Table, chunks: Table) -> None:
        self._documents = documents
        self._chunks = chunks
        self._commits = 0
        self.hashes: dict[str, str] = {}
        for batch in documents.search().select(["id", "hash"]).to_batches(SCAN_ROWS):
            self.hashes.update(zip(batch["id"].to_pylist(), batch["hash"].to_pylist(), strict=True))
        self._is_first = not self.hashes  # nobody reads an older version yet
        self._sweep()

    def origins(self) -> Iterator[tuple[str, str, str]]:
        """Id, root and source of every document committed."""
        for batch in (
            self._documents.search().select(["id", "root", "source"]).to_batches(SCAN_ROWS)
        ):
            columns = (batch[name].to_pylist() for name in ("id", "root", "source"))
            yield from zip(*columns, strict=True)

    def write(self, records: Sequence[Record]) -> None:
        """Nothing; all of these documents are then in the index, in place of older versions.

        Killed before the end, none of them is.
        """
        if not records:
            return
        chunks = chunks_table(records, self._chunks.schema)
        if chunks.num_rows:
            self._chunks.add(chunks)
        rows = documents_table(records, self._documents.schema)
        if any(record.document.id in self.hashes for record in records):
            merge = self._documents.merge_insert("id")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)
        else:
            self._documents.add(rows)
        self.hashes.update((record.document.id, record.hash) for record in records)
        self._commits += 1
        if self._commits % COMPACT_COMMITS == 0:
            self._compact()

    def remove(self, ids: Collection[str]) -> None:
        """Nothing; the documents with these ids are then gone. Unknown ids are passed over."""
        hashes = [self.hashes.pop(document_id) for document_id in ids if document_id in self.hashes]
        _delete(self._documents, "hash", hashes)

    def finish(self) -> None:
        """Nothing; leftovers are swept, tables in many pieces made one again, new words indexed."""
        self._sweep()
        self._compact()
        self._index_words()

    def _compact(self) -> None:
        """Write tables in many pieces into one again; earlier versions leave the disk."""
        for table in (self._chunks, self._documents):
            statistics: Any = table.stats()
            num_pieces = statistics["fragment_stats"]["num_fragments"]
            if num_pieces >= COMPACT_FRAGMENTS or len(table.list_versions()) >= COMPACT_VERSIONS:
                _optimize(table, keep=timedelta(0))

    def _index_words(self) -> None:
        """Put the words of new texts into the full-text index, once they are many.

        Every question reads the texts that are not in it, 60 µs a kilobyte; but putting them there
        may write the table anew.
        """
        [index] = self._documents.list_indices()
        statistics = self._documents.index_stats(index.name)
        missing = statistics.num_unindexed_rows if statistics else 0
        if missing * UNINDEXED_SHARE >= max(1, self._documents.count_rows()):
            _optimize(self._documents, keep=timedelta(0) if self._is_first else KEPT)

    def _sweep(self) -> None:
        """Delete the chunks that belong to no committed document."""
        import pyarrow.compute as pc

        found: set[str] = set()
        for batch in self._chunks.search().select(["document_hash"]).to_batches(SCAN_ROWS):
            found.update(pc.unique(batch["document_hash"]).to_pylist())
        _delete(self._chunks, "document_hash", sorted(found.difference(self.hashes.values())))


def _optimize(table: Table, *, keep: timedelta) -> None:
    """Write a table's pieces into one, and all into its index; older versions leave the disk."""
    with warnings.catch_warnings():
        # Readers that are left without their version take the next and try again.
        warnings.simplefilter("ignore", UserWarning)
        table.optimize(cleanup_older_than=keep, delete_unverified=not keep)


def _delete(table: Table, column: str, hashes: Sequence[str]) -> None:
    """Delete the rows with these hashes, which are hex and need no quoting."""
    for start in range(0, len(hashes), 500):
        listed = ", ".join(f"'{value}'" for value in hashes[start : start + 500])
        table.delete(f"{column} IN ({listed})")


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
