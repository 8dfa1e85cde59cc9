"""Unit vectors ↔ fewer bits: float16, int8, binary; and cosines between whatever comes.

| precision | stored as                      | bytes a vector of D |
|-----------|--------------------------------|---------------------|
| float32   | itself                         | 4·D                 |
| float16   | itself                         | 2·D                 |
| int8      | v · 127 / max|v|, rounded      | D                   |
| binary    | the signs, 8 to a byte, − 128  | D / 8, rounded up   |

int8 scales each vector by its own largest value: cosines do not see a vector's scale, and no
calibration set is needed. Binary packs as Sentence Transformers' `binary` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dewey_embed.config import WHOLE_SHARE
from dewey_embed.errors import ConfigError
from dewey_embed.types import DocumentVectors, Precision


def to_precision(vectors: NDArray[np.float32], precision: Precision) -> NDArray[Any]:
    """The vectors (…, D) at a precision; the last axis is D, or D/8 for `binary`.

    Raises:
        ConfigError: an unknown precision.

    """
    if precision == "float32":
        return vectors
    if precision == "float16":
        return vectors.astype(np.float16)
    if precision == "int8":
        largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=1e-12)
        scaled: NDArray[np.float32] = np.rint(vectors * (127 / largest))
        return scaled.astype(np.int8)
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)
    raise ConfigError(
        f"precision {precision!r} is unknown; accepted: float32, float16, int8, binary"
    )


def narrow(vectors: NDArray[np.float32], dim: int | None) -> NDArray[np.float32]:
    """The first `dim` dimensions of the vectors (…, D), brought back to unit length."""
    return vectors if dim is None else to_unit_float(vectors[..., :dim], dim)


def cosines(
    queries: NDArray[Any],
    documents: Sequence[DocumentVectors] | NDArray[Any],
    dim: int,
    *,
    mode: Literal["multi", "single"],
) -> NDArray[np.float32]:
    """(Q, N) scores of queries (Q, D) with documents: the whole's cosine, or with the best chunk's.

    `multi` is the best chunk's cosine and, by `WHOLE_SHARE`, the whole's. A document without chunks
    is compared by its own vector; an array (N, D) row by row.

    Raises:
        ConfigError: an unknown mode, or vectors of another width than `dim`.

    """
    if mode not in ("multi", "single"):
        raise ConfigError(f"mode {mode!r} is unknown; accepted: multi, single")
    query_QD = to_unit_float(np.atleast_2d(queries), dim)
    if isinstance(documents, np.ndarray):
        return query_QD @ to_unit_float(np.atleast_2d(documents), dim).T
    scores_QN = np.empty((len(query_QD), len(documents)), np.float32)
    for column, document in enumerate(documents):
        scores_Q = query_QD @ to_unit_float(document.vector, dim)
        if mode == "multi" and len(document.chunks):
            best_Q = (query_QD @ to_unit_float(document.chunks, dim).T).max(axis=1)
            scores_Q = (1 - WHOLE_SHARE) * best_Q + WHOLE_SHARE * scores_Q
        scores_QN[:, column] = scores_Q
    return scores_QN


def to_unit_float(vectors: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """The vectors as unit float32 (…, D), whatever precision they were stored at.

    Raises:
        ConfigError: their width fits no precision of vectors of `dim`.

    """
    if vectors.dtype == np.int8 and vectors.shape[-1] == -(-dim // 8) != dim:
        bits = np.unpackbits((vectors.astype(np.int16) + 128).astype(np.uint8), axis=-1)
        vectors = bits[..., :dim].astype(np.float32) * 2 - 1
    if vectors.shape[-1] != dim:
        raise ConfigError(
            f"vectors of width {vectors.shape[-1]} and dtype {vectors.dtype} were not made by this "
            f"model, whose vectors have {dim} dimensions"
        )
    floats = vectors.astype(np.float32)
    norms = np.linalg.norm(floats, axis=-1, keepdims=True)
    return np.asarray(floats / np.maximum(norms, 1e-12), dtype=np.float32)
