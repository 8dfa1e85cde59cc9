"""`Index`: open an index, add documents, search it."""

from __future__ import annotations

import os
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import numpy as np

from dewey_embed.config import EncodeOptions
from dewey_embed.errors import ConfigError, InputError
from dewey_embed.index.changes import GROUP_CHARS, is_within, real_path
from dewey_embed.index.checksums import LEDGER_NAME
from dewey_embed.index.file_cache import FileCache
from dewey_embed.index.ranking import Query, require_queries
from dewey_embed.index.reader import Reader
from dewey_embed.index.settings import INDEX_OPTIONS, IndexSettings, changed_options
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
from dewey_embed.storage import Address, is_address
from dewey_embed.text.inputs import DEFAULT_LIMITS, File, ReadLimits
from dewey_embed.text.locations import location_of
from dewey_embed.text.reader import read_documents
from dewey_embed.text.sentences import widened
from dewey_embed.text.splitter import known_splitter
from dewey_embed.types import (
    Document,
    Filter,
    Floats,
    Hit,
    MetadataValue,
    Overflow,
    Passage,
    SearchMode,
    Unreadable,
)

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
        self._store = Store.of(path, settings) if settings else None
        self._window: int | None = None
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
        window: int | None = None,
    ) -> Self:
        """The index at a path; where there is none, one that the first `add` will make.

        `path` is a folder, `~` the home folder; it stays the same when the working directory
        changes. It may be an address such as `s3://bucket/my.index`, of an index that was copied
        there, which can only be read; what is laid out of it for searching is kept in the user's
        cache. An existing index knows its model and how its documents are cut: leave these out,
        or give the same. A new one takes them from here. By default it holds a vector for every
        sentence and shows passages of whole sentences, as many as fit into 64 tokens
        (`chunk_tokens`); other splitters are those of `Dewey.encode_document`. `window` is the most
        tokens read at once, 2,048 by default: a longer one costs more time a token.

        Raises:
            IndexMismatchError: the index was made by another model or with other options.
            IndexStoreError: it is damaged, there is a file in its place, or no index at an address.
            StorageError: the object storage cannot be reached.
            ConfigError: an impossible option, or a path that is empty.
            CheckpointError: the model cannot be loaded.

        """
        path = index_path(path)
        refuse_file(path)
        is_remote = isinstance(path, Address)
        settings = Store.open(path).settings if is_remote else IndexSettings.read(path)
        own = settings.options if settings else INDEX_OPTIONS
        splitter = None if splitter is None else known_splitter(splitter)
        options = changed_options(own, chunk_tokens, chunk_overlap, splitter, overflow)
        if settings:
            settings.require_options(options, window, path)
        index = cls(path, settings, options)
        index._window = settings.window if settings else window
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
        return self._update(
            checked(several), [], progress, group_chars, meter=Meter(), cache=FileCache()
        )

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
        cache: FileCache | None = None,
    ) -> IndexReport:
        """What was done, as with `add`, for files and folders; files that are gone leave the index.

        A document leaves when it was found under one of these inputs before and is not there now.
        One that is there and cannot be read keeps its older version, and is reported. With
        `prune`, all documents leave whose file is gone, wherever it was. What is read, and how,
        is `read_documents`'s to say; `limits` are what one file may take for it. With the `cache`
        of an earlier call, only files that changed since are read.

        Raises:
            ReadError: none of the inputs exists; nothing was done.
            IndexStoreError: another process is writing.
            TextTooLongError: as with `add`.

        """
        several = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        meter, files = Meter(), FileCache() if cache is None else cache

        def recall(file: File) -> Sequence[Document | Unreadable] | None:
            meter.reading(file.source)
            return files.recall(file.source, file.path, file)

        items = read_documents(
            several,
            text_fields=text_fields,
            id_field=id_field,
            title_field=title_field,
            stdin_extension=stdin_extension,
            limits=limits,
            recall=recall,
        )
        return self._update(
            items, several, progress, group_chars, meter=meter, cache=files, prune=prune
        )

    def remove(
        self, names: str | Path | Iterable[str | Path], *, by_id: bool = False
    ) -> RemoveReport:
        """What was done: documents leave by their id, or by their file, or a folder above it.

        With `by_id` they leave by their ids only. A blank name is no folder, and unknown.

        Raises:
            IndexStoreError: there is no index, or another process is writing.

        """
        several = [names] if isinstance(names, str | Path) else list(names)
        with self._write_lock, self._existing().writer() as writer:
            gone: set[str] = set()
            unknown = []
            for name in map(str, several):
                found = {spelled(name)} & writer.held.keys()
                if not found and not by_id and name.strip():
                    path = spelled(real_path(os.path.abspath(os.path.expanduser(name))))
                    found = {
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
        also: Sequence[Index] = (),
    ) -> list[Hit]:
        """The `k` documents that answer best, best first, each with its `passages` best passages.

        - `mode`: `"hybrid"` ranks passages by meaning and words, their own and those of what stands
          around them; `"multi"` by meaning alone; `"single"` ranks documents by their one vector.
          A document ranks where its best passage does.
        - `filter`: metadata that documents must have, each key a value, a range, or any of a list:
          `{"extension": [".pdf", ".docx"], "year": {">=": 2020, "<": 2026}}`. Ranges compare
          numbers with numbers and text, such as ISO dates, with text. Still finds `k` where there
          are as many.
        - `vector`: what the index's model makes of the query, (D,) of unit length, if it is known:
          no model is loaded then.
        - `also`: further indexes to search, of the same model; each hit tells its `index`.

        A search for a few documents, or passages, gives the first of those that a search for more
        would give. Passages do not overlap; of those with the same words one is shown, which counts
        the others. Scores are from 0 to 1 and mean the same in every index of the same model;
        scoring.py has the formulas.

        Raises:
            IndexStoreError: there is no index, or it cannot be read.
            IndexMismatchError: the model at hand, or that of another index, is not the index's.
            InputError: a blank query, a number below one, an unknown mode or filter key, a vector
                that is not the model's.
            TypeError: the query is not a string, or a number not whole.

        """
        [one] = self._query(query, k, mode, passages=passages, where=filter, vector=vector)
        return self._answered(one, Reader.hits, also)

    def passages(
        self,
        query: str,
        k: int = 5,
        *,
        mode: SearchMode = "hybrid",
        filter: Filter | None = None,  # noqa: A002 - the word of the field
        vector: Floats | None = None,
        also: Sequence[Index] = (),
    ) -> list[Hit]:
        """The `k` passages of all documents that answer best, best first, each in its own hit.

        A document of which several passages answer has several hits, with one passage each. The
        options are those of `search`, and so are the scores.

        Raises:
            IndexStoreError: as `search`.
            IndexMismatchError: as `search`.
            InputError: as `search`.
            TypeError: as `search`.

        """
        [one] = self._query(query, k, mode, passages=1, where=filter, vector=vector)
        return self._answered(one, Reader.passage_hits, also)

    def passage(self, document_id: str, number: int) -> Passage:
        """A document's passage by its number, from 0; without a score.

        Raises:
            InputError: there is no such document, or it has no such passage.

        """
        passage = self._committed().passage(spelled(document_id), number)
        if passage is None:
            _ = self.document(document_id)  # refuses an unknown document
            raise InputError(f"document {document_id!r} has no passage {number}")
        return passage

    def has_changed(self, document_id: str) -> bool:
        """Whether the file of a document holds another text by now; false where it is gone.

        The file is read only if it was written after the index was.

        Raises:
            InputError: there is no such document.

        """
        document = self.document(document_id)
        written = self.path / LEDGER_NAME
        try:
            found = os.stat(document.source)
            if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
                return False
            # A file that was copied or moved here may be older than the index, but not its change.
            if max(found.st_mtime, found.st_ctime) <= os.stat(written).st_mtime:
                return False
        except (OSError, ValueError):
            return False
        texts = {
            each.id: each.text
            for each in read_documents([document.source])
            if isinstance(each, Document)
        }
        return texts.get(document.id, document.text) != document.text

    def around(self, passage: Passage, sentences: int = 2) -> Passage:
        """The passage with as many sentences before and after it.

        Its score, its answer and the headings over that stay.

        Warns where the file has changed since it was indexed: the text is of then.

        Raises:
            InputError: the index holds no such document, or its text is another by now.

        """
        document = self.document(passage.document_id)
        start, end = passage.char_start, passage.char_end
        if document.text[start:end] != passage.text:
            raise InputError(
                f"document {passage.document_id!r} has changed since this passage was found; "
                "search again"
            )
        if self.has_changed(passage.document_id):
            warnings.warn(
                f"{document.source} has changed since it was indexed; this text is of then",
                stacklevel=2,
            )
        start, end = widened(document.text, start, end, sentences, document.landmarks)
        return replace(
            passage,
            char_start=start,
            char_end=end,
            text=document.text[start:end],
            location=replace(
                location_of(document.landmarks, document.text, start, end),
                headings=passage.location.headings,
            ),
        )

    def documents(self) -> Iterator[Document]:
        """All documents in the order of their ids, without their texts.

        Raises:
            IndexStoreError: there is no index, or it cannot be read.

        """
        return self._committed().documents()

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

    def metadata_values(self, key: str) -> list[tuple[MetadataValue, int]]:
        """The values that documents have under a key of metadata, with their numbers, most first.

        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, Index.open(folder) as index:
        ...     _ = index.add(Document(id="moth", text="Moths eat wool.", metadata={"year": 1898}))
        ...     index.metadata_values("year")
        [(1898, 1)]

        Raises:
            InputError: no document has such a key.

        """
        return self._committed().metadata_values(key)

    def __len__(self) -> int:
        """The number of documents in the index; 0 before the first `add`."""
        return 0 if self._found() is None else self._committed().counts()[0]

    @property
    def num_chunks(self) -> int:
        """The number of chunks of all documents; 0 before the first `add`."""
        return 0 if self._found() is None else self._committed().counts()[1]

    def _found(self) -> Store | None:
        """The store, if there is one by now."""
        if self._store is None and IndexSettings.read(self.path) is not None:
            self._store = Store.open(self.path)
        return self._store

    def _existing(self) -> Store:
        """The store; looked for again where there was none when this was opened."""
        if self._store is None:
            self._store = Store.open(self.path)
        return self._store

    def _query(
        self,
        query: str,
        k: int,
        mode: SearchMode,
        *,
        passages: int,
        where: Filter | None,
        vector: Floats | None,
    ) -> list[Query]:
        """A single query, checked; the model makes its vector where it is not known."""
        if not isinstance(query, str):
            raise TypeError(f"query is {type(query).__name__}, not str; several go to rank()")
        known = None if vector is None else _numbers(vector)[None]
        return self._queries([query], k, mode, passages=passages, where=where, vectors=known)

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

    def _answered(
        self, query: Query, hits: Callable[[Reader, Query], list[Hit]], also: Sequence[Index]
    ) -> list[Hit]:
        """The `k` best hits of this index and of others, best first.

        Raises:
            IndexMismatchError: another model made one of the others.
            InputError: none has the metadata that the filter names.

        """
        if not also:
            return hits(self._committed(), query)
        found: list[Hit] = []
        unfiltered: list[InputError] = []
        indexes = {real_path(str(each.path)): each for each in (*also, self)}
        for index in sorted(indexes.values(), key=lambda each: each is not self):
            settings = index._existing().settings
            settings.require_model(self.settings.model, self.settings.fingerprint, index.path)
            try:
                own = hits(index._committed(), query)
            except InputError as error:  # the others may have what the filter names
                unfiltered.append(error)
                continue
            found += [replace(hit, index=str(index.path)) for hit in own]
        if len(unfiltered) == len(indexes):
            raise unfiltered[0]
        # A file that several of them hold is shown once.
        distinct: dict[tuple[object, ...], Hit] = {}
        for hit in sorted(found, key=lambda hit: -hit.score):
            places = [(each.char_start, each.char_end) for each in hit.passages[:1]]
            copy = (hit.document_id, hit.source, *(places if hits is Reader.passage_hits else ()))
            distinct.setdefault(copy if hit.source else (hit.index, *copy), hit)
        return list(distinct.values())[: query.k]

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
        meter: Meter,
        cache: FileCache,
        prune: bool = False,
    ) -> IndexReport:
        """Bring the index up to date with what was read, and lay it out for searching."""
        store = self._store or Store.of(
            self.path, new_settings(self.model, self.options, self._window)
        )
        bar = progress_bar("indexing", total_bytes(inputs), "bytes", show=progress)
        with self._write_lock, store.writer() as writer:
            self._store = store
            with bar as meter.bar:
                report = update(
                    writer,
                    items,
                    encoder=self._encoder(),
                    inputs=inputs,
                    prune=prune,
                    group_chars=group_chars,
                    meter=meter,
                    cache=cache,
                )
            self._committed().lay_out(progress=progress)
        return report

    def _encoder(self) -> IndexEncoder:
        """The encoder of documents for this index."""
        return IndexEncoder(self._load_model, self.options, self.settings)


