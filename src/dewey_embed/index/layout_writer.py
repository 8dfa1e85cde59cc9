"""A snapshot → the files of its layout, in the order of the documents' ids, read in blocks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import IndexStoreError
from dewey_embed.index.checksums import LEDGER_NAME, Ledger
from dewey_embed.index.ivf import build_ivf, release
from dewey_embed.index.settings import REMEDY
from dewey_embed.index.store import Snapshot, reading
from dewey_embed.index.tables import SCAN_ROWS, canonical, row_sums, word_crc
from dewey_embed.index.vectors import EXACT_LIMIT, joined_norms
from dewey_embed.index.words import write_word_index
from dewey_embed.progress import Advance, progress_bar

if TYPE_CHECKING:
    import pyarrow as pa


def write_layout(snapshot: Snapshot, folder: Path, *, progress: bool = False) -> None:
    """Write a snapshot's layout into `folder`. Tables are read in blocks.

    Raises:
        IndexStoreError: a document lacks some of its chunks, or the tables are damaged.

    """
    import pyarrow.compute as pc

    with reading(snapshot.folder):
        columns = ["id", "title", "source", "metadata", "hash", "num_chunks"]
        names = snapshot.documents.search().select(columns).with_row_id(True)
        table = names.to_batches(SCAN_ROWS).read_all()
    table = table.take(pc.sort_indices(table["id"]))
    starts = np.concatenate([[0], np.cumsum(table["num_chunks"].to_numpy())]).astype(np.int64)
    np.save(folder / "starts.npy", starts)
    _write_names(table, folder / "documents.arrow")
    sizes = (len(table), int(starts[-1]))
    work = sum(2 * size if size > EXACT_LIMIT else size for size in sizes)
    with progress_bar("laying out", work, "vectors", show=progress) as advance:
        documents, titles = _write_documents(snapshot, folder, table, advance=advance)
        hashes = table["hash"].combine_chunks()
        chunks = _write_chunks(snapshot, folder, hashes, starts, titles, advance=advance)
        distinct = _write_titles(folder, table["title"], titles)
        for name, vectors in (("documents", documents), ("chunks", chunks), ("titles", distinct)):
            if len(vectors) > EXACT_LIMIT:
                build_ivf(vectors, folder / f"{name}.faiss", advance)
            if isinstance(vectors, np.memmap):
                vectors.flush()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    Ledger.of(folder, files).write(folder / LEDGER_NAME)


def _write_documents(
    snapshot: Snapshot, folder: Path, table: pa.Table, *, advance: Advance
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Write the documents' vectors and words; their vectors and their titles', (N, D) float32."""
    import pyarrow.compute as pc

    width = snapshot.documents.schema.field("vector").type.list_size
    vectors = _new_array(folder / "documents.npy", np.float32, (len(table), width))
    titles = np.zeros((len(table), width), np.float32)
    row_ids = table["_rowid"].combine_chunks()
    postings: list[tuple[NDArray[Any], ...]] = []
    columns = ["vector", "title_vector", "vector_sum", "words", "word_counts", "word_crc"]
    query = snapshot.documents.search().select(columns).with_row_id(True)
    with reading(snapshot.folder):
        for batch in query.to_batches(SCAN_ROWS):
            rows = pc.index_in(batch["_rowid"], value_set=row_ids).to_numpy()
            titles[rows] = _vectors(batch["title_vector"], width)
            vectors[rows] = _vectors(batch["vector"], width)
            sums = row_sums(vectors[rows], titles[rows])
            _refuse_damaged(snapshot, sums, batch["vector_sum"], "a document's vector")
            lengths = pc.list_value_length(batch["words"]).to_numpy()
            numbers, counts = (
                batch[name].flatten().to_numpy(zero_copy_only=False)
                for name in ("words", "word_counts")
            )
            ends = np.cumsum(lengths)
            crcs = [
                word_crc(numbers[end - length : end], counts[end - length : end])
                for end, length in zip(ends, lengths, strict=True)
            ]
            _refuse_damaged(snapshot, np.array(crcs), batch["word_crc"], "a document's words")
            postings.append((np.repeat(rows, lengths), numbers, counts))
            advance(len(rows))
    if postings:
        owners, numbers, counts = (np.concatenate(each) for each in zip(*postings, strict=True))
    else:
        owners = numbers = counts = np.zeros(0, np.int64)
    np.save(folder / "documents_norms.npy", joined_norms(vectors, titles))
    order = np.argsort(owners, kind="stable")
    write_word_index(folder, owners[order], numbers[order], counts[order])
    return vectors, titles


