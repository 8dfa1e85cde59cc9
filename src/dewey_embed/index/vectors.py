"""The nearest of many vectors: all compared for few, those an inverted file points to for many.

Floats are always exact: inner products in float32 with the vectors as stored, each row summed by
itself, so that a score depends neither on the other rows nor on their order. Equal scores are
ordered by row.
"""

from __future__ import annotations

import mmap
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.ivf import IvfIndex, read_ivf
from dewey_embed.types import Floats, Mask, Rows

EXACT_LIMIT = 131_072
"""Up to so many vectors every one is compared."""

_BLOCK = 16_384
"""Rows of a large table that are made float32 at a time."""

_SPARE = 16
_ROUGHLY = 5e-5
"""A product of all vectors at once adds up in an order of its own: so far off it may be. So many
more than were wanted are scored exactly, for equal scores to be cut by our order."""

_CANDIDATES = 100
_CANDIDATES_GROWTH = 1 / 10
_CANDIDATES_PER_ROW = 2
"""Rows of an inverted file that are scored: so many or the root of that share of all, and so many
for each one wanted. The more rows, the more codes are alike: of ten million a hundred lose one in
eight of the ten nearest, a thousand one in 250 (benchmarks/search.py)."""


class Neighbours:
    """Vectors (N, D), float16 or float32, to be searched; by an inverted file if they are many."""

    def __init__(self, vectors: NDArray[Any], inverted: IvfIndex | None = None) -> None:
        self.vectors = vectors
        self.inverted = inverted

    def __len__(self) -> int:
        return len(self.vectors)

    def scores(self, rows: Rows | slice, query: Floats) -> Floats:
        """Inner products (len(rows),) float32 of some rows with a query (D,)."""
        products: Floats = self.vectors[rows].astype(np.float32) * query
        summed: Floats = products.sum(axis=1)
        return summed

    def nearest(self, query: Floats, num: int, allowed: Mask | None = None) -> tuple[Rows, Floats]:
        """The `num` rows with the highest scores, best first; fewer where there are fewer.

        `query` is (D,) float32; `allowed` (N,) says which rows may answer, all if not given.
        """
        if len(self) == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows = np.sort(self._candidates(query, num, allowed))
        scores = self.scores(rows, query)
        order = np.argsort(-scores, kind="stable")[:num]
        return rows[order], scores[order]

    def _candidates(self, query: Floats, num: int, allowed: Mask | None) -> Rows:
        """Rows worth scoring for the `num` nearest, in no order."""
        if self.inverted is None:
            return top_k(self.rough_scores(query, allowed), num + _SPARE)
        if allowed is not None and allowed.sum() <= EXACT_LIMIT:
            return np.flatnonzero(allowed)
        least = max(_CANDIDATES, round((_CANDIDATES_GROWTH * len(self)) ** 0.5))
        more = least + _CANDIDATES_PER_ROW * num
        return self.inverted.candidates(query, more, allowed)

    @property
    def is_compared_whole(self) -> bool:
        """Whether every row is compared with a query, for there are not many."""
        return self.inverted is None

    def rough_scores(self, query: Floats, allowed: Mask | None = None) -> Floats:
        """About the scores (N,) of all rows, -inf of those not allowed."""
        if self.is_compared_whole:
            rough: Floats = self._table @ query
        else:
            rough = np.empty(len(self), np.float32)
            for start in range(0, len(self), _BLOCK):
                block = slice(start, start + _BLOCK)
                rough[block] = self.vectors[block].astype(np.float32) @ query
        if allowed is not None:
            rough[~allowed] = -np.inf
        return rough

    @cached_property
    def _table(self) -> Floats:
        return np.ascontiguousarray(self.vectors, np.float32)


def top_k(scores: Floats, k: int) -> Rows:
    """Rows of the `k` highest scores, equal ones by row, in no order; only those above -inf."""
    if k >= len(scores):
        return np.flatnonzero(scores > -np.inf)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    if least == -np.inf:
        return above
    return np.concatenate((above, np.flatnonzero(scores == least)[: k - len(above)]))


def read_neighbours(vectors: NDArray[Any], path: Path) -> Neighbours:
    """Vectors (N, D) with the inverted file that was built from them at `path`, if there is one."""
    if not path.exists():
        return Neighbours(vectors)
    if isinstance(vectors, np.memmap) and hasattr(mmap, "MADV_RANDOM"):
        # A few rows here and there are read: without this each brings in its surroundings.
        vectors._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return Neighbours(vectors, read_ivf(path, len(vectors)))
