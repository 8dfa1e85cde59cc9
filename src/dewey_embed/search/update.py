"""One run over documents: encode what is new or changed, commit it, remove what is gone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dewey_embed.config import EncodeOptions
from dewey_embed.index.changes import Changes, Group
from dewey_embed.index.records import Record
from dewey_embed.index.settings import IndexSettings
from dewey_embed.index.writer import Writer
from dewey_embed.progress import Advance
from dewey_embed.text.reader import EXTENSIONS, STDIN, Unreadable
from dewey_embed.types import Document, DocumentVectors

if TYPE_CHECKING:
    from dewey_embed.encoder import Dewey

Encode = Callable[[Sequence[str], Advance], list[DocumentVectors]]

_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What a run did: numbers of documents, and what gave none, each with its reason.

    `num_windows` and `num_truncated` count, among those added and changed, the documents longer
    than the model takes: read in overlapping windows, or without their end. `unreadable` could
    not be read; `skipped` was not meant to be: files of unknown kinds in a folder, empty ones.
    `unread` counts by file and kind what was left out of files that were read, and what of them is
    a guess.
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


class Meter:
    """Moves a bar of bytes: files count whole when read, and while their text is encoded."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._waiting = 0

    def read(self, document: Document) -> None:
        """Count a document that was read: a file's bytes, or the text of one of its records."""
        try:
            own_file = document.id == document.source
            self._waiting += os.path.getsize(document.source) if own_file else len(document.text)
        except OSError:
            self._waiting += len(document.text)

    def encoding(self, group: Group) -> Advance:
        """A function told how many tokens of a group are done, for the bar to move meanwhile."""
        tokens = 1 + sum(len(document.text) for document, _ in group) // _CHARS_PER_TOKEN
        share = self._waiting / tokens

        def advance(num_tokens: int) -> None:
            step = min(self._waiting, round(num_tokens * share))
            self._waiting -= step
            self._advance(step)

        return advance

    def committed(self) -> None:
        """Move the bar to where reading is."""
        self._advance(self._waiting)
        self._waiting = 0


def update(
    writer: Writer,
    items: Iterable[Document | Unreadable],
    *,
    encode: Encode,
    inputs: Sequence[str | Path],
    group_chars: int,
    meter: Meter,
) -> IndexReport:
    """What was done with the documents read from `inputs`, once all of it is committed."""
    changes = Changes(writer.hashes)
    faults: list[Unreadable] = []
    unread: dict[str, dict[str, int]] = {}
    overflows: Counter[str | None] = Counter()
    for group in changes.groups(_documents(items, faults, unread, meter), group_chars):
        vectors = encode([document.text for document, _ in group], meter.encoding(group))
        writer.write(
            [
                Record(document=document, hash=digest, vectors=each)
                for (document, digest), each in zip(group, vectors, strict=True)
            ]
        )
        overflows.update(each.overflow for each in vectors)
        meter.committed()
    meter.committed()
    unreadable = [fault for fault in faults if not fault.skipped]
    gone = list(_gone(writer, changes, inputs, [fault.source for fault in unreadable]))
    writer.remove(gone)
    writer.finish()
    unreadable += [
        Unreadable(
            source=document.source or document.id,
            reason=f"id {document.id!r} came before with another content; the first was kept",
        )
        for document in changes.repeated
    ]
    return IndexReport(
        num_added=changes.num_added,
        num_changed=changes.num_changed,
        num_removed=len(gone),
        num_unchanged=changes.num_unchanged,
        num_windows=overflows["windows"],
        num_truncated=overflows["truncate"],
        unreadable=unreadable,
        skipped=[fault for fault in faults if fault.skipped],
        unread=unread,
    )


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
) -> Iterator[Document]:
    """The documents among what was read; the rest goes into `faults` and `unread`."""
    for item in items:
        if isinstance(item, Unreadable):
            faults.append(item)
        else:
            meter.read(item)
            if item.unread:
                counts = unread.setdefault(item.source or item.id, {})
                for kind, number in item.unread.items():
                    counts[kind] = counts.get(kind, 0) + number
            yield item


def _gone(
    writer: Writer, changes: Changes, inputs: Sequence[str | Path], unreadable: Sequence[str]
) -> Iterator[str]:
    """Ids of documents that were under one of `inputs` before and have left it.

    That is: found under the same input and not seen now; or, found under another, in a file below
    this one that no longer exists. Not those in a file or folder that merely could not be read,
    nor those from standard input, which is no place to come back to.
    """
    roots = [
        Path(os.path.realpath(each)).as_posix().encode("utf-8", "backslashreplace").decode()
        for each in inputs
        if str(each) != STDIN
    ]
    for document_id, root, source in writer.origins():
        if document_id in changes or any(_within(source, fault) for fault in unreadable):
            continue
        if root in roots or (
            any(_within(source, each) for each in roots) and not os.path.lexists(source)
        ):
            yield document_id


def _within(path: str, folder: str) -> bool:
    """Whether a path is a folder's own or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def checked(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents; anything else among them is refused by its position."""
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise TypeError(
                f"item {position} is {type(document).__name__}, not a Document; make one with "
                "Document(id=..., text=...), or give files and folders to add_files"
            )
        yield document


def new_settings(model: Dewey, options: EncodeOptions) -> IndexSettings:
    """The settings of an index that a model makes."""
    return IndexSettings(
        model=str(Path(model.name).resolve()) if Path(model.name).is_dir() else model.name,
        fingerprint=model.fingerprint,
        single_vector=model.config.single_vector,
        max_tokens=model.config.max_tokens,
        truncate_dim=model.truncate_dim,
        embedding_dim=model.embedding_dim,
        options=options,
    )
