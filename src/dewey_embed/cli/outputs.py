"""Files of vectors: Parquet, NumPy, JSON lines. Each appears whole, by a rename, or not at all.

Rows of Parquet and JSON lines: `document_id`, `source`, `chunk` (its number; null for the whole
document), `char_start`, `char_end`, `token_start`, `token_end`, `vector`. An .npz holds `ids`
(N,), `vectors` (N, D) and, with chunks, `chunks` (C, D), `spans` (C, 4) in the same order of
columns, and `chunk_documents` (C,): the row in `ids` that each belongs to.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from dewey_embed.cli import console
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.text.formats import EXTENSIONS
from dewey_embed.types import Document, DocumentVectors, Span


class Output(ABC):
    """A file of vectors being written: `write` each document within a `with`.

    What is written goes into a draft beside the file, and the draft takes its place at the end. A
    run that was killed leaves its draft; the next one that writes the file removes it.
    """

    def __init__(self, path: Path, *, chunks: bool) -> None:
        self.path = Path(os.path.realpath(path))  # a link stays, and its target is written
        self.chunks = chunks
        self.draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        self._within = ExitStack()  # holds the lock while it is written

    def __enter__(self) -> Self:
        with _named(self.path), ExitStack() as stack:
            stack.enter_context(_alone(self.path))
            self.draft.touch()  # a folder that cannot be written is said before the work begins
            self._within = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._within:
            try:
                with _named(self.path):
                    self.close(whole=kind is None)
                    if kind is None:
                        with self.draft.open("rb") as file:
                            os.fsync(file.fileno())
                        self.draft.replace(self.path)
            finally:
                self.draft.unlink(missing_ok=True)

    def add(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors.

        Raises:
            CheckpointError: they are no numbers.

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
                "document_id": _text(document.id),
                "source": _text(document.source),
                "chunk": chunk,
                **span._asdict(),
                "vector": vector,
            }


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

    def close(self, *, whole: bool) -> None:
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

    def close(self, *, whole: bool) -> None:
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
            # Opened here, for pyarrow takes no name that is not UTF-8.
            self._file = self.draft.open("wb")
            self._writer = pq.ParquetWriter(self._file, schema)
        rows = list(self.rows(document, vectors))
        self._writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def close(self, *, whole: bool) -> None:
        """Write the footer."""
        if self._writer is not None:
            with self._file:
                self._writer.close()


class Npz(Output):
    """Arrays in one .npz, held in memory until the end."""

    def __enter__(self) -> Self:
        self._held: list[tuple[str, DocumentVectors]] = []
        return super().__enter__()

    def write(self, document: Document, vectors: DocumentVectors) -> None:
        """Add a document's vectors."""
        self._held.append((_text(document.id), vectors))

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


def open_output(path: Path, *, chunks: bool, inputs: Sequence[str] = ()) -> Output:
    """What writes vectors to a path, by its extension; `-` is JSON lines on standard output.

    Raises:
        ConfigError: another extension, something that is no file, or one of the inputs.

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
    """Whether a file that is there is an input, or would be read in an input's folder."""
    given = Path(os.path.realpath(each))
    own = Path(os.path.realpath(path))
    return own == given or (given in own.parents and own.name.lower().endswith(EXTENSIONS))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give what goes wrong with writing the name of the file, not of its draft."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot be written: {reason}", str(path)) from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only one that writes this file, and remove the drafts of those that were killed.

    Raises:
        ConfigError: another process is writing it.

    """
    from filelock import FileLock, Timeout

    lock_path = path.with_name(f".{path.name}.lock")
    next(path.parent.iterdir(), None)  # a folder that is not there would be made for the lock
    lock = FileLock(lock_path, timeout=0)
    try:
        lock.acquire()
        while not lock_path.exists():  # the last writer has removed it since we opened it
            lock.release()
            lock.acquire()
    except Timeout:
        raise ConfigError(f"{path}: is being written by another process; wait for it") from None
    try:
        draft = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
        for each in path.parent.iterdir():
            if draft.fullmatch(each.name):
                each.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            lock_path.unlink()
        lock.release()


def _text(name: str) -> str:
    """A name as every format can hold it: lone surrogates as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
