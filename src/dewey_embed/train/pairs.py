"""A file of question–passage pairs, Parquet or JSON lines → the pool of passages and questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dewey_embed.errors import ReadError
from dewey_embed.train.negatives import LeftOut, Pool, Question

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "query", "anchor"),
    "passage": ("passage", "positive", "answer", "document", "text"),
    "document": ("document_id", "doc_id", "doc", "source"),
}
"""The columns that hold a pair, by what they hold: the first that is there. A document's is not
needed: without one each passage is a document of its own."""

Row = Mapping[str, Any]


def read_pairs(
    path: Path,
    *,
    question_field: str | None = None,
    passage_field: str | None = None,
    document_field: str | None = None,
) -> Pool:
    """The passages of a file, each text of a document once, and its questions.

    A question that comes again has several passages. Rows without a question or a passage are left
    out and named by their number.

    Raises:
        ReadError: the file cannot be read, or has no such columns.

    """
    rows = list(_rows(path))
    given = {"question": question_field, "passage": passage_field, "document": document_field}
    columns = {kind: _column(path, rows, kind, field) for kind, field in given.items()}
    passages: dict[tuple[str, str], int] = {}
    owners: dict[str, int] = {}
    numbers, positives, names = [], dict[str, list[int]](), dict[str, str]()
    left_out: LeftOut = {}
    for number, row in enumerate(rows, 1):
        name = f"row {number}"
        question, passage, document = (_text(row, column) for column in columns.values())
        if fault := _mistyped(row, columns) or _fault(question, passage, document):
            left_out.setdefault(fault, []).append(name)
            continue
        document = document or passage
        owner = owners.setdefault(document, len(owners))
        if (document, passage) not in passages:
            passages[document, passage] = len(passages)
            numbers.append(owner)
        place = passages[document, passage]
        own = positives.setdefault(question, [])
        own += [place] if place not in own else []
        names.setdefault(question, name)
    return Pool(
        texts=[passage for _, passage in passages],
        owners=np.array(numbers, np.int64),
        questions=[Question(names[text], text, tuple(own)) for text, own in positives.items()],
        left_out=left_out,
    )


def _mistyped(row: Row, columns: Mapping[str, str | None]) -> str:
    """Which column of a row holds something other than a text or a number; empty for none."""
    for kind, column in columns.items():
        value = row.get(column) if column else None
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            return f"whose {kind} is a {type(value).__name__}, not a text"
    return ""


def _fault(question: str, passage: str, document: str) -> str:
    """Why a row is no pair; empty for one that is."""
    if not question:
        return "without a question"
    if not passage:
        return "without a passage"
    try:
        f"{question}{passage}{document}".encode()
    except UnicodeEncodeError:
        return "with half of a surrogate pair, which is not Unicode text"
    return ""


def _rows(path: Path) -> Iterator[Row]:
    """The rows of the file.

    Raises:
        ReadError: it cannot be read, or a line is not a record.

    """
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            yield from pq.read_table(path).to_pylist()
            return
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(line, f"{path}, line {number}")
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        if isinstance(error, ReadError):
            raise
        raise ReadError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); give a file of "
            "JSON lines, a .parquet file, or a "
            "folder of passages"
        ) from None


def _record(line: str, place: str) -> Row:
    """The record of a line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{place}: is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ReadError(f"{place}: is a JSON {type(record).__name__}, not an object with columns")
    return record


def _column(path: Path, rows: Sequence[Row], kind: str, field: str | None) -> str | None:
    """The column that holds a question, a passage or a document; `None` of a document.

    Raises:
        ReadError: there is no row, or no such column; names those there are.

    """
    if not rows:
        raise ReadError(f"{path}: holds no rows; give a file with a question and a passage in each")
    there = dict.fromkeys(column for row in rows for column in row)
    wanted = (field,) if field else COLUMNS[kind]
    if found := next((column for column in wanted if column in there), None):
        return found
    if kind == "document" and not field:
        return None
    raise ReadError(
        f"{path}: has no column {' or '.join(wanted)} for the {kind}, but "
        f"{', '.join(there) or 'none'}; name one with --{kind}-field"
    )


def _text(row: Row, column: str | None) -> str:
    """A row's text in a column, or a number as one; empty where it has no words."""
    value = row.get(column) if column else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else ""
