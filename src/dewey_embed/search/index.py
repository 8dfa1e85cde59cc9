"""`Index`: opens an index, adds to it, searches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from dewey_embed.config import EncodeOptions
from dewey_embed.errors import InputError
from dewey_embed.index.answers import answer, ranked_ids, stored_document
from dewey_embed.index.catalogue import Catalogue, Filter
from dewey_embed.index.changes import GROUP_CHARS
from dewey_embed.index.ranking import Mode, Question, require_questions
from dewey_embed.index.settings import IndexSettings, changed_options
from dewey_embed.index.store import Store
from dewey_embed.index.view import View
from dewey_embed.progress import Advance, progress_bar
from dewey_embed.search.models import load_model
from dewey_embed.search.update import (
    IndexReport,
    Meter,
    checked,
    new_settings,
    total_bytes,
    update,
)
from dewey_embed.text.limits import DEFAULT_LIMITS, ReadLimits
from dewey_embed.text.reader import Unreadable, read_documents
from dewey_embed.types import Document, DocumentVectors, Hit, Overflow

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey

RANKED_TOGETHER = 64
"""Queries answered from one reading of the index: whether others wrote is looked up in between."""


class Index:
    """Documents on disk, searchable by meaning. `Index.open` opens one, or begins a new one.

    Any number of processes may search while one writes; a search sees what was committed before
    it. The layout on disk is described in docs/index-format.md.
    """

    def __init__(self, path: Path, settings: IndexSettings | None, options: EncodeOptions) -> None:
        self.path = path
        self.options = options
        self._store = Store(path, settings) if settings else None
        self._model: Dewey | str | Path | None = None
        self._loaded: Dewey | None = None
        self._view: View | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: Dewey | str | Path | None = None,
        *,
        chunk_tokens: int | Sequence[int] | None = None,
        chunk_overlap: int | Sequence[int] | None = None,
        splitter: Literal["tokens", "recursive", "words"] | None = None,
        overflow: Overflow | None = None,
    ) -> Self:
        """The index at a path; where there is none, one that the first `add` will make.

        An existing index knows its model and how its documents are cut: leave these out, or give
        the same. A new one takes them from here, with the defaults of `Dewey.encode_document`.

        Raises:
            IndexMismatchError: the index was made by another model or with other options.
            IndexStoreError: it is damaged. ConfigError: an impossible option.
            CheckpointError: the model cannot be loaded.

        """
        path = Path(path)
        settings = IndexSettings.read(path)
        own = settings.options if settings else EncodeOptions()
        options = changed_options(own, chunk_tokens, chunk_overlap, splitter, overflow)
        if settings:
            settings.require_options(options, path)
        index = cls(path, settings, options)
        index._model = model
        if settings and model is not None:
            _ = index.model  # another model is refused now, not after an hour
        return index

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
        if self._loaded is None:
            made = None if self._store is None else self._store.settings
            self._loaded = load_model(self._model, made, self.path)
        return self._loaded

    def add(
        self,
        documents: Iterable[Document],
        *,
        progress: bool = False,
        group_chars: int = GROUP_CHARS,
    ) -> IndexReport:
        """What was done: new documents are encoded, changed ones (same id) replaced, others kept.

        Documents are committed in groups of at most `group_chars` characters, or one document;
        a run that is killed loses no more than that, and goes on from there when repeated.

        Raises:
            TypeError: an item is no `Document`, or its metadata is not flat.
            IndexStoreError: another process is writing. TextTooLongError: with
                `overflow="error"`; what was committed before stays.

        """
        return self._update(checked(documents), [], progress, group_chars)

    def add_files(
        self,
        inputs: str | Path | Sequence[str | Path],
        *,
        text_fields: str | Sequence[str] = (),
        id_field: str | None = None,
        title_field: str | None = None,
        stdin_extension: str = ".txt",
        limits: ReadLimits = DEFAULT_LIMITS,
        progress: bool = False,
        group_chars: int = GROUP_CHARS,
    ) -> IndexReport:
        """What was done, as with `add`, for files and folders; files that are gone leave the index.

        A document leaves when it was found under one of these inputs before and is not there now.
        One that is there and cannot be read keeps its older version, and is reported. What is
        read, and how, is `dewey_embed.text.reader.read_documents`'s to say.

        Raises:
            ReadError: an input does not exist; nothing was done.
            IndexStoreError: another process is writing. TextTooLongError: as with `add`.

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
        return self._update(items, several, progress, group_chars)

    def remove(self, ids: Iterable[str]) -> int:
        """How many documents left; ids that are not in the index are passed over."""
        with self._existing().writer() as writer:
            gone = [document_id for document_id in set(ids) if document_id in writer.hashes]
            writer.remove(gone)
            writer.finish()
            self._viewed().settle()
        return len(gone)

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        mode: Mode = "hybrid",
        passages: int = 3,
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        """The `k` documents that answer best, best first, each with its `passages` best chunks.

        - `mode`: `"multi"` ranks a document by its best chunk and, a quarter, by its one vector for
          the whole; `"single"` by that alone; `"hybrid"` by `multi` and by its words (BM25).
        - `filter`: metadata that documents must have, each key a value or any of a list:
          `{"extension": ".pdf", "year": [2024, 2025]}`. Still finds `k` where there are as many.
        - `vector`: what the index's model makes of the query, (D,), if it is known: no model is
          loaded then.

        A hit's score is at most 1, a weighted cosine; in `hybrid` it is in standard deviations of
        the candidates' scores, for comparing hits of one query only. A passage's is its chunk's
        cosine.

        Raises:
            IndexStoreError: there is no index, or it cannot be read.
            IndexMismatchError: the model at hand is another than the index's.
            InputError: a blank query, a number below one, an unknown mode or filter key.

        """
        if not isinstance(query, str):
            raise TypeError(f"query is {type(query).__name__}, not str; several go to rank()")
        known = None if vector is None else np.asarray(vector, np.float32)[None]
        [question] = self._ask([query], k, mode, passages=passages, where=filter, vectors=known)
        return self._viewed().read(partial(answer, question), nothing=[])

    def rank(
        self,
        queries: Sequence[str],
        k: int = 100,
        *,
        mode: Mode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        progress: bool = False,
    ) -> list[list[tuple[str, float]]]:
        """For each query the ids and scores of its `k` best documents, as `search` ranks them.

        Many queries are encoded together and no passages are looked up: for evaluations and jobs.

        Raises:
            IndexStoreError, IndexMismatchError, InputError: as `search`.

        """
        if isinstance(queries, str):
            raise TypeError("queries is one string, not a list of them; one goes to search()")
        questions = self._ask(queries, k, mode, where=filter)
        view = self._viewed()
        ranked: list[list[tuple[str, float]]] = []
        with progress_bar("searching", len(questions), "queries", show=progress) as advance:
            for start in range(0, len(questions), RANKED_TOGETHER):
                some = questions[start : start + RANKED_TOGETHER]
                ranked += view.read(partial(ranked_ids, some), nothing=[[] for _ in some])
                advance(len(some))
        return ranked

    def document(self, document_id: str) -> Document:
        """The document with this id, as it is in the index.

        Raises:
            InputError: there is none.

        """
        found = self._viewed().read(partial(stored_document, document_id), nothing=None)
        if found is None:
            raise InputError(f"no document {document_id!r} in index {self.path}")
        return found

    def __len__(self) -> int:
        """How many documents are in the index; 0 before the first `add`."""
        return self._count(len)

    @property
    def num_chunks(self) -> int:
        """How many chunks the documents have together; 0 before the first `add`."""
        return self._count(lambda catalogue: catalogue.num_chunks)

    def _count(self, of: Callable[[Catalogue], int]) -> int:
        if self._store is None:
            return 0
        return self._viewed().read(lambda _, catalogue: of(catalogue), nothing=0)

    def _existing(self) -> Store:
        """The store; looked for again where there was none when this was opened."""
        if self._store is None:
            self._store = Store.open(self.path)
        return self._store

    def _ask(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode,
        *,
        passages: int = 0,
        where: Filter | None = None,
        vectors: NDArray[np.float32] | None = None,
    ) -> list[Question]:
        """The queries with their vectors, checked; the model makes those not known."""
        require_questions(queries, k, mode, passages)
        width = self._existing().settings.embedding_dim
        if vectors is None:
            vectors = np.asarray(self.model.encode_query(queries), np.float32)
        if vectors.shape != (len(queries), width):
            raise InputError(
                f"the query's vector has shape {vectors.shape[1:]}; index {self.path} holds "
                f"vectors of {width} numbers, made by its own model"
            )
        return [
            Question(words=words, vector=vector, k=k, mode=mode, passages=passages, filter=where)
            for words, vector in zip(queries, vectors, strict=True)
        ]

    def _viewed(self) -> View:
        """A reader's view of the store."""
        if self._view is None:
            self._view = View(self._existing())
        return self._view

    def _update(
        self,
        items: Iterable[Document | Unreadable],
        inputs: Sequence[str | Path],
        progress: bool,
        group_chars: int,
    ) -> IndexReport:
        """Bring the index up to date with what was read, and lay it out for searching."""
        store = self._store or Store(self.path, new_settings(self.model, self.options))
        bar = progress_bar("indexing", total_bytes(inputs), "bytes", show=progress)
        with store.writer() as writer, bar as advance:
            self._store = store
            report = update(
                writer,
                items,
                encode=self._encode,
                inputs=inputs,
                group_chars=group_chars,
                meter=Meter(advance),
            )
            self._viewed().settle()
        return report

    def _encode(self, texts: Sequence[str], progress: Advance) -> list[DocumentVectors]:
        """The texts' vectors, as this index has them."""
        return self.model.encode_document(
            texts,
            chunk_tokens=self.options.chunk_tokens,
            chunk_overlap=self.options.chunk_overlap,
            splitter=self.options.splitter,
            overflow=self.options.overflow,
            progress=progress,
        )
