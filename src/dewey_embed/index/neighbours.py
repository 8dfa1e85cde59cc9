"""The nearest of many vectors: all compared for few, those an inverted file points to for many.

Scores are always exact: inner products in float32 with the vectors as stored, each row summed by
itself, so that a score depends neither on the other rows nor on their order. Equal scores are
ordered by row.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.inverted import Inverted, read_inverted

if TYPE_CHECKING:
    import faiss

EXACT_LIMIT = 50_000
"""Up to so many vectors every one is compared."""

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
        self._inverted = inverted
        self._flat: faiss.Index | None = None

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
        if allowed is not None and allowed.sum() <= EXACT_LIMIT:
            found = np.flatnonzero(allowed)
        elif self._inverted is not None:
            more = _CANDIDATES + _CANDIDATES_PER_ROW * num
            found = self._inverted.candidates(query, more, allowed)
        else:
            # A few more than asked, so that equal scores are cut by our order, not by FAISS's.
            _, near = self._exact().search(query[None], min(num + 16, len(self)))
            found = near.ravel()
        rows = np.sort(found)
        scores = self.scores(rows, query)
        order = np.argsort(-scores, kind="stable")[:num]
        return rows[order], scores[order]

    def _exact(self) -> faiss.Index:
        """FAISS's flat index over all vectors, made when first asked."""
        import faiss

        if self._flat is None:
            self._flat = faiss.IndexFlatIP(self.vectors.shape[1])
            self._flat.add(np.ascontiguousarray(self.vectors, np.float32))
        return self._flat


def best_documents(
    neighbours: Neighbours,
    starts: Rows,
    query: NDArray[np.float32],
    num: int,
    allowed: Mask | None = None,
) -> tuple[Rows, Scores]:
    """The `num` documents whose best chunk scores highest, best first, with that score.

    Document i owns the chunks `starts[i]` to `starts[i + 1]`; `allowed` (C,) says which chunks may
    answer. One long document can own all of the nearest chunks: four times as many are fetched
    until `num` documents are found, or there are no more.
    """
    fetch = max(64, 4 * num)
    while True:
        rows, scores = neighbours.nearest(query, fetch, allowed)
        owners = np.searchsorted(starts, rows, side="right") - 1
        _, first = np.unique(owners, return_index=True)
        if len(first) >= num or len(rows) < fetch:
            first = np.sort(first)[:num]
            return owners[first], scores[first]
        fetch *= 4


def read_neighbours(vectors: NDArray[Any], path: Path) -> Neighbours:
    """Vectors (N, D) with the inverted file that was built from them at `path`, if there is one."""
    if not path.exists():
        return Neighbours(vectors)
    if isinstance(vectors, np.memmap) and hasattr(mmap, "MADV_RANDOM"):
        # A few rows here and there are read: without this each brings in its surroundings.
        vectors._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return Neighbours(vectors, read_inverted(path, len(vectors)))
