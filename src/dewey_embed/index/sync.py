"""One run over documents: encode those that are new or changed, remove those that are gone."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dewey_embed.config import EncodeOptions
from dewey_embed.errors import each_that_fits
from dewey_embed.index.changes import Changes, Group, Refreshed, is_gone, is_within, left_places
from dewey_embed.index.earlier import Earlier
from dewey_embed.index.file_cache import FileCache
from dewey_embed.index.kept import Kept, kept_of
from dewey_embed.index.passages import passage_numbers
from dewey_embed.index.settings import PASSAGE_SPLITTER, WINDOW, IndexSettings
from dewey_embed.index.tables import Place, Record, storable, title_above, title_text
from dewey_embed.index.writer import Writer
from dewey_embed.progress import Advance, Progress
from dewey_embed.text.reader import EXTENSIONS, STDIN
from dewey_embed.text.sentences import SECTIONS
from dewey_embed.types import Document, DocumentVectors, Floats, Rows, Unreadable

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey


class Encoded(NamedTuple):
    """A document's vectors, the passage (C,) of each of its chunks, and its title's vector (D,).

    The vectors of `num_kept` of its tokens were not made again.
    """

    vectors: DocumentVectors
    passages: Rows
    title: Floats | None
    num_kept: int


LONGEST_SENTENCE = 256
"""Tokens of a sentence, above which it is cut between words: a table, say, or a list of names."""

Begin = Callable[[int], Advance]
"""Takes the number of tokens of a pass, gives what is told how many are done."""


class IndexEncoder:
    """Encodes documents and their titles as an index wants them.

    With `reads_titles`, a title is also read above its text, and above each of its windows. The
    model is loaded when a document needs it: a run that finds no change takes none.
    """

    def __init__(
        self, load_model: Callable[[], Dewey], options: EncodeOptions, settings: IndexSettings
    ) -> None:
        self._load_model, self._options, self._window = load_model, options, settings.window
        self.reads_titles = settings.reads_titles

    def encode(
        self,
        documents: Sequence[Document],
        earlier_of: Callable[[int], Mapping[str, Earlier]],
        begin: Begin,
    ) -> list[Encoded | str]:
        """The documents' vectors, their passages, and their titles' vectors, or why there are none.

        Where passages are whole sentences, each sentence has a vector; else each passage has one.
        Windows that a document had in its earlier version are not read; `earlier_of` gives these by
        document id, for the number of states that the model keeps of a window.
        """
        return each_that_fits(lambda some: self._encode(some, earlier_of, begin), documents)

    def _encode(
        self,
        documents: Sequence[Document],
        earlier_of: Callable[[int], Mapping[str, Earlier]],
        begin: Begin,
    ) -> list[Encoded | str]:
        model = self._load_model()
        sizes, overlaps = self._options.chunk_tokens, self._options.chunk_overlap
        by_sentence = self._options.splitter == PASSAGE_SPLITTER and overlaps == (0,)
        prepared = model.prepare(
            documents,
            chunk_tokens=LONGEST_SENTENCE if by_sentence else sizes,
            chunk_overlap=0 if by_sentence else overlaps,
            splitter="sentence" if by_sentence else self._options.splitter,
            overflow=self._options.overflow,
            window=self._window,
            window_cuts="content",
            titles=list(map(title_above, documents)) if self.reads_titles else None,
        )
        from dewey_embed.model.inference import num_states, window_keys

        earlier = earlier_of(num_states(model.config))
        requests, kept = list(prepared.requests), dict[int, Kept]()
        for row, document in enumerate(documents):
            if document.id in earlier:
                keys = window_keys(model.config, requests[row], prepared.skip)
                kept[row] = kept_of(requests[row], keys, earlier[document.id])
                requests[row] = kept[row].request
        prepared = replace(prepared, requests=requests)
        vectors = model.encode_sound(prepared, progress=begin(prepared.num_tokens))
        encoded: list[Encoded | str] = []
        for row, (document, own, title) in enumerate(
            zip(documents, vectors, self.encode_titles(documents), strict=True)
        ):
            if isinstance(own, str) or isinstance(title, str):
                encoded.append(own if isinstance(own, str) else f"of its title, {title}")
                continue
            complete = kept[row].completed(own) if row in kept else own
            passages = (
                passages_of(document, complete, sizes[0])
                if by_sentence
                else np.arange(len(complete.spans))
            )
            num_kept = kept[row].num_tokens if row in kept else 0
            encoded.append(Encoded(complete, passages, title, num_kept))
        return encoded

    def encode_titles(self, documents: Sequence[Document]) -> list[Floats | str | None]:
        """Vectors (D,) of titles; `None` for a document without one, and why where there are none.

        Raises:
            CheckpointError: the model gives no finite vectors.

        """
        titles = [title_text(document) for document in documents]
        texts = [title for title in titles if title]
        if not texts:
            return [None] * len(titles)
        model = self._load_model()
        vectors = iter(model.encode_sound(model.prepare(texts)))
        found = (next(vectors) if title else None for title in titles)
        return [each.vector if isinstance(each, DocumentVectors) else each for each in found]


def passages_of(document: Document, vectors: DocumentVectors, size: int) -> Rows:
    """The passage (C,) of each sentence of a document."""
    texts = [document.text[span.char_start : span.char_end] for span in vectors.spans]
    num_tokens = np.array([span.num_tokens for span in vectors.spans], np.int64)
    sections = [each.char for each in document.landmarks if each.kind in SECTIONS]
    ends = np.array([span.char_end for span in vectors.spans], np.int64)
    # A landmark may stand in the blanks before the first sentence of its section.
    firsts = np.searchsorted(ends, sections, side="right")
    begins_section = np.isin(np.arange(len(texts)), firsts)
    return passage_numbers(texts, num_tokens, size, begins_section)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What a run did: numbers of documents, and what gave none, each with its reason.

    `num_windows` and `num_truncated` count, among those added and changed, the documents longer
    than the model takes: read in overlapping windows, or without their end. `unreadable` could
    not be read; `skipped` was not meant to be: files of unknown kinds in a folder, empty ones.
    `num_missing` are in the index though their file is gone. `unread` counts by file and kind
    what was left out of files that were read, and what of them is a guess. Of changed documents'
    `num_changed_tokens`, `num_kept_tokens` were not encoded again. `added`, `changed` and `removed`
    are the ids.

    >>> from tempfile import TemporaryDirectory
    >>> from dewey_embed import Index
    >>> with TemporaryDirectory() as folder, Index.open(folder) as index:
    ...     report = index.add(Document(id="moth", text="Moths eat wool and silk."))
    >>> report.num_added, report.num_windows, report.unreadable
    (1, 0, [])
    """

    num_added: int
    num_changed: int
    num_removed: int
    num_unchanged: int
    num_windows: int
    num_truncated: int
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: list[Unreadable] = field(default_factory=list)
    unread: dict[str, dict[str, int]] = field(default_factory=dict)
    num_missing: int = 0
    num_changed_tokens: int = 0
    num_kept_tokens: int = 0
    added: list[str] = field(default_factory=list, repr=False)
    changed: list[str] = field(default_factory=list, repr=False)
    removed: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveReport:
    """What a removal did: the number of documents, and the names that are in no way known."""

    num_removed: int
    unknown: list[str]


