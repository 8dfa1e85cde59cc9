"""Ranked rows → hits: passages with their text, their place in the file, and their answer."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.layout import DerivedLayout
from dewey_embed.index.passages import unit_rows
from dewey_embed.index.ranking import Query, Ranking, ranked
from dewey_embed.index.store import Snapshot
from dewey_embed.index.words import query_words
from dewey_embed.scoring import MEANING, WORDS, answer_probability
from dewey_embed.text.locations import location_of
from dewey_embed.text.sentences import headings_in
from dewey_embed.types import Floats, Hit, Landmark, Passage


class _Row(NamedTuple):
    """A passage to show: its row, its score, and how many like it are left out."""

    row: int
    score: float
    num_similar: int


def document_hits(query: Query, snapshot: Snapshot, layout: DerivedLayout) -> list[Hit]:
    """The `k` best documents, best first, each with its best passages."""
    ranking = ranked(query, layout)
    found = []
    for row, score in ranking.documents(query.k):
        best = _best(max(1, query.passages), layout, ranking, row)
        found.append(_Found(row, score, best[: query.passages], next(iter(best), None)))
    return _hits(query, snapshot, layout, found)


def passage_hits(query: Query, snapshot: Snapshot, layout: DerivedLayout) -> list[Hit]:
    """The `k` best passages of all documents, best first, each in a hit of its own."""
    ranking = ranked(query, layout)
    best: list[_Found] = []
    chosen = _Chosen(layout)
    for row, score in ranking.passages():
        if len(best) == query.k:
            break
        if chosen.take(row):
            own = _Row(row, score, ranking.num_like(row))
            best.append(_Found(int(layout.owners[row]), score, [own], own))
    return _hits(query, snapshot, layout, best)


def _best(num: int, layout: DerivedLayout, ranking: Ranking, document: int) -> list[_Row]:
    """The `num` best passages of a document, best first."""
    best: list[_Row] = []
    chosen = _Chosen(layout)
    for row, score in zip(*ranking.passages_of(document), strict=True):
        if len(best) == num:
            break
        if chosen.take(int(row)):
            alike = ranking.num_like(int(row), document)
            best.append(_Row(int(row), round(float(score), 6), alike))
    return best


class _Chosen:
    """Passages chosen so far, of which none overlaps another or has the same words."""

    def __init__(self, layout: DerivedLayout) -> None:
        self._layout = layout
        self._signatures: set[int] = set()
        self._spans: dict[int, list[tuple[int, int]]] = {}

    def take(self, row: int) -> bool:
        """Whether a passage is chosen, too."""
        signature = int(self._layout.signatures[row])
        start, end = map(int, self._layout.spans[row])
        spans = self._spans.setdefault(int(self._layout.owners[row]), [])
        if signature and signature in self._signatures:
            return False
        if any(start < other_end and other < end for other, other_end in spans):
            return False
        self._signatures.add(signature)
        spans.append((start, end))
        return True


class _Found(NamedTuple):
    """A document that a search found: its row, its score, the passages to show, and the best."""

    row: int
    score: float
    shown: Sequence[_Row]
    best: _Row | None


class _Held(NamedTuple):
    """What the index holds of a document whose passages are shown."""

    document_id: str
    text: str
    landmarks: Sequence[Landmark]


def _hits(
    query: Query,
    snapshot: Snapshot,
    layout: DerivedLayout,
    found: Sequence[_Found],
) -> list[Hit]:
    """Hits for ranked documents and the passages of each, with what the index holds of them."""
    import pyarrow as pa

    rows = pa.array([each.row for each in found], pa.int64())
    documents = layout.documents.select(["id", "title", "source"]).take(rows).to_pylist()
    passages = [passage.row for each in found for passage in each.shown]
    held = _read(snapshot, layout, sorted({each.row for each in found if each.shown}))
    highlights = _highlights(query, layout, _chunks_of(snapshot, layout, passages), held)
    return [
        Hit(
            document_id=document["id"],
            score=each.score,
            title=document["title"],
            source=document["source"],
            metadata=layout.metadata(each.row),
            passages=[
                _passage(layout, held[each.row], passage, highlights[passage.row])
                for passage in each.shown
            ],
            probability=_probability(query, layout, each.best),
        )
        for document, each in zip(documents, found, strict=True)
    ]


def _probability(query: Query, layout: DerivedLayout, best: _Row | None) -> float | None:
    """The probability that a document's best passage answers; `None` where words do not count."""
    if query.mode != "hybrid" or best is None:
        return None
    held = layout.passage_words.held(query.text, best.row)
    return round(answer_probability(best.score, held, len(layout.owners)), 3)


def _read(snapshot: Snapshot, layout: DerivedLayout, rows: Sequence[int]) -> dict[int, _Held]:
    """What the index holds of documents, by row."""
    import pyarrow as pa

    taken = layout.documents.select(["id", "row_id"]).take(pa.array(rows, pa.int64()))
    columns = taken.to_pylist()
    row_ids = [each["row_id"] for each in columns]
    found = snapshot.texts(row_ids, ["landmarks"])
    return {
        row: _Held(
            each["id"],
            found[each["row_id"]]["text"],
            landmarks_of(found[each["row_id"]]["landmarks"]),
        )
        for row, each in zip(rows, columns, strict=True)
    }


