"""Vectors as the values of an answer: lists of numbers, or base64 of their bytes.

| name      | a vector of D dimensions becomes                            | bytes          |
|-----------|-------------------------------------------------------------|----------------|
| `float`   | itself                                                      | float32, 4·D   |
| `int8`    | scaled by its own largest value to −127…127, rounded        | int8, D        |
| `uint8`   | the same plus 128                                           | uint8, D       |
| `binary`  | its signs, 8 to a byte, minus 128                           | int8, D / 8    |
| `ubinary` | its signs, 8 to a byte, the first dimension the highest bit | uint8, D / 8   |

Bytes are little-endian. The scale of `int8` and `uint8` differs from vector to vector and is not
sent, because cosines do not need it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dewey_embed.quantization import to_precision, truncate
from dewey_embed.serve.errors import ApiError
from dewey_embed.types import Floats

Dtype = Literal["float", "int8", "uint8", "binary", "ubinary"]


def _shifted(signed: NDArray[np.int8]) -> NDArray[np.uint8]:
    return (signed.astype(np.int16) + 128).astype(np.uint8)


_QUANTIZE: dict[Dtype, Callable[[Floats], NDArray[Any]]] = {
    "float": lambda vectors: vectors.astype("<f4"),
    "int8": lambda vectors: to_precision(vectors, "int8"),
    "uint8": lambda vectors: _shifted(to_precision(vectors, "int8")),
    "binary": lambda vectors: to_precision(vectors, "binary"),
    "ubinary": lambda vectors: _shifted(to_precision(vectors, "binary")),
}


FORMATS: Mapping[str, tuple[Dtype, bool]] = {
    "float": ("float", False),
    "int8": ("int8", False),
    "uint8": ("uint8", False),
    "binary": ("binary", False),
    "ubinary": ("ubinary", False),
    "base64": ("float", True),
    "base64_int8": ("int8", True),
    "base64_binary": ("ubinary", True),
}
"""Names of formats of all APIs → what a vector becomes, and whether its bytes are in base64."""


def encoded(vectors: Floats, dtype: Dtype = "float", *, in_base64: bool = False) -> list[Any]:
    """The values of each of the vectors (N, D).

    >>> encoded(np.array([[0.6, -0.8]], np.float32), "int8")
    [[95, -127]]
    >>> encoded(np.array([[0.6, -0.8]], np.float32), "int8", in_base64=True)
    ['X4E=']
    """
    rows = _QUANTIZE[dtype](vectors)
    if in_base64:
        return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]
    values: list[Any] = rows.tolist()
    return values


def narrowed(vectors: Floats, dimensions: int | None, *, field: str = "dimensions") -> Floats:
    """The first dimensions of vectors (N, D), scaled to unit length; all if it is None.

    Raises:
        ApiError: the vectors have fewer dimensions than that.

    """
    refuse_dimensions(dimensions, vectors.shape[-1], field=field)
    return truncate(vectors, dimensions)


def refuse_dimensions(dimensions: int | None, width: int, *, field: str = "dimensions") -> None:
    """Refuse more dimensions than vectors have.

    Raises:
        ApiError: with both numbers.

    """
    if dimensions is not None and dimensions > width:
        raise ApiError(
            400, f"{field} is {dimensions:,}; this model's vectors have {width:,}: ask for no more"
        )
