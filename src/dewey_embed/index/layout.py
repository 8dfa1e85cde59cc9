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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import IndexStoreError
from dewey_embed.index.checksums import LEDGER_NAME, Ledger
from dewey_embed.index.filters import filter_mask, metadata_values
from dewey_embed.index.layout_writer import write_layout
from dewey_embed.index.passages import Surroundings
from dewey_embed.index.store import Snapshot, UnreadError, reading
from dewey_embed.index.vectors import read_neighbours
from dewey_embed.index.words import WordIndex, length_norms
from dewey_embed.types import Filter, Mask, MetadataValue

LAYOUT_FORMAT = 4


class DerivedLayout:
    """N documents and their P passages, by row; rows are in the order of the documents' ids.

    `documents` has the columns id, title, source, metadata and row_id; document i owns the passages
    `starts[i]` to `starts[i + 1]`, and `owners` (P,) are their documents. Passage j has the
    characters `spans[j]` and the chunks `chunk_rows[chunk_starts[j] : chunk_starts[j + 1]]` of the
    table; `title_of` (N,) is the row of a document's title in `titles`, -1 without one.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        with pa.memory_map(str(folder / "documents.arrow")) as file:
            self.documents = pa.ipc.open_file(file).read_all()
        self.starts: NDArray[np.int64] = np.load(folder / "starts.npy")
        self.owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        self.spans, self.chunk_starts, self.chunk_rows, self.signatures = (
            _quick(folder / f"{name}.npy")
            for name in ("spans", "chunk_starts", "chunk_rows", "signatures")
        )
        self.weights, self.surrounding_norms, self.title_of = (
            np.load(folder / f"{name}.npy")
            for name in ("passage_weights", "surrounding_norms", "title_of")
        )
        self.document_vectors, self.passage_vectors, self.titles = (
            read_neighbours(_mapped(folder / f"{name}.npy"), folder / f"{name}.faiss")
            for name in ("documents", "passages", "titles")
        )
        self.surroundings = Surroundings(self.starts)
        self.document_words, self.passage_words = (
            WordIndex(folder, name, _quick) for name in ("document", "passage")
        )
        lengths = self.surroundings.sums(self.passage_words.lengths)
        self.surrounding_word_norms = length_norms(lengths)

    def __len__(self) -> int:
        return int(self.documents.num_rows)

    @property
    def num_chunks(self) -> int:
        """The chunks of all documents."""
        return len(self.chunk_rows)

    def find(self, ids: Sequence[str]) -> list[int | None]:
        """The row of each id; `None` where there is no such document."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = pc.index_in(pa.array(ids, pa.string()), value_set=self.documents["id"])
        found: list[int | None] = rows.to_pylist()
        return found

    def filter_mask(self, where: Filter) -> Mask:
        """Which documents (N,) a filter lets pass.

        Raises:
            InputError: as `filters.filter_mask`.
            TypeError: the filter is not a mapping.

        """
        return filter_mask(self.documents["metadata"], where)

    def metadata_values(self, key: str) -> list[tuple[MetadataValue, int]]:
        """The values that documents have under a key, with their numbers, most first.

        Raises:
            InputError: no document has such a key.

        """
        return metadata_values(self.documents["metadata"], key)

    def metadata(self, row: int) -> dict[str, MetadataValue]:
        """A document's metadata."""
        pairs = self.documents["metadata"][row].as_py()
        return {key: json.loads(value) for key, value in pairs}


def open_layout(
    folder: Path, snapshot: Snapshot, *, progress: bool = False, to_stay: bool = False
) -> DerivedLayout:
    """The layout of a snapshot of the index in `folder`, made now if it is missing or damaged.

    Where the index's folder cannot be written, it is made in a temporary one, and so it is where
    the disk is full, unless it is one `to_stay` there.

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
            shutil.rmtree(draft, ignore_errors=True)
            if not to_stay:
                with suppress(OSError):  # the temporary folder may lie on the same disk
                    return _temporary(snapshot)
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


def remove_stale_layouts(folder: Path, snapshot: Snapshot, *, drafts: bool = True) -> None:
    """Remove all layouts but this snapshot's; `drafts`, too, for the holder of the writer's lock.

    Readers that have an older one open keep it: its files live until they let go of them.
    """
    kept = layout_name(snapshot)
    for path in (folder / "derived").glob("*"):
        is_draft = path.name.startswith(".") and not drafts
        if path.name != kept and _OURS.fullmatch(path.name) and not is_draft:
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


def _quick(path: Path) -> NDArray[Any]:
    """An array on disk, paged in as it is used, whose single rows are looked up often."""
    return np.asarray(_mapped(path))  # a memory map checks every item that it gives out