def _numbers(vector: Floats) -> Floats:
    try:
        return np.asarray(vector, np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"vector is {type(vector).__name__}, not an array of numbers") from None


def index_path(path: str | Path) -> Path:
    """The folder of an index, absolute, or its address.

    Raises:
        ConfigError: the path is empty, an address of a page or file, or holds characters that
            LanceDB's cannot.

    """
    name = os.fspath(path)
    if not name or any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise ConfigError(
            f"an index's path is {name!r}; name a folder, without control characters and in UTF-8"
        )
    if name.startswith(("file:", "http:", "https:")) and is_address(name):
        raise ConfigError(
            f"an index's path is {name!r}, an address of no object storage; name a folder, or "
            "s3://bucket/folder"
        )
    if is_address(name):
        if not urlsplit(name).netloc:
            raise ConfigError(f"an index's path is {name!r}, no bucket; give s3://bucket/folder")
        return Address(name.rstrip("/"))
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
        try:
            model = Dewey.load(
                made.model if given is None else given,
                single_vector=made.single_vector,
                max_tokens=made.max_tokens,
                truncate_dim=made.truncate_dim,
            )
        except ConfigError:  # of another model, which is then what is wrong
            if given is not None:
                other = Dewey.load(given)
                made.require_model(other.name, other.fingerprint, path)
            raise
    if made is not None:
        made.require_model(model.name, model.fingerprint, path)
    return model