class Meter:
    """Moves a bar of bytes: files count whole when read, and while their text is encoded."""

    def __init__(self) -> None:
        self.bar = Progress("", None, "")
        self._waiting = 0

    def reading(self, source: str) -> None:
        """Name a file that is about to be read."""
        self.bar.work_on(PurePosixPath(source).name)

    def read(self, document: Document) -> None:
        """Count a document that was read: a file's bytes, or the text of one of its records."""
        try:
            own_file = document.id == document.source
            self._waiting += os.path.getsize(document.source) if own_file else len(document.text)
        except OSError:
            self._waiting += len(document.text)

    def encoding(self, group: Group, num_tokens: int) -> Advance:
        """A function told how many tokens of a group are done, for the bar to move meanwhile."""
        share = self._waiting / max(1, num_tokens)
        first = group[0].document
        name = PurePosixPath(first.source).name if first.source else first.id
        more = f" and {len(group) - 1:,} more" if len(group) > 1 else ""
        self.bar.work_on(name + more)

        def advance(num_tokens: int) -> None:
            step = min(self._waiting, round(num_tokens * share))
            self._waiting -= step
            self.bar(step)

        return advance

    def committed(self) -> None:
        """Move the bar to where reading is."""
        self.bar(self._waiting)
        self._waiting = 0


