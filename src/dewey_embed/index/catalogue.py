"""What a snapshot holds, laid out for searching: in one order, beside the tables, derived.

A catalogue is a folder `derived/<format>-<versions>` with documents sorted by id and their chunks
in order, so that the same content gives the same catalogue however it was written. It appears by
one rename, whole; it is made again when the tables have newer versions, and can be deleted at
any time.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import IndexStoreError, InputError
from dewey_embed.index.inverted import build_inverted, release
from dewey_embed.index.neighbours import (
    EXACT_LIMIT,
    Mask,
    Rows,
    best_documents,
    read_neighbours,
)
from dewey_embed.index.records import canonical
from dewey_embed.index.snapshot import SCAN_ROWS, Snapshot
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.types import MetadataValue

if TYPE_CHECKING:
    import pyarrow as pa

CATALOGUE_FORMAT = 2

Filter = Mapping[str, MetadataValue | Sequence[MetadataValue] | Set[MetadataValue]]


class Catalogue:
    """N documents and their C chunks, by row; rows are in the order of the documents' ids.

    `documents` has the columns id, title, source, metadata and row_id; `spans` (C, 2) int64 holds
    characters; document i owns the chunks `starts[i]` to `starts[i + 1]`.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        with pa.memory_map(str(folder / "documents.arrow")) as file:
            self.documents = pa.ipc.open_file(file).read_all()
        self.starts: NDArray[np.int64] = np.load(folder / "starts.npy")
        self.spans: NDArray[np.int64] = _mapped(folder / "spans.npy")
        self.whole = read_neighbours(_mapped(folder / "documents.npy"), folder / "documents.faiss")
        self.chunks = read_neighbours(_mapped(folder / "chunks.npy"), folder / "chunks.faiss")

    def __len__(self) -> int:
        return int(self.documents.num_rows)

    @property
    def num_chunks(self) -> int:
        """C, the chunks of all documents."""
        return len(self.spans)

    def rank(
        self, query: NDArray[np.float32], num: int, *, whole: bool, allowed: Mask | None = None
    ) -> tuple[Rows, NDArray[np.float32]]:
        """The `num` best documents, best first, and their scores.

        `whole` compares the documents' own vectors, else each document's best chunk. `query` is
        (D,) float32; `allowed` (N,) says which documents may answer.
        """
        if whole:
            return self.whole.nearest(query, num, allowed)
        chunks = None if allowed is None else np.repeat(allowed, np.diff(self.starts))
        return best_documents(self.chunks, self.starts, query, num, chunks)

    def passages(
        self, row: int, query: NDArray[np.float32], num: int
    ) -> list[tuple[float, int, int]]:
        """Score and characters of a document's `num` best chunks, best first."""
        start, end = int(self.starts[row]), int(self.starts[row + 1])
        scores = self.chunks.scores(slice(start, end), query)
        best = np.argsort(-scores, kind="stable")[:num]
        spans = self.spans[start:end]
        return [(float(scores[i]), int(spans[i, 0]), int(spans[i, 1])) for i in best]

    def find(self, ids: Sequence[str]) -> list[int | None]:
        """The row of each id; `None` where there is no such document."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = pc.index_in(pa.array(ids, pa.string()), value_set=self.documents["id"])
        found: list[int | None] = rows.to_pylist()
        return found

    def matching(self, where: Filter) -> Mask:
        """Which documents (N,) have, for every key, the value or one of the values given.

        `None` matches a document without the key, too.

        Raises:
            InputError: no document has such a key; those there are are named.

        """
        import pyarrow as pa
        import pyarrow.compute as pc

        metadata = self.documents["metadata"].combine_chunks()
        known = set(pc.unique(metadata.keys).to_pylist()) if len(self) else set(where)
        mask = np.ones(len(self), np.bool_)
        for key, value in where.items():
            if key not in known:
                raise InputError(
                    f"no document has metadata {key!r} to filter by; "
                    f"known: {', '.join(sorted(known)) or 'none'}"
                )
            values: list[Any] = (
                list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
            )
            held = pc.map_lookup(metadata, key, "first")
            hit = pc.is_in(held, value_set=pa.array([canonical(item) for item in values]))
            if None in values:
                hit = pc.or_(hit, pc.is_null(held))
            mask &= hit.to_numpy(zero_copy_only=False)
        return mask

    def metadata(self, row: int) -> dict[str, MetadataValue]:
        """A document's metadata."""
        pairs = self.documents["metadata"][row].as_py()
        return {key: json.loads(value) for key, value in pairs}


def open_catalogue(folder: Path, snapshot: Snapshot, *, progress: bool = False) -> Catalogue:
    """The catalogue of a snapshot of the index in `folder`, made now if it is missing.

    Where the index's folder cannot be written, it is made in memory's place: a temporary folder.

    Raises:
        IndexStoreError: the tables do not fit together.

    """
    name = f"{CATALOGUE_FORMAT}-{snapshot.versions[0]}-{snapshot.versions[1]}"
    home = folder / "derived"
    if not (home / name).exists():
        try:
            home.mkdir(exist_ok=True)
            draft = home / f".draft-{secrets.token_hex(8)}"
            draft.mkdir()
        except OSError:
            return _temporary(snapshot)
        try:
            write_catalogue(snapshot, draft, progress=progress)
            draft.rename(home / name)
        except OSError:
            if not (home / name).exists():  # else another reader was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Catalogue(home / name)


