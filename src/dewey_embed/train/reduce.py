"""A teacher's vectors of K dimensions → targets of the student's D.

The targets keep what the losses read, the similarities between texts, as well as D dimensions can.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError, TargetsError
from dewey_embed.files import DAMAGED_ARCHIVE, atomic_file
from dewey_embed.types import Floats

Kind = Literal["none", "truncate", "pca"]

ROWS_AT_ONCE = 4096
ANEW = "make the targets anew in another folder"

SAMPLE_ROWS = 2000
"""Texts whose similarities `structure_kept` compares: two million pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """How vectors of `teacher_size` K become vectors of `size` D; `components` (D, K) for PCA.

    `truncate` keeps the first D numbers, which suits a teacher trained for it (Matryoshka).
    """

    kind: Kind
    teacher_size: int
    size: int
    components: Floats | None = None

    def apply(self, vectors: Floats) -> Floats:
        """(N, D) float32, unit length, of vectors (N, K).

        Raises:
            ConfigError: vectors of another width, or one of which nothing is left.

        """
        if vectors.ndim != 2 or vectors.shape[1] != self.teacher_size:
            raise ConfigError(
                f"vectors of shape {vectors.shape} where the reduction takes (N, "
                f"{self.teacher_size}); it was fitted for another teacher: make the targets anew"
            )
        kept = vectors[:, : self.size] if self.components is None else vectors @ self.components.T
        lengths = np.linalg.norm(kept.astype(np.float64), axis=1, keepdims=True)
        if not lengths.all():
            raise ConfigError(
                f"of vector {int(lengths.argmin())} nothing is left in {self.size} of its "
                f"{self.teacher_size} dimensions; set teacher.reduce to 'pca', with more pca_texts"
            )
        unit: Floats = (kept / lengths).astype(np.float32)
        return unit

    def save(self, path: Path) -> None:
        """Write `path` (.npz), complete or not at all: several processes may do so at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        components = self.components
        if components is None:
            components = np.empty((0, self.teacher_size), np.float32)
        with atomic_file(path, sync=True) as draft, draft.open("wb") as file:
            np.savez(
                file,
                kind=np.array(self.kind),
                sizes=np.array([self.teacher_size, self.size]),
                components=components,
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """The reduction that `save` wrote.

        Raises:
            TargetsError: the file is missing or damaged.

        """
        try:
            with np.load(path) as stored:
                kind = stored["kind"].item()
                teacher_size, size = (int(number) for number in stored["sizes"])
                components = stored["components"]
        except DAMAGED_ARCHIVE as error:
            raise TargetsError(
                f"{path}: no reduction can be read from it ({error}); {ANEW}"
            ) from None
        shape = (size, teacher_size) if kind == "pca" else (0, teacher_size)
        if kind not in get_args(Kind) or not 0 < size <= teacher_size or components.shape != shape:
            raise TargetsError(
                f"{path}: holds {kind!r} from {teacher_size} to {size} dimensions with components "
                f"{components.shape}, which is no reduction; {ANEW}"
            )
        if components.dtype != np.float32 or not np.isfinite(components).all():
            raise TargetsError(f"{path}: its components are no finite float32 numbers; {ANEW}")
        return cls(kind, teacher_size, size, components if kind == "pca" else None)


def fit_reduction(kind: Kind, vectors: Floats, size: int) -> Reduction:
    """The reduction of vectors (N, K) to `size` D; only PCA looks at more than their width.

    Raises:
        ConfigError: D is above K, another than K with `none`, or above N with `pca`.

    """
    num_vectors, teacher_size = vectors.shape
    if size > teacher_size:
        raise ConfigError(
            f"the teacher has {teacher_size} dimensions, the student {size}: vectors can be made "
            f"smaller, not larger; set the student's vector_size to {teacher_size} or less"
        )
    if kind == "pca":
        if num_vectors < size:
            raise ConfigError(
                f"pca to {size} dimensions needs at least as many texts, got {num_vectors}; raise "
                "teacher.pca_texts or give a larger corpus"
            )
        return Reduction("pca", teacher_size, size, principal_directions(vectors, size))
    if kind == "none" and size != teacher_size:
        raise ConfigError(
            f"the teacher has {teacher_size} dimensions, the student {size}: set teacher.reduce to "
            "'truncate' or 'pca'"
        )
    return Reduction(kind, teacher_size, size)


def reduction_to(axes: Floats, kind: Kind, teacher_size: int) -> Reduction:
    """The reduction to the axes (K, D) in which a student's vectors stand already.

    Raises:
        ConfigError: the axes lie in another space than that of the teacher's K dimensions, or
            `kind` is to cut its vectors.

    """
    if kind == "truncate":
        raise ConfigError(
            "teacher.reduce is 'truncate', but the base checkpoint's vectors stand in axes of "
            "their own (teacher_axes.safetensors), to which all of the teacher's dimensions are "
            "turned; set it to 'none'"
        )
    if len(axes) != teacher_size:
        raise ConfigError(
            f"the base checkpoint's axes lie in a space of {len(axes)} dimensions, the teacher has "
            f"{teacher_size}; take the teacher that it was trained by, or give it a new head by "
            "another base.vector_size"
        )
    return Reduction("pca", teacher_size, axes.shape[1], np.ascontiguousarray(axes.T))


def structure_kept(before: Floats, after: Floats) -> float:
    """Pearson's correlation of all pairs' similarities before (N, K) and after (N, D); at best 1.

    Both of unit length; of more than 2000 rows it takes 2000, evenly spaced.

    Raises:
        ValueError: the rows do not belong together, or are too few to be compared.

    """
    if len(before) != len(after) or len(before) < 3:
        raise ValueError(
            f"{len(before)} vectors before and {len(after)} after; give 3 or more of the same texts"
        )
    rows = np.linspace(0, len(before) - 1, min(len(before), SAMPLE_ROWS)).astype(np.intp)
    above = np.triu_indices(len(rows), k=1)
    first, second = ((part[rows] @ part[rows].T)[above] for part in (before, after))
    return float(np.corrcoef(first, second)[0, 1])


def principal_directions(vectors: Floats, size: int) -> Floats:
    """(D, K) orthonormal: the eigenvectors of the second moments with the greatest eigenvalues.

    Not centred, unlike the usual PCA: the losses read dot products of unit vectors, and these D
    directions are those in which the dot products of all pairs change least. Subtracting the mean
    would change every one of them before a dimension is dropped.
    Source: Eckart and Young 1936, applied to the matrix of dot products.
    """
    width = vectors.shape[1]
    moments: NDArray[np.float64] = np.zeros((width, width))
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        block = vectors[first : first + ROWS_AT_ONCE].astype(np.float64)
        moments += block.T @ block
    _, columns = np.linalg.eigh(moments)  # eigenvalues ascend
    directions = columns[:, ::-1][:, :size].T
    # An eigenvector's sign is arbitrary: settled, so that two machines agree.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    settled: Floats = np.ascontiguousarray(directions * np.sign(largest), np.float32)
    return settled
