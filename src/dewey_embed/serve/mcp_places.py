"""Places that an agent can name and cite: ids of documents and passages, addresses, locations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from dewey_embed.errors import IndexStoreError, InputError
from dewey_embed.index.index import Index
from dewey_embed.printable import short_repr
from dewey_embed.serve.mcp_budget import Answer, TokenCounter, rendered
from dewey_embed.storage import Address
from dewey_embed.types import Document, Hit, Location

_RANGE = re.compile(r"(.*)#char=(\d{1,12}),(\d{1,12})", re.DOTALL)
"""The id of a passage: its document's id, and its characters as in RFC 5147."""

_TITLE_CHARS, _HEADING_CHARS = 160, 100

CharRange = tuple[int, int]


class Place(NamedTuple):
    """A document, or a range of its characters, with the index that holds it."""

    held_by: Index
    name: str
    document: Document
    range: CharRange | None


class Library:
    """Indexes by their names, as one collection of documents with unambiguous ids.

    A document has its own id, a passage that id with `#char=START,END`. Where there are several
    indexes, ids begin with the index's name and `::`.
    """

    def __init__(self, indexes: Mapping[str, Index]) -> None:
        self.indexes = indexes

    @cached_property
    def count(self) -> TokenCounter:
        """Counts tokens as the indexes' model does."""
        return TokenCounter(self.first.model.tokenizer)

    def fits(self, answer: Answer, max_tokens: int) -> bool:
        """Whether an answer stays within a budget of tokens."""
        return self.count(rendered(answer)) <= max_tokens

    @property
    def first(self) -> Index:
        """The index that searches begin with.

        Raises:
            InputError: there is none.

        """
        for index in self.indexes.values():
            return index
        raise InputError("no index is served; start the server with --index DIR")

    @property
    def filled(self) -> list[Index]:
        """The indexes that hold documents.

        Raises:
            IndexStoreError: the folder of one is not there.

        """
        return [each for each in self.indexes.values() if len(_present(each))]

    def name_of(self, hit: Hit) -> str:
        """The name of a hit's index, empty where there is one index."""
        if len(self.indexes) < 2:
            return ""
        return next(name for name, each in self.indexes.items() if str(each.path) == hit.index)

    def index_of(self, hit: Hit) -> Index:
        """The index that a hit is from."""
        name = self.name_of(hit)
        return self.indexes[name] if name else self.first

    def resolved(self, given: str) -> Place:
        """The document, or the range of one, that an id names.

        Raises:
            InputError: no document has this id, several have, or the range is not in its text.
            IndexStoreError: the folder of an index is not there.

        """
        name, separator, rest = given.partition("::")
        if len(self.indexes) > 1 and separator and name in self.indexes:
            indexes, given = {name: self.indexes[name]}, rest
        else:
            indexes = dict(self.indexes)
        for document_id, char_range in _readings(given):
            found = []
            for name, index in indexes.items():
                with suppress(InputError):
                    document = _present(index).document(document_id)
                    shown = name if len(self.indexes) > 1 else ""
                    found.append(Place(index, shown, document, char_range))
            if len(found) > 1:
                ids = " or ".join(short_repr(f"{each.name}::{given}") for each in found)
                raise InputError(f"{len(found)} indexes have this document; give {ids}")
            if found:
                return _checked(found[0])
        raise InputError(f"no document has the id {short_repr(given)}; ids come from search")


def _present(index: Index) -> Index:
    """The index, if its folder is there: what was read of it before may still be in memory.

    Raises:
        IndexStoreError: it is not.

    """
    if not isinstance(index.path, Address) and not index.path.is_dir():
        raise IndexStoreError(f"index {index.path} is not there; make it again with dewey index")
    return index


def _readings(given: str) -> list[tuple[str, CharRange | None]]:
    """What an id may name, the likeliest first."""
    readings: list[tuple[str, CharRange | None]] = []
    if parsed := _RANGE.fullmatch(given):
        readings.append((parsed[1], (int(parsed[2]), int(parsed[3]))))
    if given.endswith("#"):
        readings.append((given[:-1], None))
    return [*readings, (given, None)]


def _checked(place: Place) -> Place:
    """The place, refused if its range is not in its document."""
    if place.range and not place.range[0] <= place.range[1] <= len(place.document.text):
        raise InputError(
            f"characters {place.range[0]:,} to {place.range[1]:,} are not in this document of "
            f"{len(place.document.text):,} characters; search again"
        )
    return place


def id_of(name: str, document_id: str, char_range: CharRange | None = None) -> str:
    """The id of a document, or of a range of it, in the index of this name.

    >>> id_of("", "lease.pdf", (120, 480)), id_of("contracts", "lease.pdf")
    ('lease.pdf#char=120,480', 'contracts::lease.pdf')
    """
    if char_range is not None:
        document_id = f"{document_id}#char={char_range[0]},{char_range[1]}"
    elif document_id.endswith("#") or _RANGE.fullmatch(document_id):
        document_id += "#"  # else it would be read as an id with a range
    return f"{name}::{document_id}" if name else document_id


def title_of(title: str, document_id: str) -> str:
    """A document's title in one line, or else the last part of its id."""
    words = " ".join((title or document_id.rstrip("/").rpartition("/")[2] or document_id).split())
    return shortened(words, _TITLE_CHARS)


def shortened(text: str, length: int) -> str:
    """The text, or its first `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def url_of(source: str, document_id: str, location: Location) -> str:
    """The address of a place: of its file, with the page of a PDF, or else its id as a URI.

    >>> url_of("/home/anna/lease 7.pdf", "lease", Location(page=12))
    'file:///home/anna/lease%207.pdf#page=12'
    """
    if "://" in source:
        return source
    if not source.startswith("/") and not Path(source).is_absolute():
        return f"dewey:{quote(document_id)}"
    is_paged = location.page is not None and source.lower().endswith(".pdf")
    return Path(source).as_uri() + (f"#page={location.page}" if is_paged else "")


def place_of(location: Location, start: int, end: int) -> Answer:
    """Where a range of characters stands in its file, as an answer says it: what is known.

    >>> place_of(Location(page=3, last_page=3, headings=("Rent",)), 120, 480)
    {'page': 3, 'headings': ['Rent'], 'characters': [120, 480]}
    """
    values = asdict(location)
    values["headings"] = [shortened(" ".join(each.split()), _HEADING_CHARS)
                          for each in location.headings]  # fmt: skip
    known = {
        key: value
        for key, value in values.items()
        if value and not (key.startswith("last_") and value == values[key.removeprefix("last_")])
    }
    return {**known, "characters": [start, end]}