def _write_names(table: pa.Table, path: Path) -> None:
    """Write what hits say of documents; metadata as a map from key to canonical JSON."""
    import pyarrow as pa

    metadata = [
        [(key, canonical(value)) for key, value in json.loads(text).items()]
        for text in table["metadata"].to_pylist()
    ]
    names = pa.table(
        {
            "id": table["id"],
            "title": table["title"],
            "source": table["source"],
            "metadata": pa.array(metadata, pa.map_(pa.string(), pa.string())),
            "row_id": table["_rowid"],
        }
    )
    with pa.ipc.new_file(str(path), names.schema) as writer:
        writer.write_table(names)


def _write_chunks(
    snapshot: Snapshot,
    folder: Path,
    hashes: pa.Array,
    starts: NDArray[np.int64],
    titles: NDArray[np.float32],
    *,
    advance: Advance,
) -> NDArray[Any]:
    """Write every live chunk's characters and vector at its place; the vectors (C, D) float16.

    `titles` (N, D) are those of the documents.
    """
    import pyarrow.compute as pc

    width = titles.shape[1]

    total = int(starts[-1])
    spans = _new_array(folder / "spans.npy", np.int64, (total, 2))
    vectors = _new_array(folder / "chunks.npy", np.float16, (total, width))
    norms = np.zeros(total, np.float32)
    seen = 0
    positions = ["char_start", "char_end", "token_start", "token_end"]
    columns = ["document_hash", "ordinal", *positions, "sum", "vector"]
    with reading(snapshot.folder):
        for batch in snapshot.chunks.search().select(columns).to_batches(SCAN_ROWS):
            owners = pc.index_in(batch["document_hash"], value_set=hashes)
            live = np.flatnonzero(owners.is_valid().to_numpy(zero_copy_only=False))
            documents = owners.take(live).to_numpy()
            ordinals = batch["ordinal"].to_numpy()
            places = np.stack([batch[name].to_numpy() for name in positions], axis=1)
            held = _vectors(batch["vector"], width)
            _refuse_damaged(snapshot, row_sums(held, ordinals, places), batch["sum"], "a chunk")
            rows = starts[documents] + ordinals[live]
            spans[rows] = places[live, :2]
            vectors[rows] = held[live]
            norms[rows] = joined_norms(vectors[rows], titles[documents])
            release(vectors)
            seen += len(live)
            advance(len(live))
    np.save(folder / "chunks_norms.npy", norms)
    if seen != total or not (spans[:, 1] > spans[:, 0]).all():
        raise IndexStoreError(
            f"index {snapshot.folder} is damaged: its tables hold {seen} chunks for documents "
            f"that have {total}; {REMEDY}"
        )
    return vectors


def _refuse_damaged(
    snapshot: Snapshot, sums: NDArray[np.int64], written: pa.Array, what: str
) -> None:
    """Raise unless checksums of rows are those that were written."""
    if not np.array_equal(sums, written.to_numpy()):
        raise IndexStoreError(
            f"index {snapshot.folder} is damaged: {what} is not as it was written; {REMEDY}"
        )


def _write_titles(
    folder: Path, names: pa.ChunkedArray, titles: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Write each distinct title's vector once, and which is whose; the vectors (M, D) float32."""
    titled = np.flatnonzero(titles.any(axis=1))
    _, first, which = np.unique(
        np.array(names.to_pylist(), object)[titled], return_index=True, return_inverse=True
    )
    of = np.full(len(titles), -1, np.int64)
    of[titled] = which
    distinct: NDArray[np.float32] = titles[titled[first]]
    np.save(folder / "title_of.npy", of)
    np.save(folder / "titles.npy", distinct)
    return distinct


def _vectors(column: pa.Array, width: int) -> NDArray[Any]:
    """A column of vectors as (rows, D)."""
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, width)


def _new_array(path: Path, dtype: type, shape: tuple[int, int]) -> NDArray[Any]:
    """An array on disk to be filled; in memory where there is nothing to fill.

    Its room is taken at once: a mapped page that finds the disk full would kill the process.

    Raises:
        OSError: the disk is full.

    """
    if 0 in shape:
        empty: NDArray[Any] = np.empty(shape, dtype)
        np.save(path, empty)
        return empty
    array: NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
