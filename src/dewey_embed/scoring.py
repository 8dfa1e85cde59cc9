"""How documents and passages are scored: the formulas that similarity, search and audits share.

A search scores every passage, from 0 to 1, at three scales and by its document's title:

| scale            | weight | meaning                                 | words                   |
|------------------|--------|-----------------------------------------|-------------------------|
| the passage      | 1      | cosine of its vector                    | BM25 of its words       |
| its surroundings | 1/2    | cosine of their sum, its own included   | BM25 of theirs          |
| its document     | 3/4    | cosine of the document's vector         | BM25 of the document's  |
| the title        | 1/2    | cosine of its vector                    |                         |

Cosines below 0 count as 0, and BM25 is divided by the most that the query could reach, so that a
score means the same in a small index and in a large one; of the other documents only how rare they
make a word, and how long a passage is among them, matters. Where there is no title, the document's
vector stands for it. A document's score is that of its best passage.

| mode     | a passage's score                                                                  |
|----------|------------------------------------------------------------------------------------|
| `hybrid` | weighted mean of all: 35 parts meaning and 65 parts words at every scale           |
| `multi`  | weighted mean of the meaning column                                                |
| `single` | weighted mean of its document's cosine and its title's                             |

`similarity`, which knows neither titles nor words, has in `multi` three quarters the best chunk's
cosine and one quarter the document vector's. docs/log.md says how the weights were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError, InputError
from dewey_embed.quantization import to_unit_float
from dewey_embed.types import DocumentVectors, Floats, Rows, SimilarityMode

DOCUMENT_WEIGHT = 1 / 4
"""Weight of the document's vector in a `multi` similarity; the best chunk has the rest."""

MEANING, WORDS = 0.35, 0.65
"""Shares of vectors and of BM25 in a `hybrid` score, at every scale."""

SURROUNDINGS_WEIGHT, DOCUMENT_SCALE_WEIGHT, TITLE_WEIGHT = 1 / 2, 3 / 4, 1 / 2
"""Weights of a passage's surroundings, document and title beside its own, which is 1."""


def multi_scores(best_chunks: Floats, documents: Floats) -> Floats:
    """`multi` scores from cosines of the best chunks and of the document vectors, shape kept."""
    scores: Floats = (1 - DOCUMENT_WEIGHT) * best_chunks + DOCUMENT_WEIGHT * documents
    return scores


class Scales(NamedTuple):
    """Cosines, or BM25 scores from 0 to 1, of passages (P,) at each scale; words have no title."""

    passage: Floats
    surroundings: Floats
    document: Floats
    title: Floats | None = None

    def total(self) -> Floats:
        """The weighted sum (P,), from 0 to `most`."""
        total = np.maximum(self.passage, 0)
        total = total + np.float32(SURROUNDINGS_WEIGHT) * np.maximum(self.surroundings, 0)
        total += np.float32(DOCUMENT_SCALE_WEIGHT) * np.maximum(self.document, 0)
        if self.title is not None:
            total += np.float32(TITLE_WEIGHT) * np.maximum(self.title, 0)
        return total

    def most(self) -> float:
        """The largest total that there can be."""
        without = 1 + SURROUNDINGS_WEIGHT + DOCUMENT_SCALE_WEIGHT
        return without if self.title is None else without + TITLE_WEIGHT


def single_scores(documents: Floats, titles: Floats) -> Floats:
    """`single` scores (P,) from 0 to 1, from cosines of documents and of their titles."""
    scores = DOCUMENT_SCALE_WEIGHT * np.maximum(documents, 0)
    scores = scores + TITLE_WEIGHT * np.maximum(titles, 0)
    single: Floats = (scores / (DOCUMENT_SCALE_WEIGHT + TITLE_WEIGHT)).astype(np.float32)
    return single


def passage_scores(meaning: Scales, words: Scales | None) -> Floats:
    """Scores (P,) of passages from 0 to 1: `hybrid` ones, or `multi` ones without words."""
    if words is None:
        return meaning.total() / np.float32(meaning.most())
    total = MEANING * meaning.total() + WORDS * words.total()
    return (total / np.float32(MEANING * meaning.most() + WORDS * words.most())).astype(np.float32)


UNANSWERED = 0.25
"""Below this probability a query is called unanswered; docs/log.md says how often that is wrong."""

FEW_PASSAGES = 50
"""In an index of fewer passages it says nothing how rare a word is."""


def answer_probability(score: float, held: float, num_passages: int) -> float:
    """The probability that a passage answers, from its `hybrid` score.

    `held` is the sum of the BM25 weights of the query's words that the passage holds; the more
    passages there are, the better the best of them is by chance. A logistic regression over
    development tasks, whole ones and parts of 5 to 40 documents, with and without the documents
    that answer: docs/log.md.

    >>> answer_probability(0.2, 2.0, 1000) < UNANSWERED < answer_probability(0.5, 12.0, 1000)
    True
    """
    by_chance = math.log(max(num_passages, FEW_PASSAGES))
    logit = -2.258 + 11.175 * score + 0.463 * math.log1p(held) - 0.379 * by_chance
    return 1 / (1 + math.exp(-logit))


Documents = DocumentVectors | Sequence[DocumentVectors] | NDArray[Any]


