"""Which documents answer a question best: by their vectors, or by their vectors and their words.

`multi` takes its candidates from the nearest chunks, `hybrid` from those and from the words, and
every candidate is scored exactly. Documents come in tiers: those among the best 100 of a ranking,
then those among the best 400, and so on, so that a search for a few is the beginning of a search
for many. How the weights were found is told in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import InputError
from dewey_embed.index.catalogue import Catalogue, Filter
from dewey_embed.index.neighbours import Mask, Rows, Scores
from dewey_embed.scoring import ZScores, hybrid_scores, multi_scores

Mode = Literal["multi", "single", "hybrid"]

CANDIDATES = 100
DEEPER = 4
"""Of each ranking so many documents are looked at, whatever is asked for; where more are asked for
than that gives, so many times more, whose documents all come after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: words, their vector (D,) float32, and how to answer."""

    words: str
    vector: NDArray[np.float32]
    k: int
    mode: Mode
    passages: int
    filter: Filter | None = None


def require_questions(queries: Sequence[str], k: int, mode: Mode, passages: int) -> None:
    """Refuse what cannot be asked.

    Raises:
        InputError: a blank query, or one that is not Unicode; a number below one; an unknown mode.
        TypeError: a number that is not whole.

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
    if mode not in get_args(Mode):
        raise InputError(f"mode {mode!r} is unknown; accepted: {', '.join(get_args(Mode))}")


def ranked_rows(question: Question, catalogue: Catalogue) -> list[tuple[int, float]]:
    """Rows and scores of the `k` best documents, best first; equal ones by row.

    Those for a smaller `k` are the first of those for a larger one.

    Raises:
        InputError: the filter names metadata that no document has.

    """
    allowed = catalogue.matching(question.filter) if question.filter else None
    ranking = _RANKINGS[question.mode](question, catalogue, allowed)
    ranked: list[tuple[int, float]] = []
    seen = np.zeros(len(catalogue), np.bool_)
    depth = CANDIDATES
    while True:
        rows = ranking.candidates(depth)
        rows = rows[~seen[rows]]
        seen[rows] = True
        scores = ranking.scores(rows)
        if ranked:  # the tiers before come first, so no score may be above theirs
            scores = np.minimum(scores, np.float32(ranked[-1][1]))
        order = np.lexsort((rows, -scores))
        ranked += zip(rows[order].tolist(), scores[order].tolist(), strict=True)
        if len(ranked) >= question.k or depth >= len(catalogue):
            return ranked[: question.k]
        depth *= DEEPER


class _Single:
    """Documents by their one vector."""

    def __init__(self, question: Question, catalogue: Catalogue, allowed: Mask | None) -> None:
        self._question, self._catalogue, self._allowed = question, catalogue, allowed

    def candidates(self, depth: int) -> Rows:
        """Rows of the `depth` documents nearest to the query."""
        query = self._question.vector
        rows, _ = self._catalogue.rank(query, depth, whole=True, allowed=self._allowed)
        return rows

    def scores(self, rows: Rows) -> Scores:
        """Cosines (R,) of documents."""
        return self._catalogue.whole.scores(rows, self._question.vector)


class _Multi(_Single):
    """Documents by their best chunk and, a quarter, by their one vector."""

    def __init__(self, question: Question, catalogue: Catalogue, allowed: Mask | None) -> None:
        super().__init__(question, catalogue, allowed)
        # Cosines of documents' best chunks, where they are known.
        self._best = np.full(len(catalogue), np.nan, np.float32)

    def candidates(self, depth: int) -> Rows:
        """Rows of the `depth` documents with the best chunks."""
        query = self._question.vector
        rows, best = self._catalogue.rank(query, depth, whole=False, allowed=self._allowed)
        self._best[rows] = best
        return rows

    def scores(self, rows: Rows) -> Scores:
        """Weighted cosines (R,) of documents."""
        unknown = rows[np.isnan(self._best[rows])]
        self._best[unknown] = best_chunks(unknown, self._question.vector, self._catalogue)
        return multi_scores(self._best[rows], super().scores(rows))


class _Hybrid(_Multi):
    """Documents by `multi` and by their words, each in deviations among the best by meaning."""

    def __init__(self, question: Question, catalogue: Catalogue, allowed: Mask | None) -> None:
        super().__init__(question, catalogue, allowed)
        self._words = catalogue.words.scores(question.words)
        if allowed is not None:
            self._words[~allowed] = 0
        self._nearest = {CANDIDATES: super().candidates(CANDIDATES)}
        first = self._nearest[CANDIDATES]
        self._meaning = ZScores(super().scores(first))
        self._worded = ZScores(self._words[first])

    def candidates(self, depth: int) -> Rows:
        """Rows of the best by meaning, and of the best by words that share one with the query."""
        worded = top_rows(self._words, depth)
        nearest = self._nearest.get(depth)
        if nearest is None:
            nearest = super().candidates(depth)
        return np.union1d(nearest, worded[self._words[worded] > 0])

    def scores(self, rows: Rows) -> Scores:
        """Weighted deviations (R,) of documents."""
        meaning = self._meaning(super().scores(rows))
        words = self._worded(self._words[rows])
        return hybrid_scores(meaning, words)


_RANKINGS: dict[Mode, type[_Single]] = {"single": _Single, "multi": _Multi, "hybrid": _Hybrid}


def top_rows(scores: Scores, num: int) -> Rows:
    """Rows of the `num` highest scores, equal ones by row, in no order."""
    if num >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - num)[len(scores) - num]
    above = np.flatnonzero(scores > least)
    return np.concatenate((above, np.flatnonzero(scores == least)[: num - len(above)]))


def best_chunks(rows: Rows, query: NDArray[np.float32], catalogue: Catalogue) -> Scores:
    """Cosines (R,) float32 of documents' best chunks; of a document without chunks, its own."""
    best = catalogue.whole.scores(rows, query)
    starts = catalogue.starts[rows]
    sizes = catalogue.starts[rows + 1] - starts
    if sizes.sum():
        firsts = np.cumsum(sizes) - sizes
        chunks = np.arange(sizes.sum()) + np.repeat(starts - firsts, sizes)
        some = sizes > 0
        best[some] = np.maximum.reduceat(catalogue.chunks.scores(chunks, query), firsts[some])
    return best
