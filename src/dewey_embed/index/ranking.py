"""Which documents and passages answer a query best: one score for both.

The formulas are in scoring.py. Every passage is scored, by its vector and its words, at three
scales; a document ranks where its best passage does. In an index with more passages than are
compared one by one, candidates are scored: the nearest by vectors and by words. They come in tiers,
so that a search for a few is the beginning of a search for many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import get_args

import numpy as np

from dewey_embed.errors import InputError
from dewey_embed.index.layout import DerivedLayout
from dewey_embed.index.passages import REACH
from dewey_embed.index.vectors import top_k
from dewey_embed.index.words import saturated
from dewey_embed.scoring import Scales, passage_scores, single_scores
from dewey_embed.types import Filter, Floats, Mask, Rows, SearchMode

CANDIDATES = 100
"""Documents in the first tier of candidates, and passages four times as many, whatever `k` is."""

DEEPER = 4
"""A tier holds this many times more candidates than the tier before it."""

PASSAGES_OF_NEAR = 64
"""Passages of near documents that are candidates, for each document of a tier."""

MOST_OF = 64
"""Where a tier would take more than one in so many passages, all are scored."""

FIRST_SORTED = 1024
"""Rows sorted at once: hardly anybody looks further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query: its text, its vector (D,) float32, and what to return."""

    text: str
    vector: Floats
    k: int
    mode: SearchMode
    passages: int
    filter: Filter | None = None


def require_queries(queries: Sequence[str], k: int, mode: SearchMode, passages: int) -> None:
    """Refuse queries that cannot be answered.

    Raises:
        InputError: a blank query, or one that is not Unicode; a number below its limit; an unknown
            mode.
        TypeError: a number that is not an integer.

    """
    for query in queries:
        if not query.strip():
            raise InputError("the query is blank; ask with at least one word")
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the query {query!r} is not Unicode text: {query[error.start]!r} is half of a "
                "pair, or a byte that is not UTF-8; write it in UTF-8"
            ) from None
    for name, number in (("k", k), ("passages", passages)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise TypeError(f"{name} is {number!r}, not a whole number")
    if k < 1 or passages < 0:
        raise InputError(f"k is {k} and passages {passages}; need k >= 1 and passages >= 0")
    if mode not in get_args(SearchMode):
        raise InputError(f"mode {mode!r} is unknown; accepted: {', '.join(get_args(SearchMode))}")


def ranked(query: Query, layout: DerivedLayout) -> Ranking:
    """The documents and passages of an index in the order in which they answer a query.

    Raises:
        InputError: the filter names metadata that no document has.

    """
    mask = layout.filter_mask(query.filter) if query.filter else None
    return Ranking(query, layout, mask)


class Ranking:
    """Documents and passages in the order in which they answer a query; equal ones by row.

    Those for a smaller number are the first of those for a larger one.
    """

    def __init__(self, query: Query, layout: DerivedLayout, mask: Mask | None) -> None:
        self._layout, self._mask = layout, mask
        self._scorer = _Scorer(query, layout)

    def documents(self, num: int) -> list[tuple[int, float]]:
        """Rows and scores of the `num` best documents."""
        ranked = self._tiers(self._scorer.scores, self._best_of_documents)
        return list(islice(ranked, min(num, len(self._layout))))

    def passages(self) -> Iterator[tuple[int, float]]:
        """Rows and scores of passages, best first, without those that are empty."""
        empty = self._layout.spans[:, 1] == 0
        ranked = self._tiers(self._scorer.passage_scores, lambda scores: scores)
        return ((row, score) for row, score in ranked if not empty[row])

    def passages_of(self, document: int) -> tuple[Rows, Floats]:
        """Rows and scores of a document's passages, best first, without one that is empty."""
        rows = np.arange(self._layout.starts[document], self._layout.starts[document + 1])
        rows = rows[self._layout.spans[rows, 1] > 0]
        scores = self._scorer.passage_scores(rows)
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def num_like(self, passage: int, document: int | None = None) -> int:
        """How many other passages, of one document or of all, have the same words."""
        signatures, owners = self._layout.signatures, self._layout.owners
        if not signatures[passage]:  # it has no words
            return 0
        if document is not None:
            rows = slice(self._layout.starts[document], self._layout.starts[document + 1])
            return int((signatures[rows] == signatures[passage]).sum()) - 1
        like = signatures == signatures[passage]
        if self._mask is not None:
            like &= self._mask[owners]
        return int(like.sum()) - 1

    def _best_of_documents(self, scores: Floats) -> Floats:
        """The best score (N,) of each document's passages (P,)."""
        if not len(self._layout):
            return scores
        best: Floats = np.maximum.reduceat(scores, self._layout.starts[:-1])
        return best

    def _tiers(
        self, score: Callable[[Rows], Floats], of: Callable[[Floats], Floats]
    ) -> Iterator[tuple[int, float]]:
        """Rows and scores, best first, of what `of` makes of all passages' scores (P,).

        Candidates come in tiers, each with more than the one before; as earlier tiers come first,
        no score may exceed theirs.
        """
        seen: Mask | None = None
        least = np.float32(np.inf)
        for candidates in self._candidates():
            scores = np.full(len(self._layout.owners), -np.inf, np.float32)
            scores[candidates] = score(candidates)
            if self._mask is not None:
                scores[~self._mask[self._layout.owners]] = -np.inf
            values = of(scores)
            if seen is None:
                seen = np.zeros(len(values), np.bool_)
            values[seen] = -np.inf
            for row in _descending(values):
                seen[row] = True
                least = min(least, values[row])
                yield int(row), round(float(least), 6)

    def _candidates(self) -> Iterator[Rows]:
        """Rows of passages worth scoring, tier by tier; the last holds all of them."""
        num = len(self._layout.owners)
        depth = CANDIDATES
        while not self._layout.passage_vectors.is_compared_whole and depth * MOST_OF < num:
            yield self._scorer.candidates(depth, self._mask)
            depth *= DEEPER
        if num:
            yield np.arange(num)