def remove_stale_catalogues(folder: Path, snapshot: Snapshot) -> None:
    """Nothing; only the catalogue of this snapshot is left. For the holder of the writer's lock.

    Readers that have an older one open keep it: its files live until they let go of them.
    """
    name = f"{CATALOGUE_FORMAT}-{snapshot.versions[0]}-{snapshot.versions[1]}"
    for path in (folder / "derived").glob("*"):
        if path.name != name:
            shutil.rmtree(path, ignore_errors=True)


def _temporary(snapshot: Snapshot) -> Catalogue:
    """A catalogue in a temporary folder, which is gone from the disk once it is open."""
    with tempfile.TemporaryDirectory(prefix="dewey-") as draft:
        write_catalogue(snapshot, Path(draft))
        return Catalogue(Path(draft))


def _mapped(path: Path) -> NDArray[Any]:
    """An array on disk, paged in as it is used; an empty one, which cannot be mapped, read."""
    array: NDArray[Any] = np.load(path) if path.stat().st_size <= 128 else np.load(path, "r")
    return array


def write_catalogue(snapshot: Snapshot, folder: Path, *, progress: bool = False) -> None:
    """Nothing; `folder` then holds a snapshot's catalogue. Tables are read in blocks.

    Raises:
        IndexStoreError: a document lacks some of its chunks.

    """
    import pyarrow.compute as pc

    columns = ["id", "title", "source", "metadata", "hash", "num_chunks"]
    names = snapshot.documents.search().select(columns).with_row_id(True)
    table = names.to_batches(SCAN_ROWS).read_all()
    order = pc.sort_indices(table["id"])
    table = table.take(order)
    starts = np.concatenate([[0], np.cumsum(table["num_chunks"].to_numpy())]).astype(np.int64)
    np.save(folder / "starts.npy", starts)
    _write_names(table, folder / "documents.arrow")
    width = snapshot.documents.schema.field("vector").type.list_size
    whole = _new_array(folder / "documents.npy", np.float32, (len(table), width))
    row_ids = table["_rowid"].combine_chunks()
    sizes = (len(table), int(starts[-1]))
    work = sum(2 * size if size > EXACT_LIMIT else size for size in sizes)
    with progress_bar("laying out", work, "vectors", show=progress) as advance:
        query = snapshot.documents.search().select(["vector"]).with_row_id(True)
        for batch in query.to_batches(SCAN_ROWS):
            rows = pc.index_in(batch["_rowid"], value_set=row_ids).to_numpy()
            whole[rows] = _vectors(batch, width)
            advance(len(rows))
        hashes = table["hash"].combine_chunks()
        chunks = _write_chunks(snapshot, folder, hashes, starts, width, advance=advance)
        for name, vectors in (("documents", whole), ("chunks", chunks)):
            if len(vectors) > EXACT_LIMIT:
                build_inverted(vectors, folder / f"{name}.faiss", advance)


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
    width: int,
    *,
    advance: Advance,
) -> NDArray[Any]:
    """Write every live chunk's characters and vector at its place; the vectors (C, D) float16."""
    import pyarrow.compute as pc

    total = int(starts[-1])
    spans = _new_array(folder / "spans.npy", np.int64, (total, 2))
    vectors = _new_array(folder / "chunks.npy", np.float16, (total, width))
    seen = 0
    columns = ["document_hash", "ordinal", "char_start", "char_end", "vector"]
    for batch in snapshot.chunks.search().select(columns).to_batches(SCAN_ROWS):
        owners = pc.index_in(batch["document_hash"], value_set=hashes)
        live = np.flatnonzero(owners.is_valid().to_numpy(zero_copy_only=False))
        rows = starts[owners.take(live).to_numpy()] + batch["ordinal"].to_numpy()[live]
        spans[rows, 0] = batch["char_start"].to_numpy()[live]
        spans[rows, 1] = batch["char_end"].to_numpy()[live]
        vectors[rows] = _vectors(batch, width)[live]
        release(vectors)
        seen += len(live)
        advance(len(live))
    if seen != total or not (spans[:, 1] > spans[:, 0]).all():
        raise IndexStoreError(
            f"the tables hold {seen} chunks for documents that have {total}; "
            "the index is damaged: index again into another folder"
        )
    return vectors


def _vectors(batch: pa.RecordBatch, width: int) -> NDArray[Any]:
    """The `vector` column of a batch as (rows, D)."""
    values: NDArray[Any] = batch["vector"].flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, width)


def _new_array(path: Path, dtype: type, shape: tuple[int, int]) -> NDArray[Any]:
    """An array on disk to be filled; in memory where there is nothing to fill."""
    if 0 in shape:
        empty: NDArray[Any] = np.empty(shape, dtype)
        np.save(path, empty)
        return empty
    array: NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    return array
