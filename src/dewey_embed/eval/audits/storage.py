"""Ways to store the vectors of a corpus: bytes, scores, search time, and which are best."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from dewey_embed.config import CHUNK_TOKENS
from dewey_embed.errors import ConfigError
from dewey_embed.eval.scores import Doubles
from dewey_embed.eval.vector_cache import ChunkSize
from dewey_embed.quantization import to_precision, to_unit_float, truncate
from dewey_embed.scoring import multi_scores
from dewey_embed.types import Floats, Precision, Rows

DIMS = (1024, 512, 256, 128, 64)

NEAREST = 400
"""Vectors that a timed search looks for, as `dewey search` does before it ranks documents."""

QUERIES_TOGETHER = 128
KMEANS_ITERATIONS = 20

VectorKind = Literal["single", "clustered", "multi"]


@dataclass(frozen=True, kw_only=True)
class StorageVariant:
    """A way to store a corpus: a vector a document, or also those of clusters or of chunks."""

    size: ChunkSize | None = None
    clusters: int | None = None
    precision: Precision
    dim: int

    @property
    def kind(self) -> VectorKind:
        """Whether a document's only vector is its own, or the others are clusters or chunks."""
        if self.size is None:
            return "single"
        return "multi" if self.clusters is None else "clustered"

    @property
    def name(self) -> str:
        """The name of the variant, as beside its point in a plot."""
        if self.size is None:
            vectors = "1 vector"
        elif self.clusters is not None:
            vectors = f"{self.clusters} cluster{'s' * (self.clusters > 1)}"
        else:
            vectors = f"chunks {self.size.tokens}"
            if self.size.overlap_tokens != self.size.tokens // 4:
                vectors += f"/{self.size.overlap_tokens}"
        return f"{vectors}, {self.precision}, {self.dim}"


@dataclass(frozen=True, kw_only=True, eq=False)
class StorageCost:
    """The cost and the accuracy of a variant.

    `ndcg_scores` are nDCG@10 by query, `seconds` the search of one query.
    """

    variant: StorageVariant
    ndcg_scores: Doubles
    recall: float
    num_vectors: int
    num_bytes: int
    seconds: float

    @property
    def ndcg(self) -> float:
        """The mean nDCG@10."""
        return float(self.ndcg_scores.mean())


