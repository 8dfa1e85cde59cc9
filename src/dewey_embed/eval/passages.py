"""A folder of documents and of annotated places in them → `PassageData`.

A folder holds `documents.jsonl` (`_id`, `title`, `text`), `chunks.jsonl` or `spans.jsonl` (`_id`,
and the characters `start` to `end` of the text of the document `doc`), `queries.jsonl`, and a qrels
file as in BEIR's layout, whose documents are these chunks.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from dewey_embed.errors import TaskError
from dewey_embed.eval.beir import (
    RetrievalData,
    Text,
    is_file,
    numbered_lines,
    read_texts,
    with_judgements,
)
from dewey_embed.titles import title_line
from dewey_embed.types import CharSpans, Mask

DOCUMENTS = "documents.jsonl"
CHUNKS = ("chunks.jsonl", "spans.jsonl")
PASSAGE_FILES = f"{DOCUMENTS} with {' or '.join(CHUNKS)}"


class Place(NamedTuple):
    """Characters of a document."""

    document: str
    start: int
    end: int

    def overlap(self, other: Place) -> int:
        """The number of characters that two places share."""
        if self.document != other.document:
            return 0
        return max(0, min(self.end, other.end) - max(self.start, other.start))

    def covers_half(self, other: Place) -> bool:
        """Whether both share half of the shorter.

        >>> place = Place("lease", 0, 100)
        >>> place.covers_half(Place("lease", 90, 110)), place.covers_half(Place("lease", 91, 111))
        (True, False)
        """
        shorter = min(self.end - self.start, other.end - other.start)
        return 2 * self.overlap(other) >= shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedDocument:
    """A text with its title, empty where it has none, and the characters of its chunks (C,)."""

    title: str
    text: str
    spans: CharSpans

    @property
    def chunk_texts(self) -> list[str]:
        """The text of each chunk."""
        return [self.text[start:end] for start, end in self.spans]

    @property
    def chunk_titles(self) -> list[str]:
        """What stands before each chunk where it is read alone under its title."""
        return [title_before(self.title, self.text, int(start)) for start, _ in self.spans]

    def only(self, mask: Mask) -> ChunkedDocument:
        """The document with the chunks of a mask (C,)."""
        return replace(self, spans=list(compress(self.spans, mask)))


def title_before(title: str, text: str, start: int) -> str:
    r"""The title of a chunk from `start`; empty where the chunk begins with it, the text's own.

    >>> title_before("Lease", "Lease\n\nRent is due.", 7), title_before("Lease", "Lease\n\nRent", 0)
    ('Lease', '')
    """
    return "" if start == 0 and title_line(text) == title else title


@dataclass(frozen=True, kw_only=True)
class PassageData:
    """A task whose qrels name chunks of documents.

    `documents` are what is indexed. `chunks` is the task over the chunks as texts, under their
    documents' titles; `places` holds the characters of each, by its id.
    """

    documents: dict[str, Text]
    chunks: RetrievalData
    places: dict[str, Place]

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with any text, id, place or gain."""
        digest = hashlib.sha256(self.chunks.digest.encode())
        texts = {name: (each.title, each.text) for name, each in self.documents.items()}
        for part in (texts, self.places):
            digest.update(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    def by_document(self) -> dict[str, tuple[list[str], ChunkedDocument]]:
        """The documents that have chunks, by id, each after the ids of its chunks."""
        return by_document(self.documents, self.places)

    def sample(self, num_documents: int, seed: int = 0) -> PassageData:
        """The task of some of the documents, and of the queries that these answer.

        The sample of a smaller number is part of that of a larger one.

        Raises:
            TaskError: no query has a relevant chunk in the sample.

        """
        if num_documents >= len(self.documents):
            return self
        kept = sampled(self.documents, num_documents, seed)
        places = {name: each for name, each in self.places.items() if each.document in kept}
        qrels = {
            query: own
            for query, gains in self.chunks.qrels.items()
            if (own := {chunk: gain for chunk, gain in gains.items() if chunk in places})
        }
        name = sample_name(self.chunks.name, num_documents, seed)
        if not qrels:
            raise TaskError(
                f"{name}: no query has a relevant chunk in these documents; give a larger number "
                "or another seed"
            )
        chunks = replace(
            self.chunks,
            name=name,
            documents={name: self.chunks.documents[name] for name in places},
            titles={name: each for name, each in self.chunks.titles.items() if name in places},
            queries={query: self.chunks.queries[query] for query in qrels},
            qrels=qrels,
        )
        documents = {name: each for name, each in self.documents.items() if name in kept}
        return PassageData(documents=documents, chunks=chunks, places=places)


def by_document(
    documents: Mapping[str, Text], places: Mapping[str, Place]
) -> dict[str, tuple[list[str], ChunkedDocument]]:
    """The documents that have chunks, by id, each after the ids of its chunks."""
    chunks: dict[str, list[str]] = {}
    for name, place in places.items():
        chunks.setdefault(place.document, []).append(name)
    return {
        document: (
            own,
            ChunkedDocument(
                title=documents[document].title,
                text=documents[document].text,
                spans=[(places[name].start, places[name].end) for name in own],
            ),
        )
        for document, own in chunks.items()
    }


def num_without_chunks(documents: Mapping[str, Text], places: Mapping[str, Place]) -> int:
    """The number of documents that have no chunk."""
    return len(documents) - len({place.document for place in places.values()})


def sampled(names: Iterable[str], number: int, seed: int) -> set[str]:
    """Some of several names, by a seed; those of a smaller number are among those of a larger."""
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    return set(shuffled[:number])


def sample_name(task: str, num_documents: int, seed: int) -> str:
    """The name of a task over a sample of its documents.

    >>> sample_name("leases", 40, 0), sampled_task(sample_name("leases", 40, 7))
    ('leases_40_documents', 'leases')
    """
    return f"{task}_{num_documents}_documents" + (f"_seed_{seed}" if seed else "")


def sampled_task(name: str) -> str:
    """The name of the task that a sample is of; that of another task as it is."""
    return _SAMPLE.sub("", name)


_SAMPLE = re.compile(r"_\d+_documents(_seed_\d+)?$")


def is_passage_folder(folder: Path) -> bool:
    """Whether a folder holds documents and annotated places in them."""
    return is_file(folder / DOCUMENTS) and any(is_file(folder / name) for name in CHUNKS)


def read_passages(folder: Path) -> PassageData:
    """The task of a folder; a warning names what is left out of it.

    Raises:
        TaskError: a file is missing, empty or cannot be read, a line is not a record, a chunk lies
            outside its document, an id has two texts or places, or no query has words and a
            relevant chunk.

    """
    folder = folder.expanduser()
    documents, places, lines = read_places(folder)
    chunks = {}
    for name, place in places.items():
        text, title, _ = documents[place.document]
        own = text[place.start : place.end]
        chunks[name] = Text(own, title_before(title, text, place.start), lines[name])
    judged = with_judgements(chunks, _chunks_path(folder))
    return PassageData(documents=documents, chunks=judged, places=places)


def read_places(folder: Path) -> tuple[dict[str, Text], dict[str, Place], dict[str, int]]:
    """The documents of a folder, and the chunks annotated in them, with their lines, by id.

    A document without a title has that of its text.

    Raises:
        TaskError: as `read_passages`, but for queries.

    """
    documents = {
        name: each._replace(title=each.title or title_line(each.text))
        for name, each in read_texts(folder / DOCUMENTS, titles=True).items()
    }
    path = _chunks_path(folder)
    places: dict[str, Place] = {}
    lines: dict[str, int] = {}
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        name, place = _record(line, where, documents)
        if places.setdefault(name, place) != place:
            raise TaskError(
                f"{where}: id {name!r} comes a second time, with another place than in line "
                f"{lines[name]}; give each chunk an id of its own"
            )
        lines.setdefault(name, number)
    if not places:
        raise TaskError(f"{path}: holds no chunk, so there is nothing to measure")
    return documents, places, lines


def _chunks_path(folder: Path) -> Path:
    return next((folder / name for name in CHUNKS if is_file(folder / name)), folder / CHUNKS[0])


def _record(line: str, where: str, documents: Mapping[str, Text]) -> tuple[str, Place]:
    """The id and the place of a line."""
    try:
        record = json.loads(line)
        name, document, *ends = (record[key] for key in ("_id", "doc", "start", "end"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TaskError(
            f'{where}: is not a record with "_id", "doc", "start" and "end" '
            f"({type(error).__name__}: {error}); write one object a line, such as "
            '{"_id": "d1:0", "doc": "d1", "start": 0, "end": 90}'
        ) from None
    if not isinstance(name, str) or not name.strip():
        raise TaskError(f'{where}: "_id" is {name!r}, not a name; put one in quotes')
    if not isinstance(document, str) or document not in documents:
        raise TaskError(f"{where}: {DOCUMENTS} has no document {document!r}; add it there")
    length = len(documents[document].text)
    start, end = ends
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= length:
        raise TaskError(
            f"{where}: the chunk from {start!r} to {end!r} does not lie in document {document!r}, "
            f"which has {length:,} characters; count them in its text, without its title, from 0"
        )
    return name, Place(document, start, end)
