"""What of the documents given is new or changed, in groups that a killed run would fill again."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import NamedTuple

from dewey_embed.index.tables import Details, Place, content_hash
from dewey_embed.types import Document, Unreadable

GROUP_CHARS = 400_000
"""A group holds at most so many characters, or one document: what a killed run may lose."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Unchanged(Document):
    """A document without its text, of a file that did not change, with the hash that it had."""

    hash: str


class Held(NamedTuple):
    """What the index holds under an id: the hash of the text, and the details."""

    hash: str
    details: Details


class Changed(NamedTuple):
    """A document to be encoded, the hash of its text, and where it was found."""

    document: Document
    hash: str
    places: tuple[Place, ...]


Group = list[Changed]


class Refreshed(NamedTuple):
    """A document whose text the index holds, with details that it does not hold.

    `renamed` is the document as it was read, if it has another title.
    """

    document_id: str
    hash: str
    details: Details
    renamed: Document | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that is not indexed, and why: its id is taken, or it has no finite vectors."""

    document: Document
    reason: str


@dataclass(slots=True)
class Changes:
    """What was seen, and what must be done; `added` and `changed` are ids.

    `held` is what the index holds by id, while it is written to. `reads_titles` says that a text is
    read under its title, and changes with it. `refreshed` lists documents of
    which only details changed, which need no pass; `refused` those whose id is another's,
    or that have no finite vectors.
    """

    held: Mapping[str, Held]
    reads_titles: bool = False
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    num_unchanged: int = 0
    refreshed: list[Refreshed] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)

    def groups(
        self, documents: Iterable[Document], max_chars: int = GROUP_CHARS
    ) -> Iterator[Group]:
        """New and changed documents with their hashes, in order, filled up to `max_chars`.

        The documents are such as `records.storable` makes.

        Greedy and in the order given: whatever has been committed of these groups, in order, the
        rest are the same groups when it is run again, and so get the same vectors, bit for bit.
        """
        group: Group = []
        size = 0
        for changed in self._missing(documents):
            if group and size + len(changed.document.text) > max_chars:
                yield group
                group, size = [], 0
            group.append(changed)
            size += len(changed.document.text)
        if group:
            yield group

    def refuse(self, document: Document, reason: str) -> None:
        """Note that a new or changed document stays out, or as it was: it has no vectors."""
        for noted in (self.added, self.changed):
            if document.id in noted:
                noted.remove(document.id)
        self.refused.append(Refused(document, Unreadable.of(document, reason).reason))

    def _missing(self, documents: Iterable[Document]) -> Iterator[Changed]:
        """Documents whose text the index does not hold, each id once."""
        for document in documents:
            if isinstance(document, Unchanged):
                digest = document.hash
            else:
                digest = content_hash(document, reads_titles=self.reads_titles)
            self.sources.add(document.source)
            reason = self._refusal(document, digest)
            if reason:
                self.refused.append(Refused(document, reason))
                continue
            if document.id in self.seen:
                continue
            self.seen[document.id] = digest
            place = Place(document.root, document.source)
            held = self.held.get(document.id)
            if held is not None and held.hash == digest:
                self._keep(document, held, place)
                continue
            (self.added if held is None else self.changed).append(document.id)
            others = () if held is None else held.details.places
            places = tuple(each for each in others if each.source == document.source)
            yield Changed(document, digest, tuple(dict.fromkeys((*places, place))))

    def _keep(self, document: Document, held: Held, place: Place) -> None:
        """Note a document whose text the index holds, and what else of it changed, if anything."""
        others = [
            each
            for each in held.details.places
            if each.source == document.source or not is_gone(each.source)
        ]
        places = tuple(dict.fromkeys((*others, place)))
        details = Details.of(document, places)
        if place != places[0] and held.details.source == document.source:
            # Found again under another input: it stays as it was found first.
            details = replace(held.details, places=places)
        renamed = details.title != held.details.title
        if renamed or details.metadata != held.details.metadata:
            self.changed.append(document.id)
        else:
            self.num_unchanged += 1
        if details != held.details:
            other = document if renamed else None
            self.refreshed.append(Refreshed(document.id, held.hash, details, other))

    def _refusal(self, document: Document, digest: str) -> str | None:
        """Why a document is refused, if so: its id is that of another document."""
        name = document.id
        if name in self.seen:
            if self.seen[name] == digest:
                return None
            return f"id {name!r} came before with another content; the first was kept"
        held = self.held.get(name)
        if held is None or held.hash == digest or not document.source:
            return None
        for place in held.details.places:
            elsewhere = place.source != document.source
            # What was read in this run and did not bring this id no longer holds it.
            if elsewhere and place.source not in self.sources and not is_gone(place.source):
                return (
                    f"id {name!r} is that of another document, from "
                    f"{place.source or 'a program'}, which was kept; name the field that holds an "
                    "id of its own (--id-field), remove the other one (dewey remove), or use "
                    "another index"
                )
        return None


def left_places(
    places: Iterable[Place],
    *,
    roots: Collection[str],
    read: Collection[str],
    known_roots: Collection[str],
) -> tuple[Place, ...]:
    """The places where a document may still be that was not seen in a run over `roots`.

    `read` are the files that were read in this run, `known_roots` all inputs of this index. A
    document is no longer under an input that was looked through without it; it may still be under
    another one that holds its file, and is nowhere when its file is gone.
    """
    left: list[Place] = []
    for place in places:
        now = real_path(place.source)
        below = any(is_within(each, root) for root in roots for each in {place.source, now})
        if place.root not in roots and not (below and is_gone(place.source)):
            left.append(place)
        elif place.root in roots and place.source not in read and not is_gone(place.source):
            left += [
                Place(root, place.source)
                for root in sorted(known_roots)
                if root not in roots and is_within(place.source, root)
            ]
    return tuple(dict.fromkeys(left))


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder's own or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_gone(source: str) -> bool:
    """Whether a file is not there any more. One that cannot be looked for is not gone.

    A file that is reached through a link by now has moved: it was no link when it was read.
    """
    return os.path.isabs(source) and all(_is_missing(name) for name in {source, _unspelled(source)})


def _is_missing(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return real_path(path) != path


def real_path(path: str) -> str:
    """A path with all links followed, and forward slashes; as it is where it cannot be one."""
    try:
        return PurePath(os.path.realpath(path)).as_posix() if os.path.isabs(path) else path
    except (OSError, ValueError):
        return path


def _unspelled(name: str) -> str:
    r"""The name with each `\udc80` that stands for a byte turned into that byte again."""
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), name)
