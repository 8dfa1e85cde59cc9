"""What any teacher answers → vectors to train on, or the reason why not.

One wrong row among millions of targets is never found again, so every answer passes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dewey_embed.errors import TeacherError
from dewey_embed.train.targets import Floats

QUOTED_CHARACTERS = 40


def checked(vectors: Iterable[object], num_texts: int, dim: int | None, batch_name: str) -> Floats:
    """(num_texts, dim) float32, unit length; `dim` None takes the first vector's width.

    `batch_name` says in messages which teacher was asked about which texts.

    Raises:
        TeacherError: too few or too many vectors, another width, NaN, infinity or a zero vector.

    """
    try:
        rows = [np.atleast_1d(np.asarray(vector, np.float64)) for vector in vectors]
    except (TypeError, ValueError) as error:
        raise TeacherError(
            f"{batch_name}: got what is no vector of numbers ({error}), expected {num_texts} "
            "vectors; is it an embedding model?"
        ) from None
    if len(rows) != num_texts:
        raise TeacherError(
            f"{batch_name}: got {len(rows)} vectors, expected {num_texts}, one for each text; "
            "lower teacher.batch_texts if the teacher takes fewer at once"
        )
    if not rows:
        return np.empty((0, dim or 0), np.float32)
    width = len(rows[0]) if dim is None else dim
    for number, row in enumerate(rows):
        if row.shape != (width,):
            raise TeacherError(
                f"{batch_name}: got {row.size} dimensions for text {number} of the batch, "
                f"expected {width}; one teacher has one width: has the model changed?"
            )
    table = np.stack(rows)
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        raise TeacherError(
            f"{batch_name}: got NaN or infinity for text {int(finite.argmin())} of the batch, "
            "expected finite numbers; half precision often overflows: run the teacher in bfloat16 "
            "or float32"
        )
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    if not lengths.all():
        raise TeacherError(
            f"{batch_name}: got a vector of zeros for text {int(lengths.argmin())} of the batch, "
            "expected one with a direction; is the text empty to this teacher?"
        )
    unit: Floats = (table / lengths).astype(np.float32)
    return unit


def batch_name(teacher_name: str, texts: Sequence[str], first: int = 0) -> str:
    """The teacher, and which of the texts it was asked: numbers, and how the first one begins."""
    if not texts:
        return f"{teacher_name}, no texts"
    start = texts[0][:QUOTED_CHARACTERS]
    dots = "…" if len(texts[0]) > QUOTED_CHARACTERS else ""
    return f"{teacher_name}, texts {first} to {first + len(texts) - 1} (the first: {start!r}{dots})"
