"""What a reader sees of an index: its two tables, at versions that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dewey_embed.errors import DeweyError, IndexStoreError
from dewey_embed.index.records import text_crc
from dewey_embed.index.settings import REMEDY

if TYPE_CHECKING:
    from lancedb.table import Table

SCAN_ROWS = 8192
"""Rows of a table that are read at a time."""


class UnreadError(IndexStoreError):
    """The disk or the database did not give what was asked for; a newer version may be there."""


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what the disk and the database raise into one error that names the index.

    Raises:
        UnreadError: something could not be read.

    """
    try:
        yield
    except DeweyError:
        raise
    except Exception as error:
        raise _unread(folder, error) from error
    except BaseException as error:
        # What the database's own code, in Rust, raises where it did not foresee such bytes.
        if type(error).__name__ != "PanicException":
            raise
        raise _unread(folder, error) from None


def _unread(folder: Path, error: BaseException) -> UnreadError:
    if isinstance(error, PermissionError):
        reason, remedy = f"{error.filename}: {error.strerror}", "give yourself the right to read it"
    else:
        reason = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
        remedy = REMEDY
    return UnreadError(f"index {folder} cannot be read: {reason}; {remedy}")


class State(NamedTuple):
    """Versions of both tables, and a digest by which those of another index are told apart."""

    documents: int
    chunks: int
    crc: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The two tables at versions that belong together: every document has its chunks."""

    folder: Path
    documents: Table
    chunks: Table
    state: State

    def texts(self, row_ids: Sequence[int]) -> dict[int, str]:
        """The documents' texts by row id.

        Raises:
            IndexStoreError: a text is not the one that was written.

        """
        rows = self.rows(row_ids, ["id", "text", "text_crc"])
        for row in rows:
            if text_crc(row["text"]) != row["text_crc"]:
                raise IndexStoreError(
                    f"index {self.folder} is damaged: the text of document {row['id']!r} is not "
                    f"the one that was indexed; {REMEDY}"
                )
        return {row["_rowid"]: row["text"] for row in rows}

    def rows(self, row_ids: Sequence[int], columns: list[str]) -> list[dict[str, Any]]:
        """Rows of `documents` with the columns asked for and `_rowid`, in no promised order."""
        if not row_ids:
            return []
        with reading(self.folder):
            query = self.documents.take_row_ids([int(row) for row in row_ids])
            table = query.select(columns).with_row_id().to_arrow()
            rows: list[dict[str, Any]] = table.to_pylist()
        return rows
