"""A corpus's vectors as an index would hold them: how many bytes, how good, how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.quantization import to_precision, to_unit_float, truncate
from dewey_embed.scoring import multi_scores
from dewey_embed.types import Precision

Floats = NDArray[np.float32]

NEAREST = 400
"""Vectors that a timed search asks for: what `dewey search` looks at before it ranks documents."""

QUERIES_TOGETHER = 128


@dataclass(frozen=True, eq=False)
class Parts:
    """Vectors of N documents: `whole` (N, D), and `parts` (C, D), the first's before the second's.

    `sizes` (N,) are each document's number of parts. All float32, unit length. No parts at all is
    a corpus with one vector a document.
    """

    whole: Floats
    parts: Floats
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, whole: Floats, parts: Sequence[Floats]) -> Parts:
        """The vectors of documents with their parts, one array (C, D) for each document."""
        return cls(
            whole,
            np.concatenate([whole[:0], *parts]),
            np.array([len(each) for each in parts], np.int64),
        )

    @classmethod
    def without(cls, whole: Floats) -> Parts:
        """Documents that have one vector each."""
        return cls(whole, whole[:0], np.zeros(len(whole), np.int64))


class Stored:
    """Vectors at a precision and a width, as bytes; compared exactly, without an index.

    `codes` holds the parts and then the wholes.
    """

    def __init__(self, vectors: Parts, precision: Precision, dim: int) -> None:
        self.precision = precision
        self.dim = dim
        self.sizes = vectors.sizes
        self.num_parts = len(vectors.parts)
        both = np.concatenate((vectors.parts, vectors.whole))
        self.codes: NDArray[Any] = to_precision(truncate(both, dim), precision)

    @property
    def num_vectors(self) -> int:
        """Parts and wholes together."""
        return len(self.codes)

    @property
    def num_bytes(self) -> int:
        """Bytes of all vectors; ids and texts are not counted, for they are always the same."""
        return int(self.codes.nbytes)

    def scores(self, queries: Floats) -> Floats:
        """(Q, N) scores of queries (Q, D) of full width, as `Dewey.similarity` has them.

        Its `multi`, with parts for chunks, where there are parts, else its `single`.
        """
        asked = truncate(queries, self.dim)
        floats = to_unit_float(self.codes, self.dim)
        parts, whole = floats[: self.num_parts], floats[self.num_parts :]
        scores = asked @ whole.T
        some = np.flatnonzero(self.sizes)
        if not len(some):
            return scores
        starts = (np.cumsum(self.sizes) - self.sizes)[some]
        for first in range(0, len(asked), QUERIES_TOGETHER):
            rows = slice(first, first + QUERIES_TOGETHER)
            best = np.maximum.reduceat(asked[rows] @ parts.T, starts, axis=1)
            scores[rows, some] = multi_scores(best, scores[rows, some])
        return scores

    def seconds(self, queries: Floats) -> float:
        """Median of one query's exact search by FAISS on one thread, over queries (Q, D).

        What is timed finds the nearest 400 vectors of all in this precision; the ranking of
        their documents after it takes the same for every precision and width.
        """
        asked = np.ascontiguousarray(_padded(truncate(queries, self.dim), self._index.d))
        num = min(NEAREST, self._index.ntotal)
        taken = []
        with _one_thread():
            self._index.search(asked[:1], num)
            for row in range(len(asked)):
                began = time.perf_counter()
                self._index.search(asked[row : row + 1], num)
                taken.append(time.perf_counter() - began)
        return float(np.median(taken))

    @cached_property
    def _index(self) -> Any:
        """What is searched: the parts, or the wholes where there are no parts."""
        return flat_index(self.codes[: self.num_parts or None], self.precision, self.dim)


def flat_index(codes: NDArray[Any], precision: Precision, dim: int) -> Any:
    """FAISS's index (`faiss.Index`) of exact inner products with vectors at their precision.

    Binary is compared with a query of floats, by tables of sums for each byte: a product quantizer
    whose 256 centroids are the signs that a byte can hold. Its queries are padded to whole bytes.
    """
    import faiss

    index: Any
    if precision == "binary":
        num_bytes = codes.shape[1]
        index = faiss.IndexPQ(8 * num_bytes, num_bytes, 8, faiss.METRIC_INNER_PRODUCT)
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        signs = np.tile(bits.astype(np.float32) * 2 - 1, (num_bytes, 1, 1))
        faiss.copy_array_to_vector(signs.ravel(), index.pq.centroids)
        index.is_trained = True
        index.add_sa_codes((codes.astype(np.int16) + 128).astype(np.uint8))
        return index
    if precision == "float32":
        index = faiss.IndexFlatIP(dim)
    else:
        kinds = faiss.ScalarQuantizer
        kind = kinds.QT_fp16 if precision == "float16" else kinds.QT_8bit_direct_signed
        index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
    index.add(np.ascontiguousarray(codes, np.float32))
    return index


def _padded(vectors: Floats, width: int) -> Floats:
    """The vectors with zeros up to a width."""
    return np.pad(vectors, ((0, 0), (0, width - vectors.shape[1])))


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS on one thread while the block runs."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
