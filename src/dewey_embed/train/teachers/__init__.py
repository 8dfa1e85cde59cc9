"""Teachers: the models whose vectors a student learns, by the kind that a recipe names.

A new kind is a module here, a row of `TEACHERS`, and a section beside those of recipe.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dewey_embed.train.recipe import (
    AnyTeacherRecipe,
    EndpointTeacher,
    PackageTeacher,
    SentenceTransformersTeacher,
)
from dewey_embed.train.teachers.teacher import Teacher

# Each imports its module when it is called: it needs packages that the others do not.


def _package(recipe: PackageTeacher, device: str | None) -> Teacher:
    from dewey_embed.train.teachers.minilm import MiniLM

    return MiniLM(max_tokens=recipe.max_tokens, device=device)


def _local(recipe: SentenceTransformersTeacher, device: str | None) -> Teacher:
    from dewey_embed.train.teachers.local import LocalTeacher

    return LocalTeacher(recipe, device=device)


def _endpoint(recipe: EndpointTeacher, device: str | None) -> Teacher:
    from dewey_embed.train.teachers.endpoint import RemoteTeacher

    return RemoteTeacher(recipe)


TEACHERS: Mapping[str, Callable[[Any, str | None], Teacher]] = {
    "package": _package,
    "sentence-transformers": _local,
    "endpoint": _endpoint,
}
"""What opens a teacher, by the `kind` of its section in a recipe."""


def open_teacher(recipe: AnyTeacherRecipe, *, device: str | None = None) -> Teacher:
    """The teacher of a recipe, loaded, or for an endpoint reached.

    `device` is where a local one runs: None is the GPU if there is one.

    Raises:
        MissingDependencyError: its package is not installed.
        ConfigError: its settings do not fit the model.
        TeacherError: it cannot be loaded or reached, or does not answer with vectors.

    """
    return TEACHERS[recipe.kind](recipe, device)