def similarity(
    queries: NDArray[Any],
    documents: Documents,
    dim: int,
    *,
    mode: SimilarityMode,
) -> Floats:
    """Scores (Q, N) of queries (Q, D) with documents, at any precision.

    A document without chunks is compared by its own vector, and in `single` by the nearest of its
    `vectors` where it has them; an array (N, D) is compared row by row.

    Raises:
        ConfigError: an unknown mode, vectors of another width than `dim`, or too many axes.
        InputError: a value that is NaN or infinite.
        TypeError: an item is not a document's vectors.

    """
    if mode not in ("multi", "single"):
        raise ConfigError(f"mode {mode!r} is unknown; accepted: multi, single")
    documents = _listed(documents)
    queries = np.asarray(queries)
    _require_finite("queries", queries)
    query_QD = to_unit_float(np.atleast_2d(queries), dim)
    if isinstance(documents, np.ndarray):
        _require_finite("documents", documents)
        if documents.ndim > 2:
            raise ConfigError(
                f"documents is an array of shape {documents.shape}, need (N, D); to compare by "
                "several vectors a document, give their DocumentVectors"
            )
        return query_QD @ to_unit_float(np.atleast_2d(documents), dim).T
    for position, document in enumerate(documents):
        several = () if document.vectors is None else (document.vectors,)
        _require_finite(f"document {position}", document.vector, document.chunks, *several)
    scores_QN = np.empty((len(query_QD), len(documents)), np.float32)
    for column, document in enumerate(documents):
        own = document.vector if mode == "multi" or document.vectors is None else document.vectors
        scores_Q = (query_QD @ to_unit_float(np.atleast_2d(own), dim).T).max(axis=1)
        if mode == "multi" and len(document.chunks):
            best_Q = (query_QD @ to_unit_float(document.chunks, dim).T).max(axis=1)
            scores_Q = multi_scores(best_Q, scores_Q)
        scores_QN[:, column] = scores_Q
    return scores_QN


def nearest(
    queries: NDArray[Any],
    documents: Documents,
    dim: int,
    *,
    k: int,
    mode: SimilarityMode,
    rescore: Documents | None = None,
    rescore_multiplier: int,
) -> tuple[Rows, Floats]:
    """Rows (Q, k) of the documents with the highest scores, best first, and their scores (Q, k).

    With `rescore`, the same documents at another precision, `rescore_multiplier` times as many are
    found first and scored again by these. Equal scores are ordered by row.

    Raises:
        ConfigError: fewer than one is wanted, or what `similarity` refuses.
        InputError: `rescore` holds another number of documents, or what `similarity` refuses.
        TypeError: an item is not a document's vectors.

    """
    if min(k, rescore_multiplier) < 1:
        raise ConfigError(f"k is {k} and rescore_multiplier {rescore_multiplier}; need 1 or more")
    rough = similarity(queries, documents, dim, mode=mode)
    if rescore is None:
        return _highest(rough, k)
    exact = _listed(rescore)
    if len(exact) != rough.shape[1]:
        raise InputError(
            f"rescore holds {len(exact):,} documents, {rough.shape[1]:,} were searched; give the "
            "same ones, in the same order"
        )
    rows, _ = _highest(rough, k * rescore_multiplier)
    rows = np.sort(rows, axis=1)
    scores = [
        similarity(query, _taken(exact, own), dim, mode=mode)[0]
        for query, own in zip(np.atleast_2d(queries), rows, strict=True)
    ]
    order, best = _highest(np.array(scores, np.float32).reshape(rows.shape), k)
    return np.take_along_axis(rows, order, axis=1), best


def _highest(scores: Floats, k: int) -> tuple[Rows, Floats]:
    """The columns (Q, k) of the highest scores (Q, N), best first, and these; fewer if N is."""
    columns = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return columns, np.take_along_axis(scores, columns, axis=1)


def _taken(
    documents: Sequence[DocumentVectors] | NDArray[Any], rows: Rows
) -> Sequence[DocumentVectors] | NDArray[Any]:
    """Some of the documents, in the order of their rows."""
    if isinstance(documents, np.ndarray):
        taken: NDArray[Any] = documents[rows]
        return taken
    return [documents[row] for row in rows]


def _listed(documents: Documents) -> Sequence[DocumentVectors] | NDArray[Any]:
    """Documents as a list, or vectors as one array."""
    if isinstance(documents, DocumentVectors):
        return [documents]
    if isinstance(documents, np.ndarray):
        return documents
    many = list(documents)
    if many and not any(isinstance(each, DocumentVectors) for each in many):
        return np.asarray(many)
    for position, each in enumerate(many):
        if not isinstance(each, DocumentVectors):
            raise TypeError(f"documents[{position}] is {type(each).__name__}, not DocumentVectors")
    return many


def _require_finite(name: str, *arrays: NDArray[Any]) -> None:
    """Refuse vectors with values that are not finite numbers."""
    for array in arrays:
        if not np.issubdtype(array.dtype, np.number):
            raise TypeError(f"{name}: vectors of dtype {array.dtype}, need numbers")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: the vectors hold values that are NaN or infinite")


def with_title(chunks: Floats, title: Floats, weight: float) -> Floats:
    """Unit vectors (C, D) of chunks with that of their title (D,) added; a row of zeros stays one.

    >>> with_title(np.eye(2, dtype=np.float32), np.array([0, 1], np.float32), 1.0).round(3)
    array([[0.707, 0.707],
           [0.   , 1.   ]], dtype=float32)
    """
    rows = chunks + np.float32(weight) * title * chunks.any(axis=1, keepdims=True)
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
