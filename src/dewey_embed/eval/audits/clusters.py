"""Many vectors of a document → k of them, by spherical k-means over its chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ITERATIONS = 20


def clustered(chunks: Floats, num: int, *, seed: int = 0) -> Floats:
    """(K, D), unit length: the centres of `num` clusters of chunk vectors (C, D).

    The chunks themselves where there are no more than `num`; their mean direction where it is 1.
    Source: Dhillon and Modha 2001, "Concept decompositions", as FAISS computes it.
    """
    import faiss

    if len(chunks) <= num:
        return chunks
    means: Any = faiss.Kmeans(
        chunks.shape[1], num, niter=ITERATIONS, spherical=True, seed=seed + 1,
        min_points_per_centroid=1, max_points_per_centroid=len(chunks),
    )  # fmt: skip
    means.train(np.ascontiguousarray(chunks, np.float32))
    centres: Floats = means.centroids
    return centres
