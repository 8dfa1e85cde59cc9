"""Samples → the texts that a teacher is to embed for them; its vectors → their targets.

Requests are made on the host, in another process where there are several, and answered where the
teacher is, so that vectors never leave a GPU.

A short-context teacher sees only the beginning of a long text: the document's target can be a mean
over windows, which sees all of it. A teacher that pools by mean gives a chunk the mean of its
vectors of the chunk's tokens; where student and teacher share a tokenizer those tokens are known,
and the mean over each segment of them is a target, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from dewey_embed.errors import ConfigError
from dewey_embed.text.splitter import spans_from_characters, split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.recipe import Recipe, TeacherRecipe
from dewey_embed.train.samples import Sample
from dewey_embed.train.targets import Floats, Int
from dewey_embed.train.teachers.teacher import PartTeacher, Teacher, TokenRows, embed_unique
from dewey_embed.types import Tokens


@dataclass(frozen=True, slots=True)
class DocumentTargets:
    """Of which vectors each sample's whole text is the mean.

    Rows count all samples' chunks first and then `texts`, about which the teacher is to be asked
    as well. `owners`, `rows` (W,) int64 and `weights` (W,) float32 are one entry for each piece.
    """

    texts: list[str]
    owners: Tensor
    rows: Tensor
    weights: Tensor

    def pin_memory(self) -> DocumentTargets:
        """The same, its tensors where a GPU copies from without waiting."""
        owners, rows, weights = (
            part.pin_memory() for part in (self.owners, self.rows, self.weights)
        )
        return DocumentTargets(self.texts, owners, rows, weights)

    def mean(self, vectors: Tensor, num_samples: int) -> Tensor:
        """(S, K) float32, unit length, of all rows' vectors (C + E, K)."""
        device = vectors.device
        owners, rows, weights = (
            part.to(device, non_blocking=True) for part in (self.owners, self.rows, self.weights)
        )
        sums = vectors.new_zeros((num_samples, vectors.shape[1]))
        sums.index_add_(0, owners, weights.unsqueeze(1) * vectors[rows])
        return F.normalize(sums, dim=-1)


def plan_document_targets(
    samples: Sequence[Sample], tokens: Sequence[Tokens], recipe: TeacherRecipe
) -> DocumentTargets:
    """What the samples' whole texts are made of; `tokens` are the student's.

    Beyond `recipe.max_tokens`, as `recipe.long_texts` says: of the text's beginning, or of its
    windows weighted by their length, or of its chunks likewise.
    """
    texts: list[str] = []
    owners: list[int] = []
    rows: list[int] = []
    weights: list[float] = []
    num_chunks = sum(len(sample.spans) for sample in samples)
    first = 0
    for owner, (sample, own) in enumerate(zip(samples, tokens, strict=True)):
        spans, asked = sample.spans, list[tuple[int, int]]()
        chunks = range(first, first + len(spans))
        first += len(spans)
        if spans == [(0, len(sample.text))]:  # as of a sentence: nobody is asked twice
            pieces = list(zip(chunks, spans, strict=True))
        elif len(own) <= recipe.max_tokens:
            asked = [(0, len(sample.text))]
        elif recipe.long_texts == "mean_of_chunks":
            pieces = list(zip(chunks, spans, strict=True))
        else:
            windows = split(sample.text, own, chunk_tokens=recipe.max_tokens)
            if recipe.long_texts == "truncate":
                windows = windows[:1]
            asked = [(window.char_start, window.char_end) for window in windows]
        if asked:
            new = range(num_chunks + len(texts), num_chunks + len(texts) + len(asked))
            pieces = list(zip(new, asked, strict=True))
            texts += [sample.text[start:end] for start, end in asked]
        owners += [owner] * len(pieces)
        rows += [row for row, _ in pieces]
        weights += [float(end - start) for _, (start, end) in pieces]
    return DocumentTargets(texts, torch.tensor(owners), torch.tensor(rows), torch.tensor(weights))


def document_vectors_of(
    teacher: Teacher,
    samples: Sequence[Sample],
    chunk_vectors: Sequence[Floats],
    tokenizer: Tokenizer,
    recipe: TeacherRecipe,
) -> Floats:
    """(S, K) float32, unit length: the teacher's vector for each sample's whole text.

    `chunk_vectors` (C, K) are what it says of each sample's chunks.
    """
    tokens = tokenizer.encode([sample.text for sample in samples])
    plan = plan_document_targets(samples, tokens, recipe)
    vectors = np.concatenate([*chunk_vectors, embed_unique(teacher, plan.texts)])
    whole: Floats = plan.mean(torch.from_numpy(vectors), len(samples)).numpy()
    return whole


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
class TeacherRequest:
    """What to ask about some samples: `texts`, each once, and whose answer each is.

    `rows` (C + E,) int64 are the texts' numbers: of all samples' chunks, then of what their whole
    texts need beside those (`wholes`).
    """

    texts: list[str]
    rows: Tensor
    num_samples: int
    num_chunks: int
    wholes: DocumentTargets
    parts: Parts | None

    def pin_memory(self) -> TeacherRequest:
        """The same, its tensors where a GPU copies from without waiting; DataLoader asks for it."""
        return replace(
            self,
            rows=self.rows.pin_memory(),
            wholes=self.wholes.pin_memory(),
            parts=None if self.parts is None else self.parts.pin_memory(),
        )


class TeacherVectors(NamedTuple):
    """Targets of all samples, float32 and of unit length: CLS (B, K), chunks (C, K), parts (P, K).

    They are in the samples' order, and where the teacher is.
    """

    cls: Tensor
    chunks: Tensor
    parts: Tensor


def questions(
    samples: Sequence[Sample], tokens: Sequence[Tokens], teacher: Teacher, recipe: Recipe
) -> TeacherRequest:
    """What `teacher` is to be asked about the samples, whose own tokens are `tokens`.

    Raises:
        ConfigError: parts are wanted of a teacher that cannot say what it pools.

    """
    chunks = [chunk for sample in samples for chunk in sample.chunks()]
    wholes = plan_document_targets(samples, tokens, recipe.teacher)
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
    return TeacherRequest(
        list(places), torch.tensor(rows), len(samples), len(chunks), wholes, parts
    )  # fmt: skip


def answers(teacher: Teacher, asked: TeacherRequest) -> TeacherVectors:
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
    return TeacherVectors(
        asked.wholes.mean(table, asked.num_samples), table[: asked.num_chunks], parts
    )


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
