"""An inverted file for many vectors: short codes in lists around centres, paged in as searched.

A first look compares a query with the codes in the lists whose centres are nearest, by FAISS's
fast scan: a hundredth of the time of a comparison in float32. What it finds are candidates;
scoring them is `vectors.py`'s.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.progress import Advance

if TYPE_CHECKING:
    import faiss

_TRAINING_VECTORS_PER_LIST = 32
_TRAINING_ROUNDS = 6
"""Few, for the centres are set again to the means of all that is in the lists."""

_LEAST_PROBED = 150
_PROBED_SHARE = 1 / 5
"""At least so many lists, and at least this share, are read for a first look: then recall@10 of
real questions is above 0.99 (benchmarks/search.py). Chunks, asked for their like, need fewer."""

_BLOCK_ROWS = 32_768
_PACKED = 32
"""Codes that the fast scan reads together: a list's are padded to a multiple."""


class IvfIndex:
    """N vectors (N, D) by their codes; says which rows are worth scoring."""

    def __init__(self, index: faiss.IndexIVF, num: int) -> None:
        self._index = index
        self._num = num

    def candidates(
        self, query: NDArray[np.float32], num: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """The `num` rows whose codes come nearest to a query (D,); fewer where there are fewer.

        `allowed` (N,) says which rows may answer; more lists are read until there are enough.
        """
        import faiss

        num = min(num, self._num if allowed is None else int(allowed.sum()))
        lists = self._index.nlist
        probes = min(lists, max(_LEAST_PROBED, round(lists * _PROBED_SHARE)))
        params = faiss.SearchParametersIVF()
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            params.sel = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
        while True:
            params.nprobe = probes
            _, found = self._index.search(query[None], num, params=params)
            rows: NDArray[np.int64] = found[found >= 0]
            if len(rows) == num or probes == lists:
                return rows
            probes = min(lists, 2 * probes)


def build_ivf(vectors: NDArray[Any], path: Path, advance: Advance = lambda _: None) -> None:
    """Write the centres of unit vectors (N, D), and how these are coded, to `path`.

    The codes lie beside it, in `.lists`. Vectors are read in blocks, front to back, and
    `advance` is told how many are done. The same vectors in the same order give the same files.
    """
    import faiss

    num, width = vectors.shape
    lists = max(1, min(round(1.5 * num**0.5), num // 39))
    parts = width if width % 2 else width // 2  # four bits for every two numbers
    index: Any = faiss.index_factory(width, f"IVF{lists},PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _TRAINING_ROUNDS
    index.cp.min_points_per_centroid = 1  # so few are meant, not worth a warning
    step = max(1, num // (_TRAINING_VECTORS_PER_LIST * lists))
    _train(index, np.ascontiguousarray(vectors[::step], np.float32))
    for start in range(0, num, _BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], np.float32)
        index.add(block)
        release(vectors)
        advance(len(block))
    owners = _write_lists(index, path.with_suffix(".lists"), num)
    centres = _means(vectors, owners, index.quantizer.reconstruct_n(0, lists))
    index.reset()
    # The codes do not depend on the centres. The means of all vectors, in place of those of the
    # few that the centres were trained on, halve the lists to be read for the same recall.
    index.quantizer.reset()
    index.quantizer.add(centres)
    faiss.write_index(index, str(path))


def _train(index: Any, sample: NDArray[np.float32]) -> None:
    """Set an index's centres and codes by a sample (S, D) of what it will hold."""
    import faiss

    faiss.Clustering(index.d, index.nlist, index.cp).train(sample, index.quantizer)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # hundreds of tiny clusterings: threads only wait for each other
    try:
        index.train(sample)
    finally:
        faiss.omp_set_num_threads(threads)


def read_ivf(path: Path, num: int) -> IvfIndex:
    """The inverted file of N vectors at `path`; its lists are paged in as they are searched.

    Raises:
        ValueError: the lists are not whole.

    """
    import faiss

    index: Any = faiss.read_index(str(path))
    lists = _mapped_lists(index, path.with_suffix(".lists"))
    index.replace_invlists(lists, True)
    lists.this.disown()
    return IvfIndex(index, num)


def _write_lists(index: Any, path: Path, num: int) -> NDArray[np.int32]:
    """The list (N,) of every row; writes the sizes of all lists, then the codes and rows of each.

    A list is laid out as FAISS's `OnDiskInvertedLists` expects: codes, then rows, of as many as
    it has room for.
    """
    import faiss

    lists = index.invlists
    sizes = np.array([lists.list_size(i) for i in range(index.nlist)], np.int64)
    owners = np.empty(num, np.int32)
    with path.open("wb") as file:
        file.write(sizes.tobytes().ljust(_header_bytes(len(sizes)), b"\0"))
        for i, (size, room) in enumerate(zip(sizes, _rooms(sizes), strict=True)):
            if not size:
                continue
            rows = np.zeros(room, np.int64)
            rows[:size] = faiss.rev_swig_ptr(lists.get_ids(i), int(size))
            owners[rows[:size]] = i
            codes = faiss.rev_swig_ptr(lists.get_codes(i), int(room * _code_bytes(index)))
            file.write(codes.tobytes())
            file.write(rows.tobytes())
    return owners


def _mapped_lists(index: Any, path: Path) -> Any:
    """FAISS's view of the lists written at `path`."""
    import faiss

    sizes = np.fromfile(path, np.int64, index.nlist)
    lists: Any = faiss.OnDiskInvertedLists(index.nlist, _code_bytes(index), str(path))
    lists.lists.clear()
    offset = _header_bytes(len(sizes))
    for size, room in zip(sizes.tolist(), _rooms(sizes).tolist(), strict=True):
        one = faiss.OnDiskOneList()
        one.size, one.capacity, one.offset = size, room, offset
        lists.lists.push_back(one)
        offset += room * (_code_bytes(index) + np.dtype(np.int64).itemsize)
    if len(sizes) != index.nlist or path.stat().st_size != offset:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, expected {offset:,}")
    lists.totsize = offset
    lists.read_only = True
    lists.prefetch_nthread = 0  # starting threads takes longer than reading from the page cache
    lists.do_mmap()
    return lists


def _code_bytes(index: Any) -> int:
    """Bytes of one vector's code within a packed block."""
    return int(index.M2 // 2)


def _header_bytes(num_lists: int) -> int:
    """Bytes before the first list: the sizes, up to a whole number of cache lines."""
    return -(-8 * num_lists // 64) * 64


def _rooms(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows that each list has room for."""
    rooms: NDArray[np.int64] = -(-sizes // _PACKED) * _PACKED
    return rooms


def _means(
    vectors: NDArray[Any], owners: NDArray[np.int32], centres: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean direction of each list's vectors; of an empty list, its centre."""
    sums = np.zeros_like(centres)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = owners[start : start + _BLOCK_ROWS]
        order = np.argsort(block, kind="stable")
        present, firsts = np.unique(block[order], return_index=True)
        ordered = np.asarray(vectors[start : start + _BLOCK_ROWS], np.float32)[order]
        sums[present] += np.add.reduceat(ordered, firsts, axis=0)
        release(vectors)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means: NDArray[np.float32] = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres)
    return means


def release(vectors: NDArray[Any]) -> None:
    """Let go of the memory that holds what was read or written of a mapped file."""
    if isinstance(vectors, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        vectors._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
