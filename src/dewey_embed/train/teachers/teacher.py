"""Whoever tells the student what a chunk's vector is: any model that embeds short texts.

A teacher knows nothing of chunks, shards or the student. Three kinds come with Dewey; any object
with a name, a width and `embed` is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from dewey_embed.train.targets import Floats, Int
from dewey_embed.train.teachers import recipe as recipes
from dewey_embed.train.teachers.answers import batch_name, checked

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
    """Texts as a teacher reads them: `ids` (T,) of all one after another, `lengths` (N,); int64."""

    ids: Int
    lengths: Int

    @property
    def sizes(self) -> Int:
        """(N,) tokens of each text without CLS and SEP."""
        sizes: Int = self.lengths - NUM_SPECIAL
        return sizes


@runtime_checkable
class PartTeacher(Protocol):
    """A teacher that pools by mean, and can say what it pooled."""

    def tokenize(self, texts: Sequence[str]) -> TokenRows:
        """The texts as its model reads them; needs no device, so that any process may do it."""
        ...

    def embed_rows(self, rows: TokenRows, part_tokens: int | None) -> tuple[Tensor, Tensor]:
        """(N, K) and (P, K) float32, unit length, where its model is: texts, and their parts.

        A text has ⌈size/part_tokens⌉ of them, part j of its tokens from j·part_tokens on, and
        those of all texts come one after another; without `part_tokens` there are none.
        """
        ...


def open_teacher(recipe: recipes.Teacher, *, device: str | None = None) -> Teacher:
    """The teacher of a recipe, loaded, or for an endpoint reached, and ready to be asked.

    `device` is where a local one runs: None is the GPU if there is one.

    Raises:
        MissingDependencyError: its package is not installed.
        ConfigError: its settings do not fit the model.
        TeacherError: it cannot be loaded or reached, or does not answer with vectors.

    """
    # Imported here: each needs packages that the others do not.
    if isinstance(recipe, recipes.PackageTeacher):
        from dewey_embed.train.teachers.minilm import MiniLM

        return MiniLM(max_tokens=recipe.max_tokens, device=device)
    if isinstance(recipe, recipes.SentenceTransformersTeacher):
        from dewey_embed.train.teachers.local import LocalTeacher

        return LocalTeacher(recipe, device=device)
    from dewey_embed.train.teachers.endpoint import RemoteTeacher

    return RemoteTeacher(recipe)


def embed_unique(teacher: Teacher, texts: Sequence[str]) -> Floats:
    """(N, K) float32, unit length, in order; equal texts are asked about once.

    Raises:
        TeacherError: the teacher answers with anything but one good vector a text.

    """
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    unique = list(places)
    if not unique:
        return np.empty((0, teacher.dim), np.float32)
    vectors = checked(
        teacher.embed(unique), len(unique), teacher.dim, batch_name(teacher.name, unique)
    )
    return vectors[[places[text] for text in texts]]
