"""Files of vectors: Parquet, NumPy, JSON lines; each appears complete or not at all.

Rows of Parquet and JSON lines: `document_id`, `source`, `chunk` (its number; null for the document
itself), `char_start`, `char_end`, `token_start`, `token_end`, `vector`. An .npz holds `ids` (N,),
`vectors` (N, D) and, with chunks, `chunks` (C, D), `spans` (C, 4) in the same order of columns, and
`chunk_documents` (C,): the row in `ids` that each belongs to.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dewey_embed.cli import console
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.files import atomic_file, only_writer
from dewey_embed.text.formats import EXTENSIONS
from dewey_embed.types import Document, DocumentVectors, Span


class Output(ABC):
    """A file of vectors being written: `add` each document within a `with`.

    Everything goes into `draft`, which takes the file's place at the end.
    """

    draft: Path

    def __init__(self, path: Path, *, chunks: bool) -> None:
        self.path = Path(os.path.realpath(path))  # a link stays, and its target is written
        self.chunks = chunks
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with _named(self.path), ExitStack() as stack:
            stack.enter_context(only_writer(self.path))
            self.draft = stack.enter_context(atomic_file(self.path, sync=True))
            self.draft.touch()  # a folder that cannot be written is named before the work begins
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _named(self.path):
            try:
                self.close(complete=kind is None)
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
            self._stack.__exit__(kind, error, traceback)

    def add(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors.

        Raises:
            CheckpointError: they are not finite numbers.

        """
        if not (np.isfinite(vectors.vector).all() and np.isfinite(vectors.chunks).all()):
            raise CheckpointError(
                f"{document.id}: the model gives vectors with NaN or infinity; its weights are "
                "damaged: fetch the model again"
            )
        with _named(self.path):
            self.write(document, vectors)

    @abstractmethod
    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors."""

    @abstractmethod
    def close(self, *, complete: bool) -> None:
        """Write what is held to the draft, if the run is complete, and close the draft."""

    def rows(self, document: Document, vectors: DocumentVectors) -> Iterator[dict[str, Any]]:
        """The rows of a document: its own, then those of its chunks if they are wanted."""
        names = {"document_id": _text(document.id), "source": _text(document.source)}
        own = Span(0, len(document.text), 0, vectors.num_tokens)
        yield {**names, "chunk": None, **own._asdict(), "vector": vectors.vector}
        if self.chunks:
            pairs = zip(vectors.spans, vectors.chunks, strict=True)
            for number, (span, vector) in enumerate(pairs):
                yield {**names, "chunk": number, **span._asdict(), "vector": vector}


class JsonLines(Output):
    """One JSON object a row."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._file = self.draft.open("w", encoding="utf-8")
        return self

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's rows."""
        for row in self.rows(document, vectors):
            self._file.write(_line(row) + "\n")

    def close(self, *, complete: bool) -> None:
        """Close the draft."""
        self._file.close()


class Printed(Output):
    """One JSON object a row, on standard output."""

    def __enter__(self) -> Self:
        return self

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Print a document's rows."""
        for row in self.rows(document, vectors):
            console.echo(_line(row))

    def close(self, *, complete: bool) -> None:
        """Leave standard output open."""

    def __exit__(self, *_: object) -> None:
        """Leave what was printed."""


def _line(row: dict[str, Any]) -> str:
    """A row as JSON, its numbers in the shortest decimals that read back as the same float32."""
    return json.dumps({**row, "vector": [float(str(number)) for number in row["vector"]]})


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
            # Opened here, for pyarrow refuses names that are not UTF-8.
            self._file = self.draft.open("wb")
            self._writer = pq.ParquetWriter(self._file, schema)
        rows = list(self.rows(document, vectors))
        self._writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def close(self, *, complete: bool) -> None:
        """Write the footer."""
        if self._writer is not None:
            with self._file:
                self._writer.close()


class Npz(Output):
    """Arrays in one .npz, held in memory until the end."""

    def __enter__(self) -> Self:
        self._ids: list[str] = []
        self._vectors: list[DocumentVectors] = []
        return super().__enter__()

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors."""
        self._ids.append(_text(document.id))
        self._vectors.append(vectors)

    def close(self, *, complete: bool) -> None:
        """Write all arrays."""
        if not complete:
            return
        arrays: dict[str, Any] = {
            "ids": np.array(self._ids),
            "vectors": np.stack([vectors.vector for vectors in self._vectors]),
        }
        if self.chunks:
            counts = [len(vectors.spans) for vectors in self._vectors]
            spans = [span for vectors in self._vectors for span in vectors.spans]
            width = arrays["vectors"].shape[1]
            arrays["chunks"] = np.concatenate([v.chunks.reshape(-1, width) for v in self._vectors])
            arrays["spans"] = np.array(spans, np.int64).reshape(-1, 4)
            arrays["chunk_documents"] = np.repeat(np.arange(len(counts)), counts)
        with self.draft.open("wb") as file:
            np.savez(file, **arrays)


KINDS: dict[str, type[Output]] = {".parquet": Parquet, ".npz": Npz, ".jsonl": JsonLines}


def open_output(path: Path, *, chunks: bool, inputs: Sequence[str] = ()) -> Output:
    """The writer of vectors to a path, by its extension; `-` is JSON lines on standard output.

    Raises:
        ConfigError: another extension, something that is not a file, or one of the inputs.

    """
    if str(path) == "-":
        return Printed(path, chunks=chunks)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: vectors are written as {', '.join(KINDS)}; name one of these")
    if path.exists():
        if not path.is_file():
            raise ConfigError(f"{path}: is there and is no file; give another path")
        if any(_is_read(path, each) for each in inputs):
            raise ConfigError(
                f"{path}: is read as an input, too, and would be replaced; give another path"
            )
    return kind(path, chunks=chunks)


def _is_read(path: Path, each: str) -> bool:
    """Whether a file is an input, or would be read in an input's folder."""
    given = Path(os.path.realpath(each))
    own = Path(os.path.realpath(path))
    return own == given or (given in own.parents and own.name.lower().endswith(EXTENSIONS))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file, not its draft, in errors of writing."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot be written: {reason}", str(path)) from None


def _text(name: str) -> str:
    """A name as every format can hold it: lone surrogates as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
