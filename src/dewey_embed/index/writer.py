"""The one writer of an index: groups of documents in, tables tidy behind it.

A group is written in two commits, as store.py says; what a killed run left is swept here.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dewey_embed.index.records import Record, chunks_table, documents_table
from dewey_embed.index.snapshot import SCAN_ROWS

if TYPE_CHECKING:
    from lancedb.table import Table

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
