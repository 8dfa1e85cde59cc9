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
from dewey_embed.index.passages import REACH, Surroundings, unit_rows
from dewey_embed.index.settings import REMEDY
from dewey_embed.index.store import Snapshot, reading
from dewey_embed.index.tables import SCAN_ROWS, canonical, row_sums, word_crc
from dewey_embed.index.vectors import EXACT_LIMIT
from dewey_embed.index.words import Postings, word_signatures, write_word_index
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
        columns = ["id", "title", "source", "metadata", "hash", "num_chunks", "num_passages"]
        names = snapshot.documents.search().select(columns).with_row_id(True)
        table = names.to_batches(SCAN_ROWS).read_all()
    table = _each_once(table)
    table = table.take(pc.sort_indices(table["id"]))
    # A document without text has one passage, too, which is empty: it is found by its title.
    starts = _starts(np.maximum(table["num_passages"].to_numpy(), 1))
    chunk_starts = _starts(table["num_chunks"].to_numpy())
    np.save(folder / "starts.npy", starts)
    _write_names(table, folder / "documents.arrow")
    sizes = (len(table), int(chunk_starts[-1]), int(starts[-1]))
    work = sum(2 * size if size > EXACT_LIMIT else size for size in sizes)
    with progress_bar("laying out", work, "vectors", show=progress) as advance:
        documents, titles = _write_documents(snapshot, folder, table, advance=advance)
        hashes = table["hash"].combine_chunks()
        sums = _write_chunks(snapshot, folder, hashes, chunk_starts, starts, advance=advance)
        passages = _write_passages(folder, sums, starts, advance=advance)
        distinct = _write_titles(folder, table["title"], titles)
        for name, vectors in (
            ("documents", documents), ("passages", passages), ("titles", distinct)
        ):  # fmt: skip
            if len(vectors) > EXACT_LIMIT:
                build_ivf(vectors, folder / f"{name}.faiss", advance)
            if isinstance(vectors, np.memmap):
                vectors.flush()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    Ledger.of(folder, files).write(folder / LEDGER_NAME)


def _each_once(table: pa.Table) -> pa.Table:
    """The rows of documents without those that a killed run on a cluster wrote a second time."""
    import pyarrow.compute as pc

    if pc.count_distinct(table["hash"]).as_py() == len(table):
        return table
    firsts = table.group_by("hash").aggregate([("_rowid", "min")])["_rowid_min"]
    return table.filter(pc.is_in(table["_rowid"], value_set=firsts.combine_chunks()))


