"""Unit vectors in fewer bits and fewer dimensions, and back.

| precision | stored as                      | bytes a vector of D |
|-----------|--------------------------------|---------------------|
| float32   | itself                         | 4·D                 |
| float16   | itself                         | 2·D                 |
| int8      | v · 127 / max|v|, rounded      | D                   |
| binary    | the signs, 8 to a byte, − 128  | D / 8, rounded up   |

int8 scales each vector by its own largest value, which leaves cosines alone and needs no
calibration set. Binary packs bits as Sentence Transformers' `binary` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError
from dewey_embed.types import Floats, Precision


def _to_int8(vectors: Floats) -> NDArray[np.int8]:
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=1e-12)
    scaled: Floats = np.rint(vectors * (127 / largest))
    return scaled.astype(np.int8)


def _to_bits(vectors: Floats) -> NDArray[np.int8]:
    return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)


_QUANTIZE: dict[Precision, Callable[[Floats], NDArray[Any]]] = {
    "float32": lambda vectors: vectors,
    "float16": lambda vectors: vectors.astype(np.float16),
    "int8": _to_int8,
    "binary": _to_bits,
}


def to_precision(vectors: Floats, precision: Precision) -> NDArray[Any]:
    """The vectors (…, D) at a precision; the last axis is D, or D/8 for `binary`.

    Raises:
        ConfigError: an unknown precision.

    """
    if precision not in _QUANTIZE:
        raise ConfigError(f"precision {precision!r} is unknown; accepted: {', '.join(_QUANTIZE)}")
    return _QUANTIZE[precision](vectors)


def truncate(vectors: Floats, dim: int | None) -> Floats:
    """The first `dim` dimensions of vectors (…, D), scaled to unit length; all if it is None."""
    return vectors if dim is None else to_unit_float(vectors[..., :dim], dim)


def to_unit_float(vectors: NDArray[Any], dim: int) -> Floats:
    """Vectors of any precision as unit float32 (…, D).

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
