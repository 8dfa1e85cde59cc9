"""What is read from an index: hits, rankings and documents of its newest state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from threading import Lock
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from dewey_embed.index.hits import document_hits, landmarks_of, passage_at, passage_hits
from dewey_embed.index.layout import DerivedLayout, open_layout, remove_stale_layouts
from dewey_embed.index.ranking import Query, ranked
from dewey_embed.index.store import Snapshot, Store, UnreadError
from dewey_embed.types import Document, Hit, MetadataValue, Passage

ATTEMPTS = 5

P = ParamSpec("P")
T = TypeVar("T")


def _retried(
    method: Callable[Concatenate[Reader, P], T],
) -> Callable[Concatenate[Reader, P], T]:
    """The method, repeated on the next state if a writer that tidies up removed the one it read."""

    @wraps(method)
    def retried(reader: Reader, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(1, ATTEMPTS):
            try:
                return method(reader, *args, **kwargs)
            except UnreadError:
                reader.forget()
        return method(reader, *args, **kwargs)

    return retried


class State(NamedTuple):
    """A snapshot of the tables and what is laid out of it for searching."""

    snapshot: Snapshot
    layout: DerivedLayout


class Reader:
    """Reads what was last committed to a store. Several threads may share one.

    Every method raises `IndexStoreError` if the index cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state: State | None = None
        self._listing: list[tuple[str, int, int]] | None = None
        self._lock = Lock()

    @_retried
    def hits(self, query: Query) -> list[Hit]:
        """The `k` best documents with their passages, best first.

        Raises:
            InputError: the filter names metadata that no document has.

        """
        state = self._newest()
        return [] if state is None else document_hits(query, *state)

    @_retried
    def passage_hits(self, query: Query) -> list[Hit]:
        """The `k` best passages of all documents, best first, each in a hit of its own.

        Raises:
            InputError: the filter names metadata that no document has.

        """
        state = self._newest()
        return [] if state is None else passage_hits(query, *state)

    @_retried
    def ranked_ids(self, queries: Sequence[Query]) -> list[list[tuple[str, float]]]:
        """For each query the ids and scores of its `k` best documents, best first."""
        import pyarrow as pa

        state = self._newest()
        if state is None:
            return [[] for _ in queries]
        rows = [ranked(query, state.layout).documents(query.k) for query in queries]
        taken = pa.array([row for each in rows for row, _ in each], pa.int64())
        ids = iter(state.layout.documents["id"].take(taken).to_pylist())
        return [[(next(ids), score) for _, score in each] for each in rows]

    @_retried
    def document(self, document_id: str) -> Document | None:
        """The document with this id, as it is in the index; None if there is none."""
        state = self._newest()
        if state is None:
            return None
        snapshot, layout = state
        [row] = layout.find([document_id])
        if row is None:
            return None
        row_id = layout.documents["row_id"][row].as_py()
        values = snapshot.texts([row_id], ["places", "landmarks"])[row_id]
        return Document(
            **{name: layout.documents[name][row].as_py() for name in ("id", "source", "title")},
            text=values["text"],
            root=json.loads(values["places"])[0][0],
            metadata=layout.metadata(row),
            landmarks=landmarks_of(values["landmarks"]),
        )

    @_retried
    def passage(self, document_id: str, number: int) -> Passage | None:
        """A document's passage by its number, without score; `None` where there is none."""
        state = self._newest()
        if state is None:
            return None
        [row] = state.layout.find([document_id])
        return None if row is None else passage_at(*state, row, number)

    def documents(self) -> Iterator[Document]:
        """All documents without their texts, in the order of their ids."""
        state = self._newest()
        if state is None:
            return
        layout = state.layout
        columns = layout.documents.select(["id", "title", "source"])
        for row, document in enumerate(columns.to_pylist()):
            yield Document(**document, text="", metadata=layout.metadata(row))

    @_retried
    def metadata_values(self, key: str) -> list[tuple[MetadataValue, int]]:
        """The values that documents have under a key of metadata, with their numbers, most first.

        Raises:
            InputError: no document has such a key.

        """
        state = self._newest()
        return [] if state is None else state.layout.metadata_values(key)

    @_retried
    def counts(self) -> tuple[int, int]:
        """Numbers of documents and of chunks."""
        state = self._newest()
        return (0, 0) if state is None else (len(state.layout), state.layout.num_chunks)

    def lay_out(self, *, progress: bool = False) -> None:
        """Leave the layout of the newest state on disk, and no other. For the writer."""
        state = self._newest(progress=progress, to_stay=True)
        if state is not None:
            remove_stale_layouts(self._store.folder, state.snapshot)

    def forget(self) -> None:
        """Let go of the state that was read last."""
        with self._lock:
            self._state = None

    def _newest(self, *, progress: bool = False, to_stay: bool = False) -> State | None:
        """The newest state; None before the first commit. Its layout may be one `to_stay`."""
        with self._lock:
            listing = self._store.listing()
            stands_still = listing is not None and listing == self._listing
            if self._state is None or not (
                stands_still or self._state.snapshot.state == self._store.state()
            ):
                snapshot = self._store.snapshot()
                if snapshot is None:
                    return None
                layout = open_layout(
                    self._store.layouts, snapshot, progress=progress, to_stay=to_stay
                )
                if self._store.layouts != self._store.folder:  # kept here for nobody else
                    remove_stale_layouts(self._store.layouts, snapshot, drafts=False)
                self._state = State(snapshot, layout)
            self._listing = listing
            return self._state