def _descending(values: Floats) -> Iterator[np.int64]:
    """Rows of values above -inf, the highest first, equal ones in order."""
    best = top_k(values, FIRST_SORTED)
    yield from best[np.lexsort((best, -values[best]))]
    rest = values.copy()
    rest[best] = -np.inf
    others = np.flatnonzero(rest > -np.inf)
    yield from others[np.lexsort((others, -rest[others]))]


class _Scorer:
    """Scores of passages for one query, each part computed when first needed."""

    def __init__(self, query: Query, layout: DerivedLayout) -> None:
        self._query, self._layout = query, layout

    def scores(self, rows: Rows) -> Floats:
        """Scores (R,) of passages by which documents are ranked; rounded, for equal to be equal."""
        if self._query.mode == "single":
            documents = self._of_documents(rows)
            return np.round(single_scores(documents, self._titles_at(rows, documents)), 6)
        return self.passage_scores(rows)

    def passage_scores(self, rows: Rows) -> Floats:
        """Scores (R,) of passages among themselves: `single`, which has none, takes `multi`'s."""
        if self._layout.passage_vectors.is_compared_whole:
            return self._all_scores[rows]
        return self._scored(rows)

    @cached_property
    def _all_scores(self) -> Floats:
        return self._scored(np.arange(len(self._layout.owners)))

    def _scored(self, rows: Rows) -> Floats:
        words = self._words_at(rows) if self._query.mode == "hybrid" else None
        return np.round(passage_scores(self._meaning_at(rows), words), 6)

    def candidates(self, depth: int, mask: Mask | None) -> Rows:
        """Rows of passages that are near, hold the words, or belong to a document that is near."""
        layout, vector = self._layout, self._query.vector
        allowed = None if mask is None else mask[layout.owners]
        passages = layout.passage_vectors.nearest(vector, 4 * depth, allowed)[0]
        found = [passages]
        if self._query.mode == "hybrid":
            by_words = self._words.total()
            if allowed is not None:
                by_words = np.where(allowed, by_words, 0)
            best = top_k(by_words, 4 * depth)
            found.append(best[by_words[best] > 0])
        documents = layout.document_vectors.nearest(vector, depth, mask)[0]
        sizes = np.diff(layout.starts)
        for rows in (documents, self._titled(depth, mask)):
            within = rows[: 1 + np.searchsorted(np.cumsum(sizes[rows]), PASSAGES_OF_NEAR * depth)]
            found += [np.arange(layout.starts[row], layout.starts[row + 1]) for row in within]
        return np.unique(np.concatenate(found))

    def _titled(self, depth: int, mask: Mask | None) -> Rows:
        """The `depth` documents with the nearest titles, nearest first."""
        titles, title_of = self._layout.titles, self._layout.title_of
        rows = np.flatnonzero(title_of >= 0 if mask is None else (title_of >= 0) & mask)
        used = np.zeros(len(titles), np.bool_)
        used[title_of[rows]] = True
        place = np.full(len(titles), len(titles))
        nearest = titles.nearest(self._query.vector, depth, used)[0]
        place[nearest] = np.arange(len(nearest))
        places = place[title_of[rows]]
        near = np.flatnonzero(places < len(titles))
        best: Rows = rows[near[np.argsort(places[near], kind="stable")[:depth]]]
        return best

    def _meaning_at(self, rows: Rows) -> Scales:
        """Cosines (R,) of passages at each scale."""
        layout = self._layout
        cosines = self._cosines(rows)
        around = layout.surroundings.sums(layout.weights * cosines)[rows]
        around = around / np.maximum(layout.surrounding_norms[rows], 1e-12)
        documents = self._of_documents(rows)
        return Scales(cosines[rows], around, documents, self._titles_at(rows, documents))

    def _titles_at(self, rows: Rows, documents: Floats) -> Floats:
        """Cosines (R,) of the titles of the documents; where there is none, the documents' own."""
        layout = self._layout
        titles = documents.copy()
        title_of = layout.title_of[layout.owners[rows]]
        has = title_of >= 0
        if has.any():
            distinct, which = _distinct(title_of[has], len(layout.titles))
            titles[has] = layout.titles.scores(distinct, self._query.vector)[which]
        return titles

    def _cosines(self, rows: Rows) -> Floats:
        """Cosines (P,) of passages: of these and their surroundings, or of all."""
        vectors = self._layout.passage_vectors
        if vectors.is_compared_whole:
            return self._all_cosines
        near = np.unique(np.clip(rows[:, None] + np.arange(-REACH, REACH + 1), 0, len(vectors) - 1))
        cosines = np.zeros(len(vectors), np.float32)
        cosines[near] = vectors.scores(near, self._query.vector)
        return cosines

    @cached_property
    def _all_cosines(self) -> Floats:
        return self._layout.passage_vectors.rough_scores(self._query.vector)

    def _of_documents(self, rows: Rows) -> Floats:
        """Cosines (R,) of the documents that passages belong to."""
        owners, which = _distinct(self._layout.owners[rows], len(self._layout))
        return self._layout.document_vectors.scores(owners, self._query.vector)[which]

    def _words_at(self, rows: Rows) -> Scales:
        """BM25 scores (R,) of passages at each scale."""
        words = self._words
        return Scales(words.passage[rows], words.surroundings[rows], words.document[rows])

    @cached_property
    def _words(self) -> Scales:
        """BM25 scores (P,) of all passages at each scale, divided by the most they could be."""
        layout, text = self._layout, self._query.text
        around = np.zeros(len(layout.owners), np.float32)
        postings, most = layout.passage_words.postings(text)
        for posting in postings:
            counts = layout.surroundings.sums(posting.spread(len(around)))
            around += posting.weight * saturated(counts, layout.surrounding_word_norms)
        return Scales(
            layout.passage_words.scores(text),
            around / np.float32(most),
            layout.document_words.scores(text)[layout.owners],
        )


def _distinct(rows: Rows, num: int) -> tuple[Rows, Rows]:
    """Distinct rows out of `num`, and which of them each one is; all, where most may be there."""
    if len(rows) > num:
        return np.arange(num), rows
    return np.unique(rows, return_inverse=True)
