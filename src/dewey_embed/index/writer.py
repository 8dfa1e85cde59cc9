"""The one writer of an index: groups of documents in, tables tidy behind it.

A group is written in two commits, as store.py says; what a killed run left is swept here. When a
run ends, the checksums of all files are written beside the tables.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import DeweyError, IndexStoreError, first_line
from dewey_embed.files import flush, flush_folder
from dewey_embed.index.changes import Held, Refreshed
from dewey_embed.index.checksums import LEDGER_NAME, Ledger
from dewey_embed.index.earlier import CHUNK_COLUMNS, Earlier, earlier_of
from dewey_embed.index.tables import (
    SCAN_ROWS,
    Details,
    Place,
    Record,
    chunks_table,
    detail_columns,
    documents_table,
    searched_text,
    unpacked_windows,
    vector_columns,
    word_columns,
)

if TYPE_CHECKING:
    from lancedb.table import Table

COMPACT_FRAGMENTS = 10
"""A table in so many fragments is written into one again when a run ends."""

COMPACT_VERSIONS = 32
"""And so is one of so many versions, whose older ones then leave the disk."""

COMPACT_COMMITS = 256
"""So it is after so many groups within a run: every version lists all fragments before it."""

RECORD_SECONDS = 30
"""So often the files of a long run are flushed and listed: what a loss of power can cost."""

REFRESHED_TOGETHER = 500
"""Documents whose details are written in one commit."""


class Writer:
    """Writes groups of documents, removes documents, and leaves the tables tidy.

    `held` is what is committed, by document id.
    """

    def __init__(
        self, folder: Path, documents: Table, chunks: Table, settings: Mapping[str, Any]
    ) -> None:
        self._folder = folder
        self._documents = documents
        self._chunks = chunks
        self._settings = settings
        self._commits = 0
        self._recorded_s = time.monotonic()
        self.held: dict[str, Held] = {}
        rows: dict[str, int] = {}
        left: list[
            int
        ] = []  # by a killed run on a cluster: older versions, documents written twice
        columns = ["id", "hash", "title", "source", "metadata", "places"]
        query = documents.search().select(columns).with_row_id(True)
        for batch in query.to_batches(SCAN_ROWS):
            for name, digest, title, source, metadata, places, row_id in zip(
                *(batch[column].to_pylist() for column in (*columns, "_rowid")), strict=True
            ):
                found = tuple(Place(*each) for each in json.loads(places))
                details = Details(title=title, source=source, metadata=metadata, places=found)
                if name in rows:
                    left.append(rows[name])
                rows[name] = row_id
                self.held[name] = Held(digest, details)
        _delete_rows(documents, left)
        self._sweep()

    def earlier(self, ids: Collection[str], num_states: int) -> dict[str, Earlier]:
        """The earlier versions of documents that were read in several windows, by document id."""
        names = {self.held[name].hash: name for name in ids if name in self.held}
        if not names:
            return {}
        table = self._documents.search().where(f"hash IN ({_listed(list(names))})")
        found = table.select(["hash", "windows"]).limit(len(names)).to_arrow().to_pylist()
        windows = {
            row["hash"]: states
            for row in found
            if (states := unpacked_windows(row["windows"], num_states))
        }
        if not windows:
            return {}
        rows = self._chunks.search().where(f"document_hash IN ({_listed(list(windows))})")
        batches = list(rows.select(list(CHUNK_COLUMNS)).to_batches(SCAN_ROWS))
        import pyarrow as pa
        import pyarrow.compute as pc

        chunks = pa.Table.from_batches(batches)
        own = {
            digest: earlier_of(states, chunks.filter(pc.equal(chunks["document_hash"], digest)))
            for digest, states in windows.items()
        }
        return {names[digest]: earlier for digest, earlier in own.items() if earlier}

    def write(self, records: Sequence[Record]) -> None:
        """Put all of these documents into the index, in place of older versions.

        Killed before the end, none of them is in it.
        """
        if not records:
            return
        chunks = chunks_table(records, self._chunks.schema)
        if chunks.num_rows:
            self._chunks.add(chunks)
        rows = documents_table(records, self._documents.schema)
        if any(record.document.id in self.held for record in records):
            _replace(self._documents, rows)
        else:
            self._documents.add(rows)
        for record in records:
            details = Details.of(record.document, record.places)
            self.held[record.document.id] = Held(record.hash, details)
        self._commits += 1
        if self._commits % COMPACT_COMMITS == 0:
            self._compact()
        if time.monotonic() - self._recorded_s > RECORD_SECONDS:
            self.record()

    def refresh(
        self,
        refreshed: Sequence[Refreshed],
        title_vectors: Sequence[NDArray[np.float32] | None],
    ) -> None:
        """Write details that changed beside texts that did not; vectors are those of new titles."""
        for start in range(0, len(refreshed), REFRESHED_TOGETHER):
            together = slice(start, start + REFRESHED_TOGETHER)
            self._refresh(refreshed[together], title_vectors[together])

    def _refresh(
        self,
        refreshed: Sequence[Refreshed],
        title_vectors: Sequence[NDArray[np.float32] | None],
    ) -> None:
        schema = self._documents.schema
        listed = _listed([each.hash for each in refreshed])
        table = self._documents.search().where(f"hash IN ({listed})").limit(len(refreshed))
        rows = table.select(schema.names).to_arrow()
        place = {digest: row for row, digest in enumerate(rows["hash"].to_pylist())}
        rows = rows.take([place[each.hash] for each in refreshed])
        columns: dict[str, Any] = {name: rows[name] for name in schema.names}
        columns |= detail_columns([each.details for each in refreshed])
        renamed = {row: each.renamed for row, each in enumerate(refreshed) if each.renamed}
        if renamed:
            fresh = word_columns([searched_text(each) for each in renamed.values()])
            for name, values in fresh.items():
                kept = columns[name].to_pylist()
                for row, value in zip(renamed, values, strict=True):
                    kept[row] = value
                columns[name] = kept
            titles = list(np.array(rows["title_vector"].to_pylist(), np.float32))
            for row in renamed:
                titles[row] = title_vectors[row]
            vectors = np.array(rows["vector"].to_pylist(), np.float32)
            columns |= vector_columns(vectors, titles, schema)
        import pyarrow as pa

        _replace(self._documents, pa.table(columns, schema=schema))
        for each in refreshed:
            self.held[each.document_id] = Held(each.hash, each.details)

    def remove(self, ids: Collection[str]) -> None:
        """Remove the documents with these ids. Unknown ids are passed over."""
        hashes = [
            self.held.pop(document_id).hash for document_id in ids if document_id in self.held
        ]
        _delete(self._documents, "hash", hashes)

    def finish(self) -> None:
        """Sweep leftovers, make tables in many pieces one again, and write their checksums."""
        self._sweep()
        self._compact()
        self.record()

    def record(self) -> None:
        """Write the checksums of all files of both tables as they are now, flushed to the disk."""
        path = self._folder / LEDGER_NAME
        known = Ledger.read(path)
        files = [
            file
            for name in ("documents", "chunks")
            for file in sorted((self._folder / f"{name}.lance").rglob("*"))
            # The hint is written over with every version; Lance does without it.
            if file.is_file() and file.suffix != ".json"
        ]
        kept = known.files if known else {}
        for file in files:
            if file.relative_to(self._folder).as_posix() not in kept:
                flush(file)
        for parent in {file.parent for file in files}:
            flush_folder(parent)
        facts = {
            "versions": [self._documents.version, self._chunks.version],
            "settings": self._settings,
        }
        Ledger.of(self._folder, files, known=kept, facts=facts).write(path)
        self._recorded_s = time.monotonic()

    def _compact(self) -> None:
        """Write tables in many pieces into one again; earlier versions leave the disk.

        They leave it only when the new ones are on it.
        """
        chosen = [table for table in (self._chunks, self._documents) if _in_many_pieces(table)]
        for table in chosen:
            _optimize(table, NEVER)
        if chosen:
            self.record()
        for table in chosen:
            _optimize(table, timedelta(0))

    def _sweep(self) -> None:
        """Delete the chunks that belong to no committed document, and those that are there twice.

        The latter are of documents that came twice in a run on a cluster, which was killed.
        """
        import pyarrow.compute as pc

        found: set[str] = set()
        firsts: set[str] = set()
        repeated: set[str] = set()
        for batch in (
            self._chunks.search().select(["document_hash", "ordinal"]).to_batches(SCAN_ROWS)
        ):
            found.update(pc.unique(batch["document_hash"]).to_pylist())
            for digest in batch.filter(pc.equal(batch["ordinal"], 0))["document_hash"].to_pylist():
                (repeated if digest in firsts else firsts).add(digest)
        owned = {each.hash for each in self.held.values()}
        _delete(self._chunks, "document_hash", sorted(found - owned))
        for digest in sorted(repeated & owned):
            self._delete_repeats(digest)

    def _delete_repeats(self, digest: str) -> None:
        """Keep one of each chunk of a document."""
        query = self._chunks.search().where(f"document_hash = '{digest}'").select(["ordinal"])
        known: set[int] = set()
        repeats: list[int] = []
        for batch in query.with_row_id(True).to_batches(SCAN_ROWS):
            for ordinal, row_id in zip(*(each.to_pylist() for each in batch.columns), strict=True):
                if ordinal in known:
                    repeats.append(row_id)
                known.add(ordinal)
        _delete_rows(self._chunks, repeats)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk and the database raise into one error that names the index.

    Raises:
        IndexStoreError: something could not be written.

    """
    try:
        yield
    except DeweyError:
        raise
    except (OSError, RuntimeError) as error:
        reason = first_line(error)
        raise IndexStoreError(
            f"index {folder} cannot be written: {reason}; what was committed before is kept, and "
            "the same command goes on from there"
        ) from error


