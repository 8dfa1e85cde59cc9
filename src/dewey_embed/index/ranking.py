"""Which documents answer a question best: by their vectors, or by their vectors and their words.

`multi` takes its candidates from the nearest chunks, `hybrid` from those and from the words, and
every candidate is scored exactly. How the weights were found is told in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dewey_embed.config import WHOLE_SHARE
from dewey_embed.errors import InputError
from dewey_embed.index.catalogue import Catalogue, Filter
from dewey_embed.index.neighbours import Mask, Rows, Scores
from dewey_embed.index.snapshot import Snapshot

Mode = Literal["multi", "single", "hybrid"]

CANDIDATES = 100
"""Of each ranking so many documents, or as many as are asked for if more, are looked at."""

MEANING_SHARE = 1 / 3
"""Share of the vectors in a `hybrid` score; the rest is the words'."""


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
    """Nothing, where these can be asked.

    Raises:
        InputError: a blank query, a number below one, an unknown mode.

    """
    for query in queries:
        if not query.strip():
            raise InputError("the query is blank; ask with at least one word")
    if k < 1 or passages < 0:
        raise InputError(f"k is {k} and passages {passages}; need k >= 1 and passages >= 0")
    if mode not in get_args(Mode):
        raise InputError(f"mode {mode!r} is unknown; accepted: {', '.join(get_args(Mode))}")


def ranked_rows(
    question: Question, snapshot: Snapshot, catalogue: Catalogue
) -> list[tuple[int, float]]:
    """Rows and scores of the `k` best documents, best first; equal ones by row.

    Raises:
        InputError: the filter names metadata that no document has.

    """
    allowed = catalogue.matching(question.filter) if question.filter else None
    if question.mode == "single":
        rows, scores = catalogue.rank(question.vector, question.k, whole=True, allowed=allowed)
        return list(zip(rows.tolist(), scores.tolist(), strict=True))
    depth = max(question.k, CANDIDATES)
    rows, best = catalogue.rank(question.vector, depth, whole=False, allowed=allowed)
    worded: dict[int, float] = {}
    if question.mode == "hybrid":
        worded = _worded(question.words, snapshot, catalogue, depth, allowed)
        others = np.setdiff1d(np.fromiter(worded, np.int64, len(worded)), rows)
        rows = np.concatenate((rows, others))
        best = np.concatenate((best, best_chunks(others, question.vector, catalogue)))
    whole = catalogue.whole.scores(rows, question.vector)
    scores = (1 - WHOLE_SHARE) * best + WHOLE_SHARE * whole
    if question.mode == "hybrid":
        words = np.array([worded.get(row, 0.0) for row in rows.tolist()], np.float32)
        scores = MEANING_SHARE * standard(scores) + (1 - MEANING_SHARE) * standard(words)
    order = np.lexsort((rows, -scores))[: question.k]
    return list(zip(rows[order].tolist(), scores[order].tolist(), strict=True))


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


def standard(scores: Scores) -> Scores:
    """Scores less their mean, in standard deviations; zeros where all are equal.

    So cosines and BM25 scores, whose ranges differ from query to query, can be added.
    """
    deviation = scores.std()
    if not deviation > 0:
        return np.zeros_like(scores)
    standardised: Scores = (scores - scores.mean()) / deviation
    return standardised


def _worded(
    words: str, snapshot: Snapshot, catalogue: Catalogue, num: int, allowed: Mask | None
) -> dict[int, float]:
    """BM25 scores by row of up to `num` documents that share words with the question."""
    fetch = num
    while True:
        found = snapshot.full_text(words, fetch)
        rows = catalogue.find([name for name, _ in found])
        scores = {
            row: score
            for row, (_, score) in zip(rows, found, strict=True)
            if row is not None and (allowed is None or allowed[row])
        }
        if len(scores) >= num or len(found) < fetch:
            return dict(list(scores.items())[:num])
        fetch *= 4