@dataclass(frozen=True, kw_only=True)
class StorageChoices:
    """The variants to measure: all at the first overlap, other overlaps at full precision only.

    `dims` None is the model's own width and every power of two from 1,024 to 64 below it.
    `clusters` are vectors a document, made from the chunks of `base`.

    Raises:
        ConfigError: an empty choice, an unknown precision, or fewer than one cluster.

    """

    chunk_tokens: tuple[int, ...] = (64, 128, 256, 512, 1024)
    overlaps: tuple[float, ...] = (0.25, 0.0, 0.5)
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8", "binary")
    dims: tuple[int, ...] | None = None
    clusters: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        for name in ("chunk_tokens", "overlaps", "precisions"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty; give at least one value")
        unknown = set(self.precisions) - set(get_args(Precision))
        if unknown:
            raise ConfigError(
                f"precision {', '.join(sorted(unknown))} is unknown; "
                f"accepted: {', '.join(get_args(Precision))}"
            )
        if min(self.clusters, default=1) < 1:
            raise ConfigError(f"clusters are {list(self.clusters)}; need at least 1 a document")

    @property
    def base(self) -> ChunkSize:
        """The chunk size of `dewey search`, or the smallest one; clusters are of its chunks."""
        is_tried = CHUNK_TOKENS in self.chunk_tokens
        return ChunkSize(CHUNK_TOKENS if is_tried else min(self.chunk_tokens), self.overlaps[0])

    def sizes(self) -> list[ChunkSize]:
        """Every chunk size with every overlap, those of the first overlap first."""
        return [ChunkSize(size, overlap) for overlap in self.overlaps for size in self.chunk_tokens]

    def widths(self, embedding_dim: int) -> tuple[int, ...]:
        """The dimensions to try, of vectors with `embedding_dim`.

        Raises:
            ConfigError: one of them is below 1 or more than the vectors have.

        """
        own = (embedding_dim, *(dim for dim in DIMS if dim < embedding_dim))
        dims = own if self.dims is None else self.dims
        if not dims or not all(0 < dim <= embedding_dim for dim in dims):
            raise ConfigError(
                f"dims are {list(dims)}; the model's vectors have {embedding_dim} dimensions"
            )
        return dims

    def variants(self, embedding_dim: int) -> list[StorageVariant]:
        """The variants by dimensions, then precision, then kind.

        Raises:
            ConfigError: impossible dimensions.

        """
        widths = self.widths(embedding_dim)
        variants = []
        for dim in widths:
            for precision in self.precisions:
                variant = partial(StorageVariant, precision=precision, dim=dim)
                variants.append(variant())
                variants += [variant(clusters=num, size=self.base) for num in sorted(self.clusters)]
                full = precision == self.precisions[0] and dim == widths[0]
                variants += [
                    variant(size=size)
                    for size in self.sizes()
                    if full or size.overlap == self.overlaps[0]
                ]
        return variants


class CorpusVectors(NamedTuple):
    """Vectors of N documents (N, D) and of their chunks or clusters (C, D), document by document.

    `counts` (N,) are each document's number of chunks. All float32, unit length.
    """

    documents: Floats
    chunks: Floats
    counts: Rows

    @classmethod
    def of(cls, documents: Floats, chunks: Sequence[Floats] | None = None) -> CorpusVectors:
        """The vectors of documents with those of their chunks, (C, D) for each, or with none."""
        chunks = [documents[:0]] * len(documents) if chunks is None else chunks
        counts = np.array([len(each) for each in chunks], np.int64)
        return cls(documents, np.concatenate([documents[:0], *chunks]), counts)


class StoredVectors:
    """A corpus's vectors at a precision and a width, compared exactly, without an index.

    `codes` holds the chunks' vectors and then the documents'.
    """

    def __init__(self, vectors: CorpusVectors, precision: Precision, dim: int) -> None:
        self.precision: Precision = precision
        self.dim = dim
        self.counts = vectors.counts
        self.num_chunks = len(vectors.chunks)
        both = np.concatenate((vectors.chunks, vectors.documents))
        self.codes: NDArray[Any] = to_precision(truncate(both, dim), precision)

    @property
    def num_vectors(self) -> int:
        """Vectors of chunks and of documents."""
        return len(self.codes)

    @property
    def num_bytes(self) -> int:
        """Bytes of all vectors, without ids and texts, which are the same for all variants."""
        return int(self.codes.nbytes)

    def scores(self, queries: Floats) -> Floats:
        """(Q, N) scores of queries (Q, D) of full width, as `Dewey.similarity` has them.

        They are those of `multi` for documents with chunks, else those of `single`.
        """
        query_vectors = truncate(queries, self.dim)
        floats = to_unit_float(self.codes, self.dim)
        chunks, documents = floats[: self.num_chunks], floats[self.num_chunks :]
        scores: Floats = query_vectors @ documents.T
        chunked = np.flatnonzero(self.counts)
        if not len(chunked):
            return scores
        starts = (np.cumsum(self.counts) - self.counts)[chunked]
        for first in range(0, len(query_vectors), QUERIES_TOGETHER):
            rows = slice(first, first + QUERIES_TOGETHER)
            best = np.maximum.reduceat(query_vectors[rows] @ chunks.T, starts, axis=1)
            scores[rows, chunked] = multi_scores(best, scores[rows, chunked])
        return scores

    def seconds(self, queries: Floats) -> float:
        """Median of one query's exact search by FAISS on one thread, over queries (Q, D).

        The search finds the nearest 400 vectors at this precision; ranking their documents
        afterwards takes equally long for every precision and width.
        """
        query_vectors = truncate(queries, self.dim)
        padding = self._index.d - self.dim
        query_vectors = np.ascontiguousarray(np.pad(query_vectors, ((0, 0), (0, padding))))
        num = min(NEAREST, self._index.ntotal)
        seconds = []
        with _one_thread():
            self._index.search(query_vectors[:1], num)
            for row in range(len(query_vectors)):
                began = time.perf_counter()
                self._index.search(query_vectors[row : row + 1], num)
                seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    @cached_property
    def _index(self) -> Any:
        """An index of the chunks' vectors, or of the documents' where there are no chunks."""
        return flat_index(self.codes[: self.num_chunks or None], self.precision, self.dim)


def cluster_centres(chunks: Floats, num: int, *, seed: int = 0) -> Floats:
    """(K, D), unit length: the centres of `num` clusters of chunk vectors (C, D).

    The chunks themselves where there are at most `num`; their mean direction where it is 1.
    Source: Dhillon and Modha 2001, "Concept decompositions", as FAISS computes it.
    """
    import faiss

    if len(chunks) <= num:
        return chunks
    kmeans: Any = faiss.Kmeans(
        chunks.shape[1], num, niter=KMEANS_ITERATIONS, spherical=True, seed=seed + 1,
        min_points_per_centroid=1, max_points_per_centroid=len(chunks),
    )  # fmt: skip
    kmeans.train(np.ascontiguousarray(chunks, np.float32))
    centres: Floats = kmeans.centroids
    return centres


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


def pareto_front(costs: Sequence[StorageCost]) -> list[StorageCost]:
    """The variants that no other beats in accuracy with at most as many bytes, fewest bytes first.

    Of equal ones all are there.
    """
    front: list[StorageCost] = []
    for cost in sorted(costs, key=lambda each: (each.num_bytes, -each.ndcg)):
        last = front[-1] if front else None
        alike = last and (last.num_bytes, last.ndcg) == (cost.num_bytes, cost.ndcg)
        if last is None or alike or cost.ndcg > last.ndcg:
            front.append(cost)
    return front


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run FAISS on one thread within the block."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
