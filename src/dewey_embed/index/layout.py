"""What a snapshot holds, laid out for searching: in one order, beside the tables, derived.

A layout is a folder `derived/<format>-<versions>` with documents sorted by id and their chunks
in order, so that the same content gives the same layout however it was written. It appears by
one rename, complete, with the checksums of its files; it is made again when the tables have newer
versions or a file is damaged, and can be deleted at any time.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import IndexStoreError, InputError
from dewey_embed.index.checksums import LEDGER_NAME, Ledger
from dewey_embed.index.layout_writer import write_layout
from dewey_embed.index.store import Snapshot, UnreadError, reading
from dewey_embed.index.tables import canonical, is_comparable
from dewey_embed.index.vectors import Titles, best_documents, read_neighbours, read_titled
from dewey_embed.index.words import WordIndex
from dewey_embed.types import Floats, Mask, MetadataValue, Rows

LAYOUT_FORMAT = 3

MAX_FILTER_VALUES = 100_000

Filter = Mapping[str, MetadataValue | Iterable[MetadataValue]]


class DerivedLayout:
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
        named = read_neighbours(_mapped(folder / "titles.npy"), folder / "titles.faiss")
        self.titles = Titles(named, np.load(folder / "title_of.npy"))
        self.document_vectors, self.chunk_vectors = (
            read_titled(
                _mapped(folder / f"{name}.npy"),
                folder / f"{name}.faiss",
                self.titles,
                starts,
                _mapped(folder / f"{name}_norms.npy"),
            )
            for name, starts in (("documents", np.arange(len(self) + 1)), ("chunks", self.starts))
        )
        self.words = WordIndex(folder, len(self), _mapped)

    def __len__(self) -> int:
        return int(self.documents.num_rows)

    @property
    def num_chunks(self) -> int:
        """C, the chunks of all documents."""
        return len(self.spans)

    def nearest_by_chunks(
        self, query: Floats, num: int, mask: Mask | None = None
    ) -> tuple[Rows, Floats]:
        """Rows of the `num` documents with the best chunks, best first, and their chunks' scores.

        `query` is (D,) float32; `mask` (N,) says which documents may be returned.
        """
        chunks = None if mask is None else np.repeat(mask, np.diff(self.starts))
        return best_documents(self.chunk_vectors, self.starts, query, num, chunks)

    def best_chunk_scores(self, rows: Rows, query: Floats) -> Floats:
        """Scores (R,) float32 of documents' best chunks; of a document without chunks, its own."""
        best = self.document_vectors.scores(rows, query)
        starts = self.starts[rows]
        sizes = self.starts[rows + 1] - starts
        if sizes.sum():
            firsts = np.cumsum(sizes) - sizes
            chunks = np.arange(sizes.sum()) + np.repeat(starts - firsts, sizes)
            some = sizes > 0
            scores = self.chunk_vectors.scores(chunks, query)
            best[some] = np.maximum.reduceat(scores, firsts[some])
        return best

    def passages(self, row: int, query: Floats, num: int) -> list[tuple[float, int, int]]:
        """Score and characters of a document's `num` best chunks, best first."""
        start, end = int(self.starts[row]), int(self.starts[row + 1])
        scores = self.chunk_vectors.scores(slice(start, end), query)
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

    def filter_mask(self, where: Filter) -> Mask:
        """Which documents (N,) have, for every key, the value or one of the values given.

        `None` matches a document without the key, too.

        Raises:
            InputError: no document has such a key (those there are are named), or a value is
                nothing that metadata can hold.

        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not isinstance(where, Mapping):
            raise TypeError(f"filter is {type(where).__name__}, not a dict of keys and values")
        metadata = self.documents["metadata"].combine_chunks()
        wanted = {key: _filter_values(key, value) for key, value in where.items()}
        known = set(pc.unique(metadata.keys).to_pylist()) if len(self) else set(where)
        mask = np.ones(len(self), np.bool_)
        for key, values in wanted.items():
            if key not in known:
                raise InputError(
                    f"no document has metadata {key!r} to filter by; "
                    f"known: {', '.join(sorted(known)) or 'none'}"
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


def _filter_values(key: str, value: Any) -> list[MetadataValue]:
    """The values of which a document must have one.

    Raises:
        InputError: there are none, or one is nothing that metadata can hold.

    """
    if isinstance(value, Mapping):
        raise InputError(
            f"filter {key!r} is {value!r}; operators are not known: give a value, or all the "
            "values that may match, such as range(2020, 2025)"
        )
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    values = list(islice(value, MAX_FILTER_VALUES + 1)) if several else [value]
    if len(values) > MAX_FILTER_VALUES:
        raise InputError(
            f"filter {key!r} has more than {MAX_FILTER_VALUES:,} values; narrow it, or filter what "
            "is found"
        )
    values = [each.item() if isinstance(each, np.generic) else each for each in values]
    if not values:
        raise InputError(f"filter {key!r} has no value; leave it out, or give at least one")
    for each in values:
        if not isinstance(each, str | int | float | bool | None):
            raise InputError(
                f"filter {key!r} has {each!r} ({type(each).__name__}); metadata holds str, int, "
                "float, bool and None"
            )
        if not is_comparable(each):
            raise InputError(
                f"filter {key!r} has a number that is not finite or past 64 bits, which metadata "
                "never holds"
            )
    return values


def open_layout(folder: Path, snapshot: Snapshot, *, progress: bool = False) -> DerivedLayout:
    """The layout of a snapshot of the index in `folder`, made now if it is missing or damaged.

    Where the index's folder cannot be written, it is made in memory's place: a temporary folder.

    Raises:
        IndexStoreError: the tables do not fit together, or the disk is full.

    """
    home = folder / "derived"
    place = home / layout_name(snapshot)
    for _ in range(2):  # one that another process makes meanwhile is looked at again
        if _is_intact(place):
            with reading(folder):
                return DerivedLayout(place)
        try:
            home.mkdir(exist_ok=True)
            draft = home / f".draft-{secrets.token_hex(8)}"
            draft.mkdir()
        except OSError:
            return _temporary(snapshot)
        try:
            write_layout(snapshot, draft, progress=progress)
            _put(draft, place)
        except FileNotFoundError as error:  # a writer took it for what a killed run left
            raise UnreadError(f"index {folder} changes too fast to be read; try again") from error
        except OSError as error:
            raise IndexStoreError(
                f"index {folder}: {place} cannot be written ({error.strerror or error}); the "
                "documents are safe: make room, and search or index again"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    with reading(folder):
        return DerivedLayout(place)


def _is_intact(place: Path) -> bool:
    """Whether a layout is there with all of its files as they were written."""
    try:
        ledger = Ledger.read(place / LEDGER_NAME)
        if ledger is None or not all((place / name).is_file() for name in ledger.files):
            return False
        return ledger.damaged(place) is None
    except OSError:  # a loop of links, a folder in a file's place
        return False


def _put(draft: Path, place: Path) -> None:
    """Rename a draft into its place, in place of a damaged one; leave an intact one."""
    try:
        draft.rename(place)
    except OSError:
        if not os.path.lexists(place):
            raise
        if _is_intact(place):
            return  # another reader was faster
        aside = place.with_name(f".draft-{secrets.token_hex(8)}")
        place.rename(aside)
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink()
        draft.rename(place)


def layout_name(snapshot: Snapshot) -> str:
    """The name of the folder in `derived` that is made of a snapshot."""
    documents, chunks, crc = snapshot.state
    return f"{LAYOUT_FORMAT}-{documents}-{chunks}-{crc:08x}"


_OURS = re.compile(r"\d+-\d+-\d+(-[0-9a-f]{8})?|\.draft-[0-9a-z-]+")


def remove_stale_layouts(folder: Path, snapshot: Snapshot) -> None:
    """Remove all layouts but this snapshot's. For the holder of the writer's lock.

    Readers that have an older one open keep it: its files live until they let go of them.
    """
    kept = layout_name(snapshot)
    for path in (folder / "derived").glob("*"):
        if path.name != kept and _OURS.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _temporary(snapshot: Snapshot) -> DerivedLayout:
    """A layout in a temporary folder, which is gone from the disk once it is open."""
    with tempfile.TemporaryDirectory(prefix="dewey-") as draft:
        write_layout(snapshot, Path(draft))
        return DerivedLayout(Path(draft))


def _mapped(path: Path) -> NDArray[Any]:
    """An array on disk, paged in as it is used; an empty one, which cannot be mapped, read."""
    array: NDArray[Any] = np.load(path) if path.stat().st_size <= 128 else np.load(path, "r")
    return array