NEVER = timedelta(days=100 * 365)


def _in_many_pieces(table: Table) -> bool:
    statistics: Any = table.stats()
    num_pieces: int = statistics["fragment_stats"]["num_fragments"]
    return num_pieces >= COMPACT_FRAGMENTS or len(table.list_versions()) >= COMPACT_VERSIONS


def _optimize(table: Table, age: timedelta) -> None:
    """Write a table's pieces into one; versions older than this leave the disk."""
    with warnings.catch_warnings():
        # Readers that are left without their version take the next and try again.
        warnings.simplefilter("ignore", UserWarning)
        table.optimize(cleanup_older_than=age, delete_unverified=True)


def _replace(documents: Table, rows: Any) -> None:
    """Write rows in place of those with the same ids, in one commit."""
    merge = documents.merge_insert("id")
    merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)


def _delete(table: Table, column: str, hashes: Sequence[str]) -> None:
    """Delete the rows with these hashes."""
    for start in range(0, len(hashes), 500):
        table.delete(f"{column} IN ({_listed(hashes[start : start + 500])})")


def _delete_rows(table: Table, row_ids: Sequence[int]) -> None:
    """Delete rows by the ids that the table's newest version has for them."""
    if row_ids:
        table.delete(f"_rowid IN ({', '.join(map(str, row_ids))})")


def _listed(hashes: Sequence[str]) -> str:
    """Hashes as a list in SQL; they are hex and need no quoting."""
    return ", ".join(f"'{value}'" for value in hashes)
