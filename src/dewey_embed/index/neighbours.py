"""The nearest of many vectors: all compared for few, those an inverted file points to for many.

Scores are always exact: inner products in float32 with the vectors as stored, each row summed by
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

from dewey_embed.index.inverted import Inverted, read_inverted

EXACT_LIMIT = 50_000
"""Up to so many vectors every one is compared."""

_BLOCK = 16_384
"""Rows of a large table that are made float32 at a time."""

_SPARE = 16
_ROUGHLY = 5e-5
"""A product of all vectors at once adds up in an order of its own: so far off it may be. So many
more than were wanted are scored exactly, for equal scores to be cut by our order."""

_CANDIDATES = 100
_CANDIDATES_PER_ROW = 2
"""Rows of an inverted file that are scored: so many, and so many for each one wanted."""

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Neighbours:
    """Vectors (N, D), float16 or float32, to be searched; by an inverted file if they are many."""

    def __init__(self, vectors: NDArray[Any], inverted: Inverted | None = None) -> None:
        self.vectors = vectors
        self.inverted = inverted

    def __len__(self) -> int:
        return len(self.vectors)

    def scores(self, rows: Rows | slice, query: NDArray[np.float32]) -> Scores:
        """Inner products (len(rows),) float32 of some rows with a query (D,)."""
        products: NDArray[np.float32] = self.vectors[rows].astype(np.float32) * query
        summed: Scores = products.sum(axis=1)
        return summed

    def nearest(
        self, query: NDArray[np.float32], num: int, allowed: Mask | None = None
    ) -> tuple[Rows, Scores]:
        """The `num` rows with the highest scores, best first; fewer where there are fewer.

        `query` is (D,) float32; `allowed` (N,) says which rows may answer, all if not given.
        """
        if len(self) == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows = np.sort(self._candidates(query, num, allowed))
        scores = self.scores(rows, query)
        order = np.argsort(-scores, kind="stable")[:num]
        return rows[order], scores[order]

    def _candidates(self, query: NDArray[np.float32], num: int, allowed: Mask | None) -> Rows:
        """Rows worth scoring for the `num` nearest, in no order."""
        if self.inverted is None:
            return highest(self.rough_scores(query, allowed), num + _SPARE)
        if allowed is not None and allowed.sum() <= EXACT_LIMIT:
            return np.flatnonzero(allowed)
        more = _CANDIDATES + _CANDIDATES_PER_ROW * num
        return self.inverted.candidates(query, more, allowed)

    @property
    def is_compared_whole(self) -> bool:
        """Whether every row is compared with a query, for there are not many."""
        return self.inverted is None

    def rough_scores(self, query: NDArray[np.float32], allowed: Mask | None = None) -> Scores:
        """About the scores (N,) of all rows, -inf of those not allowed."""
        if self.is_compared_whole:
            rough: Scores = self._table @ query
        else:
            rough = np.empty(len(self), np.float32)
            for start in range(0, len(self), _BLOCK):
                block = slice(start, start + _BLOCK)
                rough[block] = self.vectors[block].astype(np.float32) @ query
        if allowed is not None:
            rough[~allowed] = -np.inf
        return rough

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.vectors, np.float32)


def highest(scores: Scores, num: int) -> Rows:
    """Places of the `num` highest scores, in no order; fewer where fewer are above -inf."""
    if num >= len(scores):
        return np.flatnonzero(scores > -np.inf)
    places = np.argpartition(-scores, num)[:num]
    return places[scores[places] > -np.inf]


def best_documents(
    neighbours: Neighbours,
    starts: Rows,
    query: NDArray[np.float32],
    num: int,
    allowed: Mask | None = None,
) -> tuple[Rows, Scores]:
    """The `num` documents whose best chunk scores highest, best first, with that score.

    Document i owns the chunks `starts[i]` to `starts[i + 1]`; `allowed` (C,) says which chunks may
    answer. Where most documents are wanted all chunks are compared. Else, as one long document can
    own all of the nearest chunks, four times as many are fetched until `num` documents are found,
    or there are no more.
    """
    if neighbours.is_compared_whole or 2 * num >= len(starts) - 1:
        rough = neighbours.rough_scores(query, allowed)
        rows, scores = _best_chunks(neighbours, starts, query, num, rough)
        return _first_of_each(starts, rows, scores, num)
    fetch = max(64, 4 * num)
    while True:
        rows, scores = neighbours.nearest(query, fetch, allowed)
        owners, best = _first_of_each(starts, rows, scores, num)
        if len(owners) >= num or len(rows) < fetch:
            return owners, best
        fetch *= 4


def _best_chunks(
    neighbours: Neighbours, starts: Rows, query: NDArray[np.float32], num: int, rough: Scores
) -> tuple[Rows, Scores]:
    """The best chunks of at least the `num` best documents with their scores, best first."""
    sizes = np.diff(starts)
    best = np.full(len(sizes), -np.inf, np.float32)
    if len(rough):
        best[sizes > 0] = np.maximum.reduceat(rough, starts[:-1][sizes > 0])
    least = np.full(len(sizes), np.inf, np.float32)
    chosen = highest(best, num + _SPARE)
    least[chosen] = best[chosen] - _ROUGHLY
    rows = np.flatnonzero(rough >= np.repeat(least, sizes))
    scores = neighbours.scores(rows, query)
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _first_of_each(starts: Rows, rows: Rows, scores: Scores, num: int) -> tuple[Rows, Scores]:
    """Of chunks, best first, the owners with the score of their first one; at most `num`."""
    owners = np.searchsorted(starts, rows, side="right") - 1
    _, first = np.unique(owners, return_index=True)
    first = np.sort(first)[:num]
    return owners[first], scores[first]


def read_neighbours(vectors: NDArray[Any], path: Path) -> Neighbours:
    """Vectors (N, D) with the inverted file that was built from them at `path`, if there is one."""
    if not path.exists():
        return Neighbours(vectors)
    if isinstance(vectors, np.memmap) and hasattr(mmap, "MADV_RANDOM"):
        # A few rows here and there are read: without this each brings in its surroundings.
        vectors._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return Neighbours(vectors, read_inverted(path, len(vectors)))
