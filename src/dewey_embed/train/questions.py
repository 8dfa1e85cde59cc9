"""Samples → what a teacher is asked about them; its answers → their targets.

Questions are made on the host, in another process where there are several, and answered where the
teacher is, so that a GPU's answers never leave it.

A teacher that pools by mean says of a chunk the mean of what it says of its tokens. Where student
and teacher share a tokenizer those tokens are known, and each stretch of them, a part, is a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dewey_embed.errors import ConfigError
from dewey_embed.text.splitter import spans_from_characters
from dewey_embed.train.recipe import Recipe
from dewey_embed.train.samples import Sample
from dewey_embed.train.targets import Int
from dewey_embed.train.teachers.teacher import PartTeacher, Teacher, TokenRows, embed_unique
from dewey_embed.train.wholes import Wholes, plan_wholes
from dewey_embed.types import Tokens


class Parts(NamedTuple):
    """The parts of all chunks that are asked about.

    `asked` are the texts as the teacher's tokens, `part_tokens` of them to a part; `rows` (P,)
    int64 says which of its answers each part of a sample is, in the samples' order, and `bounds`
    (P_i, 2) for each sample in which of its tokens those lie.
    """

    asked: TokenRows
    part_tokens: int
    rows: Tensor
    bounds: list[Int]

    def pin_memory(self) -> Parts:
        """The same, its tensor where a GPU copies from without waiting."""
        return self._replace(rows=self.rows.pin_memory())


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask about some samples: `texts`, each once, and whose answer each is.

    `rows` (C + E,) int64 are the texts' numbers: of all samples' chunks, then of what their whole
    texts need beside those (`wholes`).
    """

    texts: list[str]
    rows: Tensor
    num_samples: int
    num_chunks: int
    wholes: Wholes
    parts: Parts | None

    def pin_memory(self) -> Questions:
        """The same, its tensors where a GPU copies from without waiting; DataLoader asks for it."""
        return replace(
            self,
            rows=self.rows.pin_memory(),
            wholes=self.wholes.pin_memory(),
            parts=None if self.parts is None else self.parts.pin_memory(),
        )


class Answers(NamedTuple):
    """Targets of all samples, float32 and of unit length: CLS (B, K), chunks (C, K), parts (P, K).

    They are in the samples' order, and where the teacher is.
    """

    cls: Tensor
    chunks: Tensor
    parts: Tensor


def questions(
    samples: Sequence[Sample], tokens: Sequence[Tokens], teacher: Teacher, recipe: Recipe
) -> Questions:
    """What `teacher` is to be asked about the samples, whose own tokens are `tokens`.

    Raises:
        ConfigError: parts are wanted of a teacher that cannot say what it pools.

    """
    chunks = [chunk for sample in samples for chunk in sample.chunks()]
    wholes = plan_wholes(samples, tokens, recipe.teacher)
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in (*chunks, *wholes.texts)]
    parts = None
    if (part_tokens := recipe.targets.part_tokens) is not None:
        if not isinstance(teacher, PartTeacher):
            raise ConfigError(
                f"targets.part_tokens is set, but the teacher {teacher.name} only gives whole "
                "vectors; leave it out"
            )
        asked = teacher.tokenize(list(places))
        parts = _parts(samples, tokens, rows, asked, part_tokens)
    return Questions(
        list(places), torch.tensor(rows), len(samples), len(chunks), wholes, parts
    )  # fmt: skip


def answers(teacher: Teacher, asked: Questions) -> Answers:
    """The targets of the samples that were asked about.

    Raises:
        TeacherError: the teacher answers with anything but one good vector a text.

    """
    if asked.parts is not None and isinstance(teacher, PartTeacher):
        vectors, stretches = teacher.embed_rows(asked.parts.asked, asked.parts.part_tokens)
        parts = stretches[asked.parts.rows.to(stretches.device, non_blocking=True)]
    else:
        vectors = torch.from_numpy(embed_unique(teacher, asked.texts))
        parts = vectors[:0]
    table = vectors[asked.rows.to(vectors.device, non_blocking=True)]
    return Answers(asked.wholes.mean(table, asked.num_samples), table[: asked.num_chunks], parts)


def _parts(
    samples: Sequence[Sample],
    tokens: Sequence[Tokens],
    rows: Sequence[int],
    asked: TokenRows,
    part_tokens: int,
) -> Parts:
    """Where the parts of all samples' chunks lie, in their tokens and among the teacher's answers.

    A chunk whose tokens the teacher sees differently, because it begins within a word, has none.
    """
    sizes = asked.sizes
    first_of = np.concatenate(([0], np.cumsum(-(-sizes // part_tokens))))
    bounds, places = [], []
    chunk = 0
    for sample, own in zip(samples, tokens, strict=True):
        found = [np.empty((0, 2), np.int64)]
        for span in spans_from_characters(own, sample.spans, num_chars=len(sample.text)):
            row = rows[chunk]
            chunk += 1
            if sizes[row] != span.num_tokens:
                continue
            starts = np.arange(span.token_start, span.token_end, part_tokens)
            ends = np.minimum(starts + part_tokens, span.token_end)
            found.append(np.stack((starts, ends), 1))
            places.append(np.arange(first_of[row], first_of[row + 1]))
        bounds.append(np.concatenate(found))
    whose = np.concatenate(places) if places else np.empty(0, np.int64)
    return Parts(asked, part_tokens, torch.from_numpy(whose), bounds)
