"""What a reader sees of an index: its two tables, at versions that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lancedb.table import Table

SCAN_ROWS = 8192
"""Rows of a table that are read at a time."""


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
