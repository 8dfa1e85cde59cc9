"""The nearest of many vectors, by FAISS: exactly for few, IVF with float rescoring for many.

Scores are always exact: inner products in float32 with the vectors as stored, each row summed by
itself, so that a score depends neither on the other rows nor on their order. Equal scores are
ordered by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import faiss

EXACT_LIMIT = 50_000
"""Up to so many vectors every one is compared."""

_TRAINING_VECTORS_PER_LIST = 48
_PROBED_SHARE = 1 / 10
"""Share of the IVF lists read for a first look; recall@10 is above 0.97 (tests/index)."""

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Neighbours:
    """Vectors (N, D), float16 or float32, that can be searched, with their IVF if they are many."""

    def __init__(self, vectors: NDArray[Any], inverted: faiss.IndexIVF | None = None) -> None:
        self.vectors = vectors
        self._inverted = inverted
        self._flat: Any | None = None

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
            return self._among(np.flatnonzero(allowed), query, num)
        num = min(num, len(self))
        if self._inverted is None:
            # A few more than asked, so that equal scores are cut by our order, not by FAISS's.
            _, found = self._exact().search(query[None], min(num + 16, len(self)))
        else:
            found = _probe(self._inverted, query, num, allowed)
        return self._among(found.ravel(), query, num)

    def _among(self, rows: Rows, query: NDArray[np.float32], num: int) -> tuple[Rows, Scores]:
        """The best of some rows, by exact scores."""
        rows = np.sort(rows)
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
    owners: NDArray[np.int64],
    query: NDArray[np.float32],
    num: int,
    allowed: Mask | None = None,
) -> tuple[Rows, Scores]:
    """The `num` documents whose best chunk scores highest, best first, with that score.

    `owners` (C,) is each chunk's document, `allowed` (C,) the chunks that may answer. One long
    document can own all of the nearest chunks: twice as many are fetched until `num` documents
    are found, or there are no more.
    """
    fetch = max(64, 4 * num)
    while True:
        rows, scores = neighbours.nearest(query, fetch, allowed)
        _, first = np.unique(owners[rows], return_index=True)
        if len(first) >= num or len(rows) < fetch:
            first = np.sort(first)[:num]
            return owners[rows[first]], scores[first]
        fetch *= 2


def _probe(
    inverted: faiss.IndexIVF, query: NDArray[np.float32], num: int, allowed: Mask | None
) -> Rows:
    """Candidate rows from the IVF: four for each one wanted, more lists until there are."""
    import faiss

    wanted = min(max(4 * num, 64), inverted.ntotal if allowed is None else int(allowed.sum()))
    lists = inverted.nlist
    probes = max(16, round(lists * _PROBED_SHARE)) * max(1, num // 64)
    selector = None
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
    while True:
        params = faiss.SearchParametersIVF()
        params.nprobe, params.sel = min(probes, lists), selector
        _, found = inverted.search(query[None], wanted, params=params)
        rows: Rows = found[found >= 0]
        if len(rows) == wanted or probes >= lists:
            return rows
        probes *= 2


def build_inverted(vectors: NDArray[Any], path: Path) -> None:
    """Nothing; `path` then holds an `IVF…,SQ8` over vectors (N, D), read in blocks.

    The same vectors in the same order give the same index.
    """
    import faiss

    num, width = vectors.shape
    lists = max(1, min(round(1.5 * num**0.5), num // 39))
    index: Any = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 10
    step = max(1, num // (_TRAINING_VECTORS_PER_LIST * lists))
    index.train(np.ascontiguousarray(vectors[::step], np.float32))
    for start in range(0, num, 65_536):
        index.add(np.ascontiguousarray(vectors[start : start + 65_536], np.float32))
    faiss.write_index(index, str(path))


def read_neighbours(vectors: NDArray[Any], path: Path) -> Neighbours:
    """Vectors (N, D) with the IVF that was built from them at `path`, if they were many."""
    if not path.exists():
        return Neighbours(vectors)
    import faiss

    inverted = faiss.read_index(str(path))
    return Neighbours(vectors, inverted)  # type: ignore[arg-type]
