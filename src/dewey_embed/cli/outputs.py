"""Files of vectors: Parquet, NumPy, JSON lines. Each appears whole, by a rename, or not at all.

Rows of Parquet and JSON lines: `document_id`, `source`, `chunk` (its number; null for the whole
document), `char_start`, `char_end`, `token_start`, `token_end`, `vector`. An .npz holds `ids`
(N,), `vectors` (N, D) and, with chunks, `chunks` (C, D), `spans` (C, 4) in the same order of
columns, and `chunk_documents` (C,): the row in `ids` that each belongs to.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dewey_embed.errors import ConfigError
from dewey_embed.types import Document, DocumentVectors, Span


class Output(ABC):
    """A file of vectors being written: `write` each document within a `with`."""

    def __init__(self, path: Path, *, chunks: bool) -> None:
        self.path = path
        self.chunks = chunks
        self.draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        self.draft.touch()  # a folder that cannot be written is said before the work begins
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self.close(whole=kind is None)
            if kind is None:
                with self.draft.open("rb") as file:
                    os.fsync(file.fileno())
                self.draft.replace(self.path)
        finally:
            self.draft.unlink(missing_ok=True)

    @abstractmethod
    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors."""

    @abstractmethod
    def close(self, *, whole: bool) -> None:
        """Write what is held to the draft, if all went well, and let go of it."""

    def rows(self, document: Document, vectors: DocumentVectors) -> Iterator[dict[str, Any]]:
        """The rows of a document: itself, then its chunks if they are wanted."""
        whole = Span(0, len(document.text), 0, vectors.num_tokens)
        parts = [(None, whole, vectors.vector)]
        if self.chunks:
            parts += [
                (number, span, vector)  # type: ignore[misc]
                for number, (span, vector) in enumerate(
                    zip(vectors.spans, vectors.chunks, strict=True)
                )
            ]
        for chunk, span, vector in parts:
            yield {
                "document_id": document.id,
                "source": document.source,
                "chunk": chunk,
                **span._asdict(),
                "vector": vector,
            }


class JsonLines(Output):
    """One JSON object a row; `-` is standard output."""

    def __enter__(self) -> Self:
        self._stdout = str(self.path) == "-"
        self._file = sys.stdout if self._stdout else self.draft.open("w", encoding="utf-8")
        return self

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's rows."""
        for row in self.rows(document, vectors):
            # The shortest decimals that read back as the same float32.
            numbers = [float(str(number)) for number in row["vector"]]
            self._file.write(json.dumps({**row, "vector": numbers}) + "\n")

    def close(self, *, whole: bool) -> None:
        """Close the draft."""
        if self._stdout:
            self._file.flush()
        else:
            self._file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._stdout:
            self.close(whole=kind is None)
        else:
            super().__exit__(kind, error, _)


class Parquet(Output):
    """One Parquet file, a row group for each document."""

    _writer: Any = None

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        positions = ("chunk", *Span._fields)
        schema = pa.schema(
            [
                ("document_id", pa.string()),
                ("source", pa.string()),
                *((name, pa.int64()) for name in positions),
                ("vector", pa.list_(pa.float32(), len(vectors.vector))),
            ]
        )
        if self._writer is None:
            self._writer = pq.ParquetWriter(str(self.draft), schema)
        rows = list(self.rows(document, vectors))
        self._writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def close(self, *, whole: bool) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


class Npz(Output):
    """Arrays in one .npz, held in memory until the end."""

    def __enter__(self) -> Self:
        self._held: list[tuple[str, DocumentVectors]] = []
        return super().__enter__()

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors."""
        self._held.append((document.id, vectors))

    def close(self, *, whole: bool) -> None:
        """Write all arrays."""
        if not whole:
            return
        each = [vectors for _, vectors in self._held]
        arrays: dict[str, Any] = {
            "ids": np.array([name for name, _ in self._held]),
            "vectors": np.stack([vectors.vector for vectors in each]),
        }
        if self.chunks:
            counts = [len(vectors.spans) for vectors in each]
            spans = [span for vectors in each for span in vectors.spans]
            width = arrays["vectors"].shape[1]
            arrays["chunks"] = np.concatenate([v.chunks.reshape(-1, width) for v in each])
            arrays["spans"] = np.array(spans, np.int64).reshape(-1, 4)
            arrays["chunk_documents"] = np.repeat(np.arange(len(each)), counts)
        with self.draft.open("wb") as file:
            np.savez(file, **arrays)


KINDS: dict[str, type[Output]] = {".parquet": Parquet, ".npz": Npz, ".jsonl": JsonLines}


def open_output(path: Path, *, chunks: bool) -> Output:
    """What writes vectors to a path, by its extension; `-` is JSON lines on standard output.

    Raises:
        ConfigError: another extension.

    """
    if str(path) == "-":
        return JsonLines(path, chunks=chunks)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: vectors are written as {', '.join(KINDS)}; name one of these")
    return kind(path, chunks=chunks)
