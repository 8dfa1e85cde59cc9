"""How documents are scored: the formulas that similarity, search, evaluation and audits share.

| mode     | a document's score                                                                 |
|----------|------------------------------------------------------------------------------------|
| `single` | the cosine of the query with the document's vector                                 |
| `multi`  | three quarters its best chunk's cosine, one quarter the document vector's          |
| `hybrid` | one quarter the `multi` score, three quarters its BM25 score, both as z-scores      |

docs/log.md says how the weights were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError, InputError
from dewey_embed.quantization import to_unit_float
from dewey_embed.types import DocumentVectors, Floats, SimilarityMode

DOCUMENT_WEIGHT = 1 / 4
"""Weight of the document's vector in a `multi` score; the best chunk has the rest."""

DENSE_WEIGHT = 1 / 4
"""Weight of the vectors in a `hybrid` score; BM25 has the rest."""


def multi_scores(best_chunks: Floats, documents: Floats) -> Floats:
    """`multi` scores from cosines of the best chunks and of the document vectors, shape kept."""
    scores: Floats = (1 - DOCUMENT_WEIGHT) * best_chunks + DOCUMENT_WEIGHT * documents
    return scores


def hybrid_scores(dense: Floats, bm25: Floats) -> Floats:
    """`hybrid` scores from z-scores of `multi` and of BM25, shape kept."""
    scores: Floats = DENSE_WEIGHT * dense + (1 - DENSE_WEIGHT) * bm25
    return scores


class ZScores:
    """Scores in standard deviations from the mean of a sample; zeros where the sample is constant.

    Cosines and BM25 scores have ranges that differ from query to query; z-scores can be added.
    """

    def __init__(self, sample: Floats) -> None:
        self._mean = np.float32(sample.mean()) if len(sample) else np.float32(0)
        self._deviation = np.float32(sample.std()) if len(sample) else np.float32(0)

    @property
    def is_constant(self) -> bool:
        """Whether the sample does not vary, so that all z-scores are zero."""
        return not self._deviation > 0

    def __call__(self, scores: Floats) -> Floats:
        """The z-scores of scores."""
        if self.is_constant:
            return np.zeros_like(scores)
        z_scores: Floats = (scores - self._mean) / self._deviation
        return z_scores


def similarity(
    queries: NDArray[Any],
    documents: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any],
    dim: int,
    *,
    mode: SimilarityMode,
) -> Floats:
    """Scores (Q, N) of queries (Q, D) with documents, at any precision.

    A document without chunks is compared by its own vector; an array (N, D) row by row.

    Raises:
        ConfigError: an unknown mode, or vectors of another width than `dim`.
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
        return query_QD @ to_unit_float(np.atleast_2d(documents), dim).T
    for position, document in enumerate(documents):
        _require_finite(f"document {position}", document.vector, document.chunks)
    scores_QN = np.empty((len(query_QD), len(documents)), np.float32)
    for column, document in enumerate(documents):
        scores_Q = query_QD @ to_unit_float(document.vector, dim)
        if mode == "multi" and len(document.chunks):
            best_Q = (query_QD @ to_unit_float(document.chunks, dim).T).max(axis=1)
            scores_Q = multi_scores(best_Q, scores_Q)
        scores_QN[:, column] = scores_Q
    return scores_QN


def _listed(
    documents: DocumentVectors | Sequence[DocumentVectors] | NDArray[Any],
) -> Sequence[DocumentVectors] | NDArray[Any]:
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
