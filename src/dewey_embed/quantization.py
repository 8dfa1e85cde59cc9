"""Unit vectors in fewer bits (float16, int8, binary) and fewer dimensions, and back again.

| precision | stored as                      | bytes a vector of D |
|-----------|--------------------------------|---------------------|
| float32   | itself                         | 4·D                 |
| float16   | itself                         | 2·D                 |
| int8      | v · 127 / max|v|, rounded      | D                   |
| binary    | the signs, 8 to a byte, − 128  | D / 8, rounded up   |

int8 scales each vector by its own largest value: a cosine does not depend on a vector's scale, and
no calibration set is needed. Binary packs bits as Sentence Transformers' `binary` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError
from dewey_embed.types import Precision


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


def truncate(vectors: NDArray[np.float32], dim: int | None) -> NDArray[np.float32]:
    """The first `dim` dimensions of vectors (…, D), scaled to unit length; all if it is None."""
    return vectors if dim is None else to_unit_float(vectors[..., :dim], dim)


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