def update(
    writer: Writer,
    items: Iterable[Document | Unreadable],
    *,
    encoder: IndexEncoder,
    inputs: Sequence[str | Path],
    prune: bool,
    group_chars: int,
    meter: Meter,
    cache: FileCache,
) -> IndexReport:
    """What was done with the documents read from `inputs`, once all of it is committed."""
    changes = Changes(writer.held, reads_titles=encoder.reads_titles)
    cache.begin(writer.held)
    faults: list[Unreadable] = []
    unread: dict[str, dict[str, int]] = {}
    counts: Counter[str | None] = Counter()
    for group in changes.groups(_documents(items, faults, unread, meter, cache), group_chars):
        counts += _encode_group(writer, encoder, changes, group, meter)
        meter.committed()
    meter.committed()
    unreadable = [fault for fault in faults if not fault.skipped]
    gone = _take_leave(writer, changes, inputs, unreadable, prune=prune)
    _refresh(writer, changes, encoder)
    writer.finish()
    cache.finish(changes.seen, {refused.document.source for refused in changes.refused})
    unreadable += [
        Unreadable(source=refused.document.source or refused.document.id, reason=refused.reason)
        for refused in changes.refused
    ]
    return IndexReport(
        num_added=len(changes.added),
        num_changed=len(changes.changed),
        num_removed=len(gone),
        num_unchanged=changes.num_unchanged,
        num_windows=counts["windows"],
        num_truncated=counts["truncate"],
        num_changed_tokens=counts["changed tokens"],
        num_kept_tokens=counts["kept tokens"],
        unreadable=unreadable,
        skipped=[fault for fault in faults if fault.skipped],
        unread=unread,
        num_missing=_count_missing(writer, changes),
        added=changes.added,
        changed=changes.changed,
        removed=gone,
    )


def _encode_group(
    writer: Writer, encoder: IndexEncoder, changes: Changes, group: Group, meter: Meter
) -> Counter[str | None]:
    """Encode and write a group; return numbers of documents by overflow, and of tokens.

    Those without finite vectors are refused, and stay as the index holds them.
    """
    documents = [each.document for each in group]
    is_held = [each.id in writer.held for each in documents]
    earlier_of = partial(writer.earlier, {each.id for each in documents})
    counts: Counter[str | None] = Counter()
    records = []
    found = encoder.encode(documents, earlier_of, partial(meter.encoding, group))
    for each, held, encoded in zip(group, is_held, found, strict=True):
        if isinstance(encoded, str):
            changes.refuse(each.document, encoded)
            continue
        vectors, passages, title, num_kept = encoded
        records.append(
            Record(
                document=each.document,
                hash=each.hash,
                vectors=vectors,
                passages=passages,
                title_vector=title,
                places=each.places,
            )
        )
        counts[vectors.overflow] += 1
        if held:
            counts["changed tokens"] += vectors.used_tokens
            counts["kept tokens"] += num_kept
    writer.write(records)
    return counts


def _refresh(writer: Writer, changes: Changes, encoder: IndexEncoder) -> None:
    """Write details that changed, with the vectors of titles that did."""
    titles = iter(
        encoder.encode_titles([each.renamed for each in changes.refreshed if each.renamed])
    )
    refreshed: list[Refreshed] = []
    vectors: list[Floats | None] = []
    for each in changes.refreshed:
        vector = next(titles) if each.renamed else None
        if each.renamed and isinstance(vector, str):
            changes.refuse(each.renamed, f"of its title, {vector}")
        elif not isinstance(vector, str):
            refreshed.append(each)
            vectors.append(vector)
    writer.refresh(refreshed, vectors)


def total_bytes(inputs: Sequence[str | Path]) -> int | None:
    """Bytes of the files that would be read, about; `None` where that cannot be known."""
    if not inputs or STDIN in map(str, inputs):
        return None
    total = 0
    for each in inputs:
        if os.path.isfile(each):
            total += os.path.getsize(each)
        for folder, folders, files in os.walk(each):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                    path = os.path.join(folder, name)
                    total += os.path.getsize(path) if os.path.isfile(path) else 0
    return total