def _passage(
    layout: DerivedLayout, document: _Held, shown: _Row, highlight: tuple[int, int]
) -> Passage:
    start, end = map(int, layout.spans[shown.row])
    location = location_of(document.landmarks, document.text, start, end)
    answer = location_of(document.landmarks, document.text, *highlight)
    return Passage(
        document_id=document.document_id,
        number=int(shown.row - layout.starts[layout.owners[shown.row]]),
        score=shown.score,
        char_start=start,
        char_end=end,
        text=document.text[start:end],
        highlight=highlight,
        location=replace(
            location,
            headings=answer.headings,
            slide=answer.slide,
            sheet=answer.sheet,
            cell=answer.cell,
        ),
        num_similar=shown.num_similar,
    )


def passage_at(
    snapshot: Snapshot, layout: DerivedLayout, document: int, number: int
) -> Passage | None:
    """A document's passage by its number, without score; `None` where it has no such passage."""
    row = int(layout.starts[document]) + number
    if not number >= 0 or row >= layout.starts[document + 1] or not layout.spans[row, 1]:
        return None
    span = (int(layout.spans[row, 0]), int(layout.spans[row, 1]))
    return _passage(layout, _read(snapshot, layout, [document])[document], _Row(row, 0.0, 0), span)


def landmarks_of(written: str) -> tuple[Landmark, ...]:
    """Landmarks as the index keeps them, in JSON."""
    return tuple(Landmark(*each) for each in json.loads(written))


def _chunks_of(
    snapshot: Snapshot, layout: DerivedLayout, rows: Sequence[int]
) -> dict[int, list[_Chunk]]:
    """The chunks of passages, by the passage's row; none of one that is a chunk."""
    ids = {
        row: [int(each) for each in layout.chunk_rows[slice(*layout.chunk_starts[row : row + 2])]]
        for row in rows
    }
    found = dict(_chunks(snapshot, [each for own in ids.values() if len(own) > 1 for each in own]))
    return {row: [found[each] for each in own if each in found] for row, own in ids.items()}


def _highlights(
    query: Query,
    layout: DerivedLayout,
    chunks: Mapping[int, Sequence[_Chunk]],
    held: Mapping[int, _Held],
) -> dict[int, tuple[int, int]]:
    """The characters of the chunk that answers best in each passage, by the passage's row.

    A heading names what is answered, and answers only where nothing else stands in the passage.
    """
    answers = _Answers(query)
    highlights = {}
    for row, several in chunks.items():
        start, end = map(int, layout.spans[row])
        headings = _headings(held[int(layout.owners[row])], start, end)
        below = [each for each in several if not _is_within(each.span, headings)]
        highlights[row] = answers.best(below or several).span if several else (start, end)
    return highlights


def _headings(document: _Held, start: int, end: int) -> list[tuple[int, int]]:
    """The characters of the headings in a range of a document's text, or in the blanks before."""
    landmarks = document.landmarks
    first, last = (
        bisect_left(landmarks, char, key=lambda each: each.char)
        for char in (len(document.text[:start].rstrip()), end)
    )
    return headings_in(document.text, landmarks[first:last])


def _is_within(span: tuple[int, int], ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether one of the ranges, which are in order, holds a span."""
    before = bisect_right(ranges, span[0], key=lambda each: each[0])
    return before > 0 and span[1] <= ranges[before - 1][1]


class _Chunk(NamedTuple):
    """A chunk's characters, unit vector (D,) and words (W,)."""

    span: tuple[int, int]
    vector: Floats
    words: NDArray[np.uint32]


def _chunks(snapshot: Snapshot, ids: list[int]) -> Iterator[tuple[int, _Chunk]]:
    """Chunks by row id."""
    if not ids:
        return
    table = snapshot.chunk_rows(ids, ["char_start", "char_end", "words", "vector"])
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    units, _ = unit_rows(vectors.astype(np.float32))
    words = table["words"].combine_chunks()
    numbers, ends = words.flatten().to_numpy(), np.cumsum(words.value_lengths().to_numpy())
    columns = (table[name].to_pylist() for name in ("_rowid", "char_start", "char_end"))
    for row_id, start, end, vector, held in zip(
        *columns, units, np.split(numbers, ends[:-1]), strict=True
    ):
        yield row_id, _Chunk((start, end), vector, held)


class _Answers:
    """Which of several chunks answers a query best: by meaning, and by the words they share."""

    def __init__(self, query: Query) -> None:
        self._vector = query.vector
        self._numbers, self._weights = query_words(query.text)
        self._uses_words = query.mode == "hybrid"

    def best(self, chunks: Sequence[_Chunk]) -> _Chunk:
        """The chunk that answers best."""
        scores = MEANING * (np.stack([each.vector for each in chunks]) @ self._vector)
        if self._uses_words:
            total = max(float(self._weights.sum()), 1e-12)
            for position, each in enumerate(chunks):
                shared = self._weights[np.isin(self._numbers, each.words)].sum()
                scores[position] += WORDS * float(shared) / total
        return chunks[int(np.argmax(scores))]
