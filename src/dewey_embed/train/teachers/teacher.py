"""The protocol of a teacher, and the check that every vector of a teacher passes.

A teacher is any model that embeds short texts; it knows nothing of chunks, shards or the student.
One wrong row among millions of targets is never found again, so all of them are checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from dewey_embed.errors import TeacherError
from dewey_embed.types import Floats, Rows

QUOTED_CHARACTERS = 40


def checked(vectors: Iterable[object], num_texts: int, dim: int | None, batch_name: str) -> Floats:
    """(num_texts, dim) float32, unit length; `dim` None takes the first vector's width.

    `batch_name` names the teacher and the texts in messages.

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
    """The teacher and its texts: their numbers, and how the first one begins."""
    if not texts:
        return f"{teacher_name}, no texts"
    start = texts[0][:QUOTED_CHARACTERS]
    dots = "…" if len(texts[0]) > QUOTED_CHARACTERS else ""
    return f"{teacher_name}, texts {first} to {first + len(texts) - 1} (the first: {start!r}{dots})"


NUM_SPECIAL = 2
"""CLS and SEP, which stand around every text."""


class Teacher(Protocol):
    """A model that embeds texts: K = `dim` numbers for each."""

    name: str
    dim: int

    def embed(self, texts: Sequence[str]) -> Floats:
        """(N, K) float32, unit length, in the order of the texts."""
        ...


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Texts as a teacher reads them: `ids` (T,) of all one after another, `lengths` (N,); int64.

    Of a text, the first tokens may be its context, which is read and has no segments: `contexts`
    (N,) says how many.
    """

    ids: Rows
    lengths: Rows
    contexts: Rows

    @property
    def sizes(self) -> Rows:
        """(N,) tokens of each text without CLS, its context and SEP."""
        sizes: Rows = self.lengths - NUM_SPECIAL - self.contexts
        return sizes


@runtime_checkable
class SegmentTeacher(Protocol):
    """A teacher that pools by mean, and can say what it pooled."""

    def tokenize(self, texts: Sequence[str], contexts: Sequence[str] = ()) -> TokenRows:
        """The texts as its model reads them; needs no device, so that any process may do it.

        With `contexts` (N), each text begins with its context, which ends in white space or "".
        """
        ...

    def embed_rows(self, rows: TokenRows, part_tokens: int | None) -> tuple[Tensor, Tensor]:
        """(N, K) and (P, K) float32, unit length, where its model is: texts, and their segments.

        A text has ⌈size/part_tokens⌉ of them, part j of its tokens after its context from
        j·part_tokens on, and those of all texts come one after another; without `part_tokens` there
        are none.
        """
        ...


def embed_unique(teacher: Teacher, texts: Sequence[str]) -> Floats:
    """(N, K) float32, unit length, in order; equal texts are embedded once.

    Raises:
        TeacherError: the teacher gives anything but one good vector a text.

    """
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    unique = list(places)
    if not unique:
        return np.empty((0, teacher.dim), np.float32)
    vectors = checked(
        teacher.embed(unique), len(unique), teacher.dim, batch_name(teacher.name, unique)
    )
    return vectors[[places[text] for text in texts]]
