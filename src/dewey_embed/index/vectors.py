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
        more = _CANDIDATES + _CANDIDATES_PER_ROW * num
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


def best_documents(
    neighbours: Neighbours,
    starts: Rows,
    query: Floats,
    num: int,
    allowed: Mask | None = None,
) -> tuple[Rows, Floats]:
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
    neighbours: Neighbours, starts: Rows, query: Floats, num: int, rough: Floats
) -> tuple[Rows, Floats]:
    """The best chunks of at least the `num` best documents with their scores, best first."""
    sizes = np.diff(starts)
    best = np.full(len(sizes), -np.inf, np.float32)
    if len(rough):
        best[sizes > 0] = np.maximum.reduceat(rough, starts[:-1][sizes > 0])
    least = np.full(len(sizes), np.inf, np.float32)
    chosen = top_k(best, num + _SPARE)
    least[chosen] = best[chosen] - _ROUGHLY
    rows = np.flatnonzero(rough >= np.repeat(least, sizes))
    scores = neighbours.scores(rows, query)
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _first_of_each(starts: Rows, rows: Rows, scores: Floats, num: int) -> tuple[Rows, Floats]:
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
    return Neighbours(vectors, read_ivf(path, len(vectors)))


TITLE_WEIGHT = np.float32(1.0)
"""What a title's vector weighs beside a chunk's."""

MIN_NORM = 0.1
"""A chunk that points away from its title, so that little is left of both, is compared alone."""


class Titles:
    """The distinct titles (M) of N documents; `of` (N,) says which is whose, -1 for none."""

    def __init__(self, vectors: Neighbours, of: Rows) -> None:
        self.vectors = vectors
        self.of = of
        titled = np.flatnonzero(of >= 0)
        self._documents = titled[np.argsort(of[titled], kind="stable")]
        self._starts = np.searchsorted(of[self._documents], np.arange(len(vectors) + 1))

    def documents(self, query: Floats, num: int) -> Rows:
        """At least `num` documents, if so many have a title: those whose titles are nearest."""
        titles, _ = self.vectors.nearest(query, num)
        found = [self._documents[self._starts[row] : self._starts[row + 1]] for row in titles]
        return np.concatenate(found)[:num] if found else np.zeros(0, np.int64)


class TitledNeighbours(Neighbours):
    """Vectors (R, D) of documents, or of their chunks, scored with and without their titles.

    Document i owns the rows `starts[i]` to `starts[i + 1]`; `norms` (R,) are the lengths of the
    sums of a row's vector and its title's, 0 where there is no title.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        inverted: IvfIndex | None,
        titles: Titles,
        starts: Rows,
        norms: Floats,
    ) -> None:
        super().__init__(vectors, inverted)
        self._titles, self._starts, self._norms = titles, starts, norms

    def scores(self, rows: Rows | slice, query: Floats) -> Floats:
        """The better inner product (len(rows),) float32 of some rows with a query (D,)."""
        alone = super().scores(rows, query)
        if len(self._titles.vectors) == 0:
            return alone
        places = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        titles = self._titles_of(places)
        distinct, which = np.unique(titles, return_inverse=True)
        products = np.zeros(len(distinct), np.float32)
        products[distinct >= 0] = self._titles.vectors.scores(distinct[distinct >= 0], query)
        return _better(alone, products[which], self._norms[places])

    def rough_scores(self, query: Floats, allowed: Mask | None = None) -> Floats:
        """About the scores (R,) of all rows, -inf of those not allowed."""
        alone = super().rough_scores(query, allowed)
        if len(self._titles.vectors) == 0:
            return alone
        products = self._titles.vectors.rough_scores(query)
        titles = np.repeat(self._titles.of, np.diff(self._starts))
        return _better(alone, products[titles], self._norms)

    def _candidates(self, query: Floats, num: int, allowed: Mask | None) -> Rows:
        found = super()._candidates(query, num, allowed)
        if self.is_compared_whole or len(self._titles.vectors) == 0:
            return found
        documents = self._titles.documents(query, num)
        sizes = self._starts[documents + 1] - self._starts[documents]
        within = documents[: 1 + np.searchsorted(np.cumsum(sizes), 4 * num)]
        rows = [np.arange(self._starts[row], self._starts[row + 1]) for row in within]
        titled = np.concatenate([*rows, np.zeros(0, np.int64)])
        return np.union1d(found, titled if allowed is None else titled[allowed[titled]])

    def _titles_of(self, rows: Rows) -> Rows:
        return self._titles.of[np.searchsorted(self._starts, rows, side="right") - 1]


def _better(alone: Floats, titles: Floats, norms: Floats) -> Floats:
    """Floats alone or, where they are higher, beside the titles'; -inf stays."""
    joined = (alone + TITLE_WEIGHT * titles) / np.maximum(norms, MIN_NORM)
    better: Floats = np.where(norms >= MIN_NORM, np.maximum(alone, joined), alone)
    return better


def joined_norms(vectors: NDArray[Any], titles: Floats) -> Floats:
    """Lengths (R,) of vectors (R, D) with their titles' (R, D) beside them; 0 for zeros."""
    norms = np.linalg.norm(vectors.astype(np.float32) + TITLE_WEIGHT * titles, axis=1)
    return np.where(titles.any(axis=1), norms, np.float32(0))


def read_titled(
    vectors: NDArray[Any],
    path: Path,
    titles: Titles,
    starts: Rows,
    norms: Floats,
) -> TitledNeighbours:
    """Vectors (R, D) with the inverted file that was built from them at `path`, and titles."""
    plain = read_neighbours(vectors, path)
    return TitledNeighbours(vectors, plain.inverted, titles, starts, norms)
