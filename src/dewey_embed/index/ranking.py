"""Which documents answer a query best: by their vectors, or by their vectors and their words.

The formulas are in scoring.py. `multi` takes its candidates from the nearest chunks, `hybrid` from
those and from BM25, and every candidate is scored exactly. Documents come in tiers: those among the
best 100 of a ranking, then those among the best 400, and so on, so that a search for a few is the
beginning of a search for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from dewey_embed.errors import InputError
from dewey_embed.index.layout import DerivedLayout, Filter
from dewey_embed.index.vectors import top_k
from dewey_embed.scoring import ZScores, hybrid_scores, multi_scores
from dewey_embed.types import Floats, Mask, Rows, SearchMode

CANDIDATES = 100
"""Documents in the first tier of each ranking, whatever `k` is."""

DEEPER = 4
"""A tier of a ranking ends this many times deeper than the tier before it."""


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


def ranked_rows(query: Query, layout: DerivedLayout) -> list[tuple[int, float]]:
    """Rows and scores of the `k` best documents, best first; equal ones by row.

    Those for a smaller `k` are the first of those for a larger one.

    Raises:
        InputError: the filter names metadata that no document has.

    """
    mask = layout.filter_mask(query.filter) if query.filter else None
    ranking = _RANKINGS[query.mode](query, layout, mask)
    ranked: list[tuple[int, float]] = []
    seen = np.zeros(len(layout), np.bool_)
    depth = CANDIDATES
    while True:
        rows = ranking.candidates(depth)
        rows = rows[~seen[rows]]
        seen[rows] = True
        scores = ranking.scores(rows)
        if ranked:  # earlier tiers come first, so no score may exceed theirs
            scores = np.minimum(scores, np.float32(ranked[-1][1]))
        order = np.lexsort((rows, -scores))
        ranked += zip(rows[order].tolist(), scores[order].tolist(), strict=True)
        if len(ranked) >= query.k or depth >= len(layout):
            return ranked[: query.k]
        depth *= DEEPER


class _Single:
    """Documents by their own vectors."""

    def __init__(self, query: Query, layout: DerivedLayout, mask: Mask | None) -> None:
        self._query, self._layout, self._mask = query, layout, mask

    def candidates(self, depth: int) -> Rows:
        """Rows of the `depth` documents nearest to the query."""
        rows, _ = self._layout.document_vectors.nearest(self._query.vector, depth, self._mask)
        return rows

    def scores(self, rows: Rows) -> Floats:
        """Cosines (R,) of documents."""
        return self._layout.document_vectors.scores(rows, self._query.vector)


class _Multi(_Single):
    """Documents by their best chunks and, a quarter, by their own vectors."""

    def __init__(self, query: Query, layout: DerivedLayout, mask: Mask | None) -> None:
        super().__init__(query, layout, mask)
        self._best = np.full(len(layout), np.nan, np.float32)  # NaN: not yet computed

    def candidates(self, depth: int) -> Rows:
        """Rows of the `depth` documents with the best chunks."""
        rows, best = self._layout.nearest_by_chunks(self._query.vector, depth, self._mask)
        self._best[rows] = best
        return rows

    def scores(self, rows: Rows) -> Floats:
        """Weighted cosines (R,) of documents."""
        unknown = rows[np.isnan(self._best[rows])]
        self._best[unknown] = self._layout.best_chunk_scores(unknown, self._query.vector)
        return multi_scores(self._best[rows], super().scores(rows))


class _Hybrid(_Multi):
    """Documents by `multi` and by BM25, as z-scores over the best candidates by `multi`."""

    def __init__(self, query: Query, layout: DerivedLayout, mask: Mask | None) -> None:
        super().__init__(query, layout, mask)
        self._bm25 = layout.words.scores(query.text)
        if mask is not None:
            self._bm25[~mask] = 0
        self._nearest = super().candidates(CANDIDATES)
        self._dense_z = ZScores(super().scores(self._nearest))
        self._bm25_z = ZScores(self._bm25[self._nearest])

    def candidates(self, depth: int) -> Rows:
        """Rows of the best by chunks, and of the best by BM25 that share a word with the query."""
        by_words = top_k(self._bm25, depth)
        nearest = self._nearest if depth == CANDIDATES else super().candidates(depth)
        return np.union1d(nearest, by_words[self._bm25[by_words] > 0])

    def scores(self, rows: Rows) -> Floats:
        """Weighted z-scores (R,) of documents; `multi` scores where all z-scores are zero."""
        dense = super().scores(rows)
        if self._dense_z.is_constant and self._bm25_z.is_constant:
            return dense  # of a single document, say, which no other stands beside
        return hybrid_scores(self._dense_z(dense), self._bm25_z(self._bm25[rows]))


_RANKINGS: dict[SearchMode, type[_Single]] = {"single": _Single, "multi": _Multi, "hybrid": _Hybrid}