def _documents(
    items: Iterable[Document | Unreadable],
    faults: list[Unreadable],
    unread: dict[str, dict[str, int]],
    meter: Meter,
    cache: FileCache,
) -> Iterator[Document]:
    """The documents among what was read; the rest goes into `faults` and `unread`."""
    for item in items:
        if isinstance(item, Unreadable):
            cache.note(item)
            faults.append(item)
            continue
        document = storable(item)
        cache.note(document)
        meter.read(document)
        if document.unread:
            counts = unread.setdefault(document.source or document.id, {})
            for kind, number in document.unread.items():
                counts[kind] = counts.get(kind, 0) + number
        yield document


def _take_leave(
    writer: Writer,
    changes: Changes,
    inputs: Sequence[str | Path],
    unreadable: Sequence[Unreadable],
    *,
    prune: bool,
) -> list[str]:
    """Ids of documents that have left `inputs`, once they are removed.

    Not those in a file or folder that merely could not be read, nor those from standard input,
    which is no place to come back to. What is still found elsewhere stays, without the places
    that it left.
    """
    roots = {
        Path(os.path.realpath(each)).as_posix().encode("utf-8", "backslashreplace").decode()
        for each in inputs
        if str(each) != STDIN
    }
    shield = _Shield(unreadable)
    known = {place.root for held in writer.held.values() for place in held.details.places}
    read = changes.sources | {fault.source for fault in unreadable if fault.line is not None}
    gone: list[str] = []
    for document_id, held in writer.held.items():
        places = held.details.places
        if document_id not in changes.seen and not shield.covers(document_id, places):
            places = left_places(places, roots=roots, read=read, known_roots=known)
        if prune:
            places = tuple(p for p in places if p.root == STDIN or not is_gone(p.source))
        if not places:
            gone.append(document_id)
        elif places != held.details.places and document_id not in changes.seen:
            details = replace(held.details, places=places)
            changes.refreshed.append(Refreshed(document_id, held.hash, details))
    writer.remove(gone)
    return gone


def _count_missing(writer: Writer, changes: Changes) -> int:
    """How many documents are in the index whose every file is gone."""
    return sum(
        all(place.root != STDIN and is_gone(place.source) for place in held.details.places)
        for document_id, held in writer.held.items()
        if document_id not in changes.seen
    )


class _Shield:
    """What could not be read, and so keeps the documents that may be in it."""

    def __init__(self, unreadable: Sequence[Unreadable]) -> None:
        # A bad line shields its own record only: the others of its file were read.
        self._paths = [fault.source for fault in unreadable if fault.line is None]
        self._ids = {fault.document_id for fault in unreadable}
        self._ids |= {f"{fault.source}#{fault.line}" for fault in unreadable}

    def covers(self, document_id: str, places: Iterable[Place]) -> bool:
        """Whether a document may be in something that could not be read."""
        return document_id in self._ids or any(
            is_within(place.source, path) for place in places for path in self._paths
        )


def checked(documents: Iterable[Document | Unreadable]) -> Iterator[Document | Unreadable]:
    """The documents, and what could not be read; anything else is refused by its position."""
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise TypeError(
            f"documents is {type(documents).__name__}, not Documents; make one with "
            "Document(id=..., text=...), or give files and folders to add_files"
        )
    return map(_checked, itertools.count(), documents)


def _checked(position: int, document: Document | Unreadable) -> Document | Unreadable:
    if not isinstance(document, Document | Unreadable):
        raise TypeError(
            f"item {position} is {type(document).__name__}, not a Document; make one with "
            "Document(id=..., text=...), or give files and folders to add_files"
        )
    return document


def new_settings(model: Dewey, options: EncodeOptions, window: int | None) -> IndexSettings:
    """The settings of an index that a model makes; its window where none is given."""
    return IndexSettings(
        model=str(Path(model.name).resolve()) if Path(model.name).is_dir() else model.name,
        fingerprint=model.fingerprint,
        single_vector=model.config.single_vector,
        max_tokens=model.config.max_tokens,
        truncate_dim=model.truncate_dim,
        embedding_dim=model.embedding_dim,
        options=options,
        window=min(WINDOW, model.max_tokens) if window is None else window,
        reads_titles=model.tokenizer.marks_titles,
    )
