"""Rows of files of vectors: what a document and its vectors become, in every format.

Columns: `document_id`, `source`, `chunk` (its number; null for the document itself), `char_start`,
`char_end`, `token_start`, `token_end`, `vector`; with texts `title`, `metadata`, `text` and
`location` (where in its file it stands), too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dewey_embed.errors import CheckpointError
from dewey_embed.text.locations import location_of
from dewey_embed.types import Document, DocumentVectors, MetadataValue, Span

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


def rows_of(
    document: Document, vectors: DocumentVectors, *, chunks: bool, texts: bool
) -> list[Row]:
    """The rows of a document: its own, then those of its chunks if they are wanted.

    Raises:
        CheckpointError: vectors that are not finite numbers.

    """
    if not (np.isfinite(vectors.vector).all() and np.isfinite(vectors.chunks).all()):
        raise CheckpointError(
            f"{document.id}: the model gives vectors with NaN or infinity; its weights are "
            "damaged: fetch the model again"
        )
    names = {"document_id": storable_text(document.id), "source": storable_text(document.source)}
    own = Span(0, len(document.text), 0, vectors.num_tokens)
    if vectors.overflow == "truncate":  # what its vector stands for ends where the last chunk does
        read = max((span.char_end for span in vectors.spans), default=0)
        own = Span(0, read, 0, vectors.used_tokens)
    rows: list[Row] = [{**names, "chunk": None, **own._asdict(), "vector": vectors.vector}]
    if chunks:
        pairs = zip(vectors.spans, vectors.chunks, strict=True)
        for number, (span, vector) in enumerate(pairs):
            rows.append({**names, "chunk": number, **span._asdict(), "vector": vector})
    return _with_texts(document, rows) if texts else rows


def _with_texts(document: Document, rows: list[Row]) -> list[Row]:
    """The rows of a document with their texts, its title, its metadata and their places."""
    metadata = {storable_text(key): _printed(value) for key, value in document.metadata.items()}
    named = {"title": storable_text(document.title), "metadata": metadata}
    for row in rows:
        start, end = row["char_start"], row["char_end"]
        location = asdict(location_of(document.landmarks, document.text, start, end))
        where = {key: value for key, value in location.items() if value not in (None, "", ())}
        row.update(named, text=storable_text(document.text[start:end]), location=where)
    return rows


def _printed(value: MetadataValue) -> MetadataValue:
    return storable_text(value) if isinstance(value, str) else value


def storable_text(name: str) -> str:
    """A name as every format can hold it: lone surrogates as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def flat(row: Row) -> Row:
    """The row with its objects as JSON."""
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
        for name, value in row.items()
    }


def rows_schema(width: int, *, texts: bool) -> pa.Schema:
    """The columns of Parquet and Lance; `width` is that of the vectors."""
    import pyarrow as pa

    names = ["document_id", "source", "chunk", *Span._fields, "vector"]
    names += ["title", "metadata", "text", "location"] if texts else []
    numbers = dict.fromkeys(("chunk", *Span._fields), pa.int64())
    kinds = {**numbers, "vector": pa.list_(pa.float32(), width)}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def rows_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows as a table."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(map(flat, rows)), schema=schema)