def _starts(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of several runs begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _write_documents(
    snapshot: Snapshot, folder: Path, table: pa.Table, *, advance: Advance
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Write the documents' vectors and words; their vectors and their titles', (N, D) float32."""
    import pyarrow.compute as pc

    width = snapshot.documents.schema.field("vector").type.list_size
    vectors = _new_array(folder / "documents.npy", np.float32, (len(table), width))
    titles = np.zeros((len(table), width), np.float32)
    row_ids = table["_rowid"].combine_chunks()
    postings = _Postings()
    columns = ["vector", "title_vector", "vector_sum", "words", "word_counts", "word_crc"]
    query = snapshot.documents.search().select(columns).with_row_id(True)
    with reading(snapshot.folder):
        for read in query.to_batches(SCAN_ROWS):
            batch = read.filter(pc.is_in(read["_rowid"], value_set=row_ids))
            rows = pc.index_in(batch["_rowid"], value_set=row_ids).to_numpy()
            titles[rows] = _vectors(batch["title_vector"], width)
            vectors[rows] = _vectors(batch["vector"], width)
            sums = row_sums(vectors[rows], titles[rows])
            _refuse_damaged(snapshot, sums, batch["vector_sum"], "a document's vector")
            postings.add(snapshot, batch, rows, "a document's words")
            advance(len(rows))
    write_word_index(folder, "document", len(table), postings.joined())
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


class _Postings:
    """The words of rows of a table, gathered batch by batch."""

    def __init__(self) -> None:
        self._batches: list[tuple[NDArray[Any], ...]] = []

    def add(self, snapshot: Snapshot, batch: pa.RecordBatch, owners: Any, what: str) -> None:
        """Add a batch whose row i belongs to text `owners[i]`; -1 for none."""
        import pyarrow.compute as pc

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
        _refuse_damaged(snapshot, np.array(crcs), batch["word_crc"], what)
        texts = np.repeat(owners, lengths)
        live = texts >= 0
        self._batches.append((texts[live], numbers[live], counts[live]))

    def joined(self) -> Postings:
        """Texts, words and counts (P,) of all batches."""
        if not self._batches:
            return (np.zeros(0, np.int64),) * 3
        rows, numbers, counts = (np.concatenate(each) for each in zip(*self._batches, strict=True))
        return rows, numbers, counts


def _write_chunks(
    snapshot: Snapshot,
    folder: Path,
    hashes: pa.Array,
    chunk_starts: NDArray[np.int64],
    starts: NDArray[np.int64],
    *,
    advance: Advance,
) -> NDArray[Any]:
    """Write where every live chunk stands; the sums (P, D) float32 of the passages' chunks."""
    import pyarrow.compute as pc

    width = snapshot.chunks.schema.field("vector").type.list_size
    total, num = int(chunk_starts[-1]), int(starts[-1])
    spans = np.full((total, 2), -1, np.int64)
    row_ids, owners = np.zeros(total, np.int64), np.zeros(total, np.int64)
    sums = _new_array(folder / "passage_sums.npy", np.float32, (num, width))
    postings = _Postings()
    seen = 0
    places = ["char_start", "char_end", "token_start", "token_end"]
    columns = ["document_hash", "ordinal", "passage", *places, "weight", "sum", "vector"]
    columns += ["words", "word_counts", "word_crc"]
    query = snapshot.chunks.search().select(columns).with_row_id(True)
    with reading(snapshot.folder):
        for batch in query.to_batches(SCAN_ROWS):
            documents = pc.index_in(batch["document_hash"], value_set=hashes).fill_null(-1)
            documents = documents.to_numpy(zero_copy_only=False)
            ordinals, numbers, weights = (
                batch[name].to_numpy() for name in ("ordinal", "passage", "weight")
            )
            bounds = np.stack([batch[name].to_numpy() for name in places], axis=1)
            vectors = _vectors(batch["vector"], width)
            checksums = row_sums(vectors, ordinals, numbers, bounds, weights)
            _refuse_damaged(snapshot, checksums, batch["sum"], "a chunk")
            live = np.flatnonzero(documents >= 0)
            rows = chunk_starts[documents[live]] + ordinals[live]
            _, first = np.unique(rows, return_index=True)  # of a document that was written twice
            new = np.sort(first[spans[rows[first], 1] < 0])
            live, rows = live[new], rows[new]
            passages = np.full(len(documents), -1, np.int64)
            passages[live] = starts[documents[live]] + numbers[live]
            postings.add(snapshot, batch, passages, "a chunk's words")
            spans[rows], owners[rows] = bounds[live, :2], passages[live]
            row_ids[rows] = batch["_rowid"].to_numpy()[live]
            weighted, _ = unit_rows(vectors[live].astype(np.float32))
            np.add.at(sums, passages[live], weighted * weights[live, None])
            seen += len(live)
            advance(len(live))
    if seen != total or not (spans[:, 1] > spans[:, 0]).all() or (np.diff(owners) < 0).any():
        raise IndexStoreError(
            f"index {snapshot.folder} is damaged: its tables hold {seen} chunks for documents "
            f"that have {total}; {REMEDY}"
        )
    np.save(folder / "chunk_rows.npy", row_ids)
    passage_starts = np.searchsorted(owners, np.arange(num + 1))
    np.save(folder / "chunk_starts.npy", passage_starts)
    np.save(folder / "spans.npy", _passage_spans(spans, passage_starts))
    words = postings.joined()
    write_word_index(folder, "passage", num, words)
    np.save(folder / "signatures.npy", word_signatures(num, words))
    return sums


def _passage_spans(spans: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Characters (P, 2) of passages, from those of their chunks; (0, 0) of one without chunks."""
    joined = np.zeros((len(starts) - 1, 2), np.int64)
    some = np.diff(starts) > 0
    joined[some, 0] = spans[starts[:-1][some], 0]
    joined[some, 1] = spans[starts[1:][some] - 1, 1]
    return joined


def _write_passages(
    folder: Path, sums: NDArray[Any], starts: NDArray[np.int64], *, advance: Advance
) -> NDArray[Any]:
    """Write the passages' vectors, their weights and the norms of their surroundings' sums.

    `sums` (P, D) are those of their chunks, `starts` (N + 1,) the documents' first passages.
    """
    num, width = sums.shape
    vectors = _new_array(folder / "passages.npy", np.float16, (num, width))
    weights, around = np.zeros(num, np.float32), np.zeros(num, np.float32)
    for start in range(0, num, SCAN_ROWS):
        stop = min(num, start + SCAN_ROWS)
        vectors[start:stop], weights[start:stop] = unit_rows(sums[start:stop])
        first, last = max(0, start - REACH), min(num, stop + REACH)
        inner = np.unique(np.clip(starts, first, last)) - first
        inner = np.unique(np.concatenate([[0], inner, [last - first]]))
        near = Surroundings(inner).sums(np.array(sums[first:last]))
        around[start:stop] = np.linalg.norm(near[start - first : stop - first], axis=1)
        release(vectors)
        advance(stop - start)
    np.save(folder / "passage_weights.npy", weights)
    np.save(folder / "surrounding_norms.npy", around)
    (folder / "passage_sums.npy").unlink()
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
