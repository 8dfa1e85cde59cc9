"""What files gave when they were last read, so that a run reads only those that changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from dewey_embed.index.changes import Held, Unchanged
from dewey_embed.index.tables import metadata_json
from dewey_embed.types import Document, Unreadable

Signature = tuple[int, ...]


def signature(path: str | Path) -> Signature | None:
    """Numbers that change with a file; `None` where it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_mode, status.st_size, *times)


@dataclass(slots=True)
class _Entry:
    """A file as it was found and was then, and its documents, without their texts."""

    path: Path
    found_as: Hashable
    signature: Signature | None
    items: list[Document | Unreadable] = field(default_factory=list)


class FileCache:
    """Documents of files by source, without their texts; handed to `Index.add_files` again.

    A file is read again when its size, its identity on the disk or one of its times is another,
    when it is found in another way, and when the index does not hold its documents as they were
    read.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._reading: dict[str, _Entry] = {}

    def begin(self, held: Mapping[str, Held]) -> None:
        """Begin a run over an index that holds these documents."""
        self._reading = {}
        self._entries = {
            source: entry
            for source, entry in self._entries.items()
            if all(_is_held(item, held) for item in entry.items if isinstance(item, Unchanged))
        }

    def recall(
        self, source: str, path: Path, found_as: Hashable
    ) -> Sequence[Document | Unreadable] | None:
        """What a file gave, if it did not change since; else `None`, and it is read now."""
        now = signature(path)
        entry = self._entries.get(source)
        if entry and now and (entry.signature, entry.found_as) == (now, found_as):
            self._reading[source] = entry
            return tuple(entry.items)
        self._entries.pop(source, None)
        self._reading[source] = _Entry(path, found_as, now)
        return None

    def note(self, item: Document | Unreadable) -> None:
        """Note what a file gave that is being read."""
        entry = self._reading.get(item.source)
        if entry is None or self._entries.get(item.source) is entry:
            return
        if isinstance(item, Document):
            values = {each.name: getattr(item, each.name) for each in fields(Document)}
            item = Unchanged(**{**values, "text": ""}, hash="")
        entry.items.append(item)

    def finish(self, hashes: Mapping[str, str], refused: Collection[str]) -> None:
        """End a run: these are the hashes of the documents by id, and files with refused ones."""
        for source, entry in self._reading.items():
            if self._entries.get(source) is not entry:
                entry.items = [_hashed(item, hashes) for item in entry.items]
        self._entries = {
            source: entry for source, entry in self._reading.items() if source not in refused
        }
        self._reading = {}

    def forget(self, paths: Collection[str]) -> None:
        """Read the files at these paths again."""
        for source, entry in list(self._entries.items()):
            if source in paths or str(entry.path) in paths:
                del self._entries[source]

    def holds(self, path: str) -> bool:
        """Whether a file at a path, or below it, has been read."""
        below = path.rstrip("/") + "/"
        return any(
            each == path or each.startswith(below)
            for source, entry in self._entries.items()
            for each in (source, str(entry.path))
        )

    def changed_links(self) -> Iterator[str]:
        """Paths of files that were reached through links, and changed."""
        for source, entry in self._entries.items():
            path = str(entry.path)
            if path != source and entry.signature != signature(path):
                yield path


def _hashed(item: Document | Unreadable, hashes: Mapping[str, str]) -> Document | Unreadable:
    if not isinstance(item, Unchanged):
        return item
    values = {each.name: getattr(item, each.name) for each in fields(Unchanged)}
    return Unchanged(**{**values, "hash": hashes.get(item.id, "")})


def _is_held(document: Unchanged, held: Mapping[str, Held]) -> bool:
    """Whether an index holds a document as it was read."""
    kept = held.get(document.id)
    return (
        kept is not None
        and kept.hash == document.hash
        and kept.details.title == document.title
        and kept.details.metadata == metadata_json(document.metadata)
    )
