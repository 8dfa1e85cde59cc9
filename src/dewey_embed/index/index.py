"""`Index`: open an index, add documents, search it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from dewey_embed.config import EncodeOptions
from dewey_embed.errors import ConfigError, InputError
from dewey_embed.index.changes import GROUP_CHARS, is_within, real_path
from dewey_embed.index.layout import Filter
from dewey_embed.index.ranking import Query, require_queries
from dewey_embed.index.reader import Reader
from dewey_embed.index.settings import IndexSettings, changed_options
from dewey_embed.index.store import Store, refuse_file
from dewey_embed.index.sync import (
    IndexEncoder,
    IndexReport,
    Meter,
    RemoveReport,
    checked,
    new_settings,
    total_bytes,
    update,
)
from dewey_embed.index.tables import spelled
from dewey_embed.progress import progress_bar
from dewey_embed.text.inputs import DEFAULT_LIMITS, ReadLimits
from dewey_embed.text.reader import read_documents
from dewey_embed.text.splitter import known_splitter
from dewey_embed.types import Document, Floats, Hit, Overflow, SearchMode, Unreadable

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey

RANKED_TOGETHER = 64
"""Queries answered from one reading of the index: whether others wrote is looked up in between."""


class Index:
    """Documents on disk, searchable by meaning. `Index.open` opens one, or begins a new one.

    Any number of processes and threads may search while one writes; a search sees what was
    committed before it. Threads may share one `Index`. The layout on disk is described in
    docs/index-format.md.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, Index.open(folder) as index:
    ...     report = index.add(Document(id="moth", text="Moths eat wool and silk."))
    ...     hits = index.search("what eats silk?", k=1)
    >>> report.num_added, hits[0].document_id, hits[0].passages[0].text
    (1, 'moth', 'Moths eat wool and silk.')
    """

    def __init__(self, path: Path, settings: IndexSettings | None, options: EncodeOptions) -> None:
        self.path = path
        self.options = options
        self._store = Store(path, settings) if settings else None
        self._model: Dewey | str | Path | None = None
        self._loaded: Dewey | None = None
        self._reader: Reader | None = None
        self._model_lock = Lock()
        self._write_lock = Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: Dewey | str | Path | None = None,
        *,
        chunk_tokens: int | Sequence[int] | None = None,
        chunk_overlap: int | Sequence[int] | None = None,
        splitter: str | None = None,
        overflow: Overflow | None = None,
    ) -> Self:
        """The index at a path; where there is none, one that the first `add` will make.

        `path` is a folder, `~` the home folder; it stays the same when the working directory
        changes. An existing index knows its model and how its documents are cut: leave these out,
        or give the same. A new one takes them from here, with the defaults of
        `Dewey.encode_document`.

        Raises:
            IndexMismatchError: the index was made by another model or with other options.
            IndexStoreError: it is damaged, or there is a file in its place.
            ConfigError: an impossible option, or a path that is empty or an address.
            CheckpointError: the model cannot be loaded.

        """
        path = index_path(path)
        refuse_file(path)
        settings = IndexSettings.read(path)
        own = settings.options if settings else EncodeOptions()
        splitter = None if splitter is None else known_splitter(splitter)
        options = changed_options(own, chunk_tokens, chunk_overlap, splitter, overflow)
        if settings:
            settings.require_options(options, path)
        index = cls(path, settings, options)
        index._model = model
        if settings and model is not None:
            _ = index.model  # another model is refused now, not after an hour
        return index

    def close(self) -> None:
        """Let go of the files and the model; the next call takes them up again."""
        self._reader = None
        self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r})"

    @property
    def settings(self) -> IndexSettings:
        """What the index was made with.

        Raises:
            IndexStoreError: there is no index yet.

        """
        return self._existing().settings

    @property
    def model(self) -> Dewey:
        """The model of this index, loaded when first needed.

        Raises:
            IndexMismatchError: it is not the one that made the index.
            CheckpointError: it cannot be loaded.

        """
        return self._load_model()

    def _load_model(self) -> Dewey:
        """The model, loaded by the first thread that needs it."""
        with self._model_lock:
            if self._loaded is None:
                settings = None if self._store is None else self._store.settings
                self._loaded = load_model(self._model, settings, self.path)
            return self._loaded

    def add(
        self,
        documents: Document | Iterable[Document | Unreadable],
        *,
        progress: bool = False,
        group_chars: int = GROUP_CHARS,
    ) -> IndexReport:
        """What was done: new documents are encoded, changed ones (same id) replaced, others kept.

        One document or several; what `read_documents` could not read is passed on to the report.
        Documents are committed in groups of at most `group_chars` characters, or one document;
        a run that is killed loses no more than that, and goes on from there when repeated.

        Raises:
            TypeError: an item is not a `Document`, or its metadata is not flat.
            IndexStoreError: another process is writing.
            TextTooLongError: with `overflow="error"`; what was committed before stays.

        """
        several = [documents] if isinstance(documents, Document) else documents
        return self._update(checked(several), [], progress, group_chars)

    def add_files(
        self,
        inputs: str | Path | Sequence[str | Path],
        *,
        text_fields: str | Sequence[str] = (),
        id_field: str | None = None,
        title_field: str | None = None,
        stdin_extension: str = ".txt",
        limits: ReadLimits = DEFAULT_LIMITS,
        prune: bool = False,
        progress: bool = False,
        group_chars: int = GROUP_CHARS,
    ) -> IndexReport:
        """What was done, as with `add`, for files and folders; files that are gone leave the index.

        A document leaves when it was found under one of these inputs before and is not there now.
        One that is there and cannot be read keeps its older version, and is reported. With
        `prune`, all documents leave whose file is gone, wherever it was. What is read, and how,
        is `read_documents`'s to say; `limits` are what one file may take for it.

        Raises:
            ReadError: none of the inputs exists; nothing was done.
            IndexStoreError: another process is writing.
            TextTooLongError: as with `add`.

        """
        several = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        items = read_documents(
            several,
            text_fields=text_fields,
            id_field=id_field,
            title_field=title_field,
            stdin_extension=stdin_extension,
            limits=limits,
        )
        return self._update(items, several, progress, group_chars, prune=prune)

    def remove(self, names: str | Path | Iterable[str | Path]) -> RemoveReport:
        """What was done: documents leave by their id, or by their file, or a folder above it.

        Raises:
            IndexStoreError: there is no index, or another process is writing.

        """
        several = [names] if isinstance(names, str | Path) else list(names)
        with self._write_lock, self._existing().writer() as writer:
            gone: set[str] = set()
            unknown = []
            for name in map(str, several):
                path = spelled(real_path(os.path.abspath(os.path.expanduser(name))))
                found = {spelled(name)} & writer.held.keys() or {
                    document_id
                    for document_id, held in writer.held.items()
                    if is_within(held.details.source, path)
                }
                gone |= found
                if not found:
                    unknown.append(name)
            writer.remove(sorted(gone))
            writer.finish()
            self._committed().lay_out()
        return RemoveReport(num_removed=len(gone), unknown=unknown)

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        mode: SearchMode = "hybrid",
        passages: int = 3,
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        vector: Floats | None = None,
    ) -> list[Hit]:
        """The `k` documents that answer best, best first, each with its `passages` best chunks.

        - `mode`: `"multi"` ranks a document by its best chunk and, a quarter, by its one vector for
          the whole; `"single"` by that alone; `"hybrid"` by `multi` and by its words (BM25).
        - `filter`: metadata that documents must have, each key a value or any of a list:
          `{"extension": ".pdf", "year": range(2020, 2026)}`. Still finds `k` where there are as
          many.
        - `vector`: what the index's model makes of the query, (D,) of unit length, if it is known:
          no model is loaded then.

        A search for a few documents gives the first of those that a search for more would give.

        A hit's score is at most 1, a weighted cosine; in `hybrid` it is in standard deviations of
        the candidates' scores, for comparing hits of one query only. A passage's is its chunk's
        cosine.

        Raises:
            IndexStoreError: there is no index, or it cannot be read.
            IndexMismatchError: the model at hand is another than the index's.
            InputError: a blank query, a number below one, an unknown mode or filter key, a vector
                that is not the model's.
            TypeError: the query is not a string, or a number not whole.

        """
        if not isinstance(query, str):
            raise TypeError(f"query is {type(query).__name__}, not str; several go to rank()")
        known = None if vector is None else _numbers(vector)[None]
        [one] = self._queries([query], k, mode, passages=passages, where=filter, vectors=known)
        return self._committed().hits(one)

    def rank(
        self,
        queries: Sequence[str],
        k: int = 100,
        *,
        mode: SearchMode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        progress: bool = False,
    ) -> list[list[tuple[str, float]]]:
        """For each query the ids and scores of its `k` best documents, as `search` ranks them.

        Many queries are encoded together and no passages are looked up: for evaluations and jobs.

        Raises:
            IndexStoreError: as `search`.
            IndexMismatchError: as `search`.
            InputError: as `search`.
            TypeError: the queries are one string.

        """
        if isinstance(queries, str):
            raise TypeError("queries is one string, not a list of them; one goes to search()")
        several = self._queries(queries, k, mode, where=filter)
        reader = self._committed()
        ranked: list[list[tuple[str, float]]] = []
        with progress_bar("searching", len(several), "queries", show=progress) as advance:
            for start in range(0, len(several), RANKED_TOGETHER):
                batch = several[start : start + RANKED_TOGETHER]
                ranked += reader.ranked_ids(batch)
                advance(len(batch))
        return ranked

    def document(self, document_id: str) -> Document:
        """The document with this id, as it is in the index.

        Raises:
            InputError: there is none.

        """
        document = self._committed().document(spelled(document_id))
        if document is None:
            raise InputError(f"no document {document_id!r} in index {self.path}")
        return document

    def __len__(self) -> int:
        """The number of documents in the index; 0 before the first `add`."""
        return 0 if self._store is None else self._committed().counts()[0]

    @property
    def num_chunks(self) -> int:
        """The number of chunks of all documents; 0 before the first `add`."""
        return 0 if self._store is None else self._committed().counts()[1]

    def _existing(self) -> Store:
        """The store; looked for again where there was none when this was opened."""
        if self._store is None:
            self._store = Store.open(self.path)
        return self._store

    def _queries(
        self,
        queries: Sequence[str],
        k: int,
        mode: SearchMode,
        *,
        passages: int = 0,
        where: Filter | None = None,
        vectors: Floats | None = None,
    ) -> list[Query]:
        """The queries with their vectors, checked; the model makes those not known."""
        require_queries(queries, k, mode, passages)
        width = self._existing().settings.embedding_dim
        if vectors is None:
            vectors = np.asarray(self.model.encode_query(queries), np.float32)
        if vectors.shape != (len(queries), width):
            raise InputError(
                f"the query's vector has shape {vectors.shape[1:]}; index {self.path} holds "
                f"vectors of {width} numbers, made by its own model"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        if not (abs(lengths - 1) < 0.01).all():  # NaN is not, either
            raise InputError(
                f"the query's vector has length {lengths[~(abs(lengths - 1) < 0.01)][0]:.4g}, not "
                "1: give what the index's own model makes of the query, divided by its length"
            )
        return [
            Query(text=text, vector=vector, k=k, mode=mode, passages=passages, filter=where)
            for text, vector in zip(queries, vectors, strict=True)
        ]

    def _committed(self) -> Reader:
        """The reader of what is committed."""
        if self._reader is None:
            self._reader = Reader(self._existing())
        return self._reader

    def _update(
        self,
        items: Iterable[Document | Unreadable],
        inputs: Sequence[str | Path],
        progress: bool,
        group_chars: int,
        *,
        prune: bool = False,
    ) -> IndexReport:
        """Bring the index up to date with what was read, and lay it out for searching."""
        store = self._store or Store(self.path, new_settings(self.model, self.options))
        bar = progress_bar("indexing", total_bytes(inputs), "bytes", show=progress)
        with self._write_lock, store.writer() as writer, bar as advance:
            self._store = store
            report = update(
                writer,
                items,
                encoder=self._encoder(),
                inputs=inputs,
                prune=prune,
                group_chars=group_chars,
                meter=Meter(advance),
            )
            self._committed().lay_out()
        return report

    def _encoder(self) -> IndexEncoder:
        """The encoder of documents for this index."""
        return IndexEncoder(self._load_model, self.options)


def _numbers(vector: Floats) -> Floats:
    try:
        return np.asarray(vector, np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"vector is {type(vector).__name__}, not an array of numbers") from None


def index_path(path: str | Path) -> Path:
    """The folder of an index, absolute.

    Raises:
        ConfigError: the path is empty, an address, or holds characters that LanceDB's cannot.

    """
    name = os.fspath(path)
    if not name or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise ConfigError(
            f"an index's path is {name!r}; name a folder, without control characters and in UTF-8"
        )
    if "://" in name:
        raise ConfigError(f"an index's path is {name!r}, an address; name a folder on this machine")
    return Path(os.path.abspath(os.path.expanduser(name)))


def load_model(given: Dewey | str | Path | None, made: IndexSettings | None, path: Path) -> Dewey:
    """The model given, or the one that made the index at `path`, checked against it.

    `made` is what the index was made with, None where it is still to be made.

    Raises:
        IndexMismatchError: it is not the one that made the index.
        CheckpointError: it cannot be loaded.

    """
    from dewey_embed.encoder import Dewey

    if isinstance(given, Dewey):
        model = given
    elif made is None:
        model = Dewey.load(given)
    else:
        model = Dewey.load(
            made.model if given is None else given,
            single_vector=made.single_vector,
            max_tokens=made.max_tokens,
            truncate_dim=made.truncate_dim,
        )
    if made is not None:
        made.require_model(model.name, model.fingerprint, path)
    return model
