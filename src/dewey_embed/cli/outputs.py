"""Files of vectors: Parquet, NumPy, JSON lines; each appears complete or not at all.

Parquet and JSON lines have the rows of `rows`. An .npz holds `ids` (N,), `vectors` (N, D) and, with
chunks, `chunks` (C, D), `spans` (C, 4) in the same order of columns, and `chunk_documents` (C,):
the row in `ids` that each belongs to; with texts `titles`, `metadata`, `texts` (N,) and
`chunk_texts`, `chunk_locations` (C,). Metadata and locations are JSON in Parquet and .npz.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dewey_embed.cli import console
from dewey_embed.errors import ConfigError
from dewey_embed.files import atomic_file, only_writer
from dewey_embed.rows import Row, flat, rows_of, rows_schema, rows_table
from dewey_embed.storage import is_address
from dewey_embed.text.formats import EXTENSIONS
from dewey_embed.types import Document, DocumentVectors, Span

Documents = Iterator[list[Row]]
"""For each document a list: its own row, then those of its chunks if they are wanted."""


def write_vectors(
    path: Path,
    encoded: Iterable[tuple[Document, DocumentVectors]],
    *,
    chunks: bool,
    texts: bool = False,
) -> None:
    """Write vectors in the format of a path's extension; `-` is JSON lines on standard output.

    They are written to a draft while they are encoded; it takes the file's place at the end.

    Raises:
        CheckpointError: vectors that are not finite numbers.
        ConfigError: another process is writing the file.

    """
    documents = (
        rows_of(document, vectors, chunks=chunks, texts=texts) for document, vectors in encoded
    )
    if str(path) == "-":
        for rows in documents:
            console.echo("\n".join(map(_line, rows)))
        return
    write = WRITERS[path.suffix.lower()]
    path = Path(os.path.realpath(path))  # a link stays, and its target is written
    with _named(path), only_writer(path), atomic_file(path, sync=True) as draft:
        draft.touch()  # a folder that cannot be written is named before the work begins
        write(draft, documents, chunks)


def check_output(path: Path, inputs: Sequence[str] = ()) -> None:
    """Refuse a path that vectors cannot be written to.

    Raises:
        ConfigError: another extension, something that is not a file, or one of the inputs.

    """
    if str(path) == "-":
        return
    if is_address(path):
        raise ConfigError(
            f"{path}: an address, not a file of this machine; with --ray, vectors are written there"
        )
    if path.suffix.lower() not in WRITERS:
        raise ConfigError(
            f"{path}: vectors are written as {', '.join(WRITERS)}; name one of these"
            " (as .lance and .index with --ray)"
        )
    if path.exists() and not path.is_file():
        folder = " (a folder of files is what --ray writes)" if path.is_dir() else ""
        raise ConfigError(f"{path}: is there and is no file{folder}; give another path")
    if path.exists() and any(_is_read(path, each) for each in inputs):
        raise ConfigError(
            f"{path}: is read as an input, too, and would be replaced; give another path"
        )


def _is_read(path: Path, each: str) -> bool:
    """Whether a file is an input, or would be read in an input's folder."""
    given = Path(os.path.realpath(each))
    own = Path(os.path.realpath(path))
    return own == given or (given in own.parents and own.name.lower().endswith(EXTENSIONS))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file, not its draft, lock or folder, in errors of writing."""
    try:
        yield
    except OSError as error:
        named = path if error.filename is None else Path(os.fsdecode(error.filename))
        if named not in path.parents and path.name not in named.name:
            raise  # of another file
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot be written: {reason}", str(path)) from None


def _line(row: Row) -> str:
    """A row as JSON, its numbers in the shortest decimals that read back as the same float32."""
    return json.dumps({**row, "vector": [float(str(number)) for number in row["vector"]]})


def write_json_lines(draft: Path, documents: Documents, chunks: bool) -> None:
    """Write one JSON object a row."""
    with draft.open("w", encoding="utf-8") as file:
        for rows in documents:
            file.writelines(_line(row) + "\n" for row in rows)


def write_parquet(draft: Path, documents: Documents, chunks: bool) -> None:
    """Write one Parquet file, a row group for each document."""
    import pyarrow.parquet as pq

    # Opened here, for pyarrow refuses names that are not UTF-8.
    with draft.open("wb") as file, ExitStack() as stack:
        writer = None
        for rows in documents:
            schema = rows_schema(len(rows[0]["vector"]), texts="text" in rows[0])
            if writer is None:
                writer = stack.enter_context(
                    pq.ParquetWriter(file, schema, write_page_checksum=True)
                )
            writer.write_table(rows_table(rows, schema))


def write_npz(draft: Path, documents: Documents, chunks: bool) -> None:
    """Write arrays into one .npz; they are held in memory until the end."""
    held = list(documents)
    vectors = np.stack([rows[0]["vector"] for rows in held])
    arrays: dict[str, Any] = {
        "ids": np.array([rows[0]["document_id"] for rows in held]),
        "vectors": vectors,
    }
    if chunks:
        inner = [row for rows in held for row in rows[1:]]
        spans = [[row[name] for name in Span._fields] for row in inner]
        arrays["chunks"] = np.array([row["vector"] for row in inner], np.float32)
        arrays["chunks"] = arrays["chunks"].reshape(-1, vectors.shape[1])
        arrays["spans"] = np.array(spans, np.int64).reshape(-1, len(Span._fields))
        arrays["chunk_documents"] = np.repeat(np.arange(len(held)), [len(r) - 1 for r in held])
    if "text" in held[0][0]:
        own = [flat(rows[0]) for rows in held]
        names = {"title": "titles", "metadata": "metadata", "text": "texts"}
        arrays |= {plural: np.array([row[name] for row in own]) for name, plural in names.items()}
        if chunks:
            arrays["chunk_texts"] = np.array([row["text"] for row in inner], np.str_)
            arrays["chunk_locations"] = np.array([flat(row)["location"] for row in inner], np.str_)
    with draft.open("wb") as file:
        np.savez(file, **arrays)


WRITERS: Mapping[str, Callable[[Path, Documents, bool], None]] = {
    ".parquet": write_parquet,
    ".npz": write_npz,
    ".jsonl": write_json_lines,
}
"""Formats by extension: a function that writes rows to a path, told whether chunks are wanted."""
