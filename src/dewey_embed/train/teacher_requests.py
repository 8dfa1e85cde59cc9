"""Samples → the texts that a teacher embeds for them; its vectors → their targets.

Requests are made on the host, in another process where there are several, and vectors where the
teacher is, so that they never leave a GPU.

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
from dewey_embed.train.teachers.teacher import SegmentTeacher, Teacher, TokenRows, embed_unique
from dewey_embed.types import Floats, Rows, Tokens


@dataclass(frozen=True, slots=True)
class DocumentTargets:
    """Of which vectors each sample's whole text is the mean.

    Rows count all samples' chunks first and then `texts`, which the teacher embeds as well.
    `owners`, `rows` (W,) int64 and `weights` (W,) float32 are one entry for each piece.
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
        spans, new = sample.spans, list[tuple[int, int]]()
        chunks = range(first, first + len(spans))
        first += len(spans)
        if spans == [(0, len(sample.text))]:  # as of a sentence: embedded once
            pieces = list(zip(chunks, spans, strict=True))
        elif len(own) <= recipe.max_tokens:
            new = [(0, len(sample.text))]
        elif recipe.long_texts == "mean_of_chunks":
            pieces = list(zip(chunks, spans, strict=True))
        else:
            windows = split(sample.text, own, chunk_tokens=recipe.max_tokens)
            if recipe.long_texts == "truncate":
                windows = windows[:1]
            new = [(window.char_start, window.char_end) for window in windows]
        if new:
            pieces = list(enumerate(new, num_chunks + len(texts)))
            texts += [sample.text[start:end] for start, end in new]
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
    vectors_SK: Floats = plan.mean(torch.from_numpy(vectors), len(samples)).numpy()
    return vectors_SK


class Segments(NamedTuple):
    """The segments of all chunks of a request.

    `tokens` are the texts as the teacher's tokens, `part_tokens` of them to a segment; `rows` (P,)
    int64 are the rows of the samples' segments among the teacher's, in the samples' order,
    `chunks` (P,) int64 the chunk of each, and `bounds` (P_i, 2) their tokens in each sample.
    """

    tokens: TokenRows
    part_tokens: int
    rows: Tensor
    chunks: Tensor
    bounds: list[Rows]

    def pin_memory(self) -> Segments:
        """The same, its tensors where a GPU copies from without waiting."""
        return self._replace(rows=self.rows.pin_memory(), chunks=self.chunks.pin_memory())


class Emphasis(NamedTuple):
    """The vectors of contexts alone that are added to those of contexts with their chunks.

    `rows` (C,) int64 are the contexts' rows among the texts, `weights` (C, 1) float32 theirs: 0 for
    a chunk without a context.
    """

    rows: Tensor
    weights: Tensor

    def pin_memory(self) -> Emphasis:
        """The same, its tensors where a GPU copies from without waiting."""
        return Emphasis(self.rows.pin_memory(), self.weights.pin_memory())

    def added(self, targets: Tensor, vectors: Tensor, chunks: Tensor | slice) -> Tensor:
        """Targets (N, K) of `chunks`, whose contexts are among the texts' vectors; unit length."""
        rows, weights = (
            part.to(vectors.device, non_blocking=True)[chunks] for part in (self.rows, self.weights)
        )
        return F.normalize(targets + weights * vectors[rows], dim=-1)


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """The texts that the teacher embeds for some samples, each once, and whose vector each is.

    `rows` (C + E,) int64 are the texts' numbers: of all samples' chunks, then of what their whole
    texts need beside those (`documents`). With an `emphasis`, targets of chunks have more of their
    contexts than the teacher gives them.
    """

    texts: list[str]
    rows: Tensor
    num_samples: int
    num_chunks: int
    documents: DocumentTargets
    segments: Segments | None
    emphasis: Emphasis | None = None

    def pin_memory(self) -> TeacherRequest:
        """The same, its tensors where a GPU copies from without waiting; DataLoader asks for it."""
        return replace(
            self,
            rows=self.rows.pin_memory(),
            documents=self.documents.pin_memory(),
            segments=None if self.segments is None else self.segments.pin_memory(),
            emphasis=None if self.emphasis is None else self.emphasis.pin_memory(),
        )


class TeacherVectors(NamedTuple):
    """Targets of all samples, float32, unit length: CLS (B, K), chunks (C, K), segments (P, K).

    They are in the samples' order, and where the teacher is.
    """

    cls: Tensor
    chunks: Tensor
    segments: Tensor


def request_for(
    samples: Sequence[Sample], tokens: Sequence[Tokens], teacher: Teacher, recipe: Recipe
) -> TeacherRequest:
    """The request to `teacher` for the samples' targets; `tokens` are the student's.

    Raises:
        ConfigError: segments are wanted of a teacher that cannot say what it pools.

    """
    chunks = [chunk for sample in samples for chunk in sample.chunks()]
    prefixes = [prefix for sample in samples for prefix in sample.prefixes()]
    documents = plan_document_targets(samples, tokens, recipe.teacher)
    texts = [*zip(prefixes, chunks, strict=True), *(("", text) for text in documents.texts)]
    places: dict[tuple[str, str], int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    emphasis = _emphasis(samples, places, recipe)
    joined = ["".join(text) for text in places]
    segments = None
    if (part_tokens := recipe.targets.part_tokens) is not None:
        if not isinstance(teacher, SegmentTeacher):
            raise ConfigError(
                f"targets.part_tokens is set, but the teacher {teacher.name} only gives whole "
                "vectors; leave it out"
            )
        read = teacher.tokenize(joined, [prefix for prefix, _ in places])
        segments = _segments(samples, tokens, rows, read, part_tokens)
    return TeacherRequest(
        joined, torch.tensor(rows), len(samples), len(chunks), documents, segments, emphasis
    )  # fmt: skip


def teacher_vectors(teacher: Teacher, request: TeacherRequest) -> TeacherVectors:
    """The targets of a request's samples.

    Raises:
        TeacherError: the teacher gives anything but one good vector a text.

    """
    if request.segments is not None and isinstance(teacher, SegmentTeacher):
        vectors, segment_rows = teacher.embed_rows(
            request.segments.tokens, request.segments.part_tokens
        )
        segments = segment_rows[request.segments.rows.to(segment_rows.device, non_blocking=True)]
    else:
        vectors = torch.from_numpy(embed_unique(teacher, request.texts))
        segments = vectors[:0]
    table = vectors[request.rows.to(vectors.device, non_blocking=True)]
    if (emphasis := request.emphasis) is not None:
        table[: request.num_chunks] = emphasis.added(
            table[: request.num_chunks], vectors, slice(None)
        )
        if request.segments is not None:
            whose = request.segments.chunks.to(vectors.device, non_blocking=True)
            segments = emphasis.added(segments, vectors, whose)
    return TeacherVectors(
        request.documents.mean(table, request.num_samples), table[: request.num_chunks], segments
    )


def _emphasis(
    samples: Sequence[Sample], places: dict[tuple[str, str], int], recipe: Recipe
) -> Emphasis | None:
    """The emphasis on contexts that a recipe wants, whose texts are then among the places."""
    weight = recipe.context.emphasis if recipe.context else 0.0
    contexts = [each for one in samples for each in one.contexts or [""] * len(one.spans)]
    if not weight or not any(contexts):
        return None
    rows = [places.setdefault(("", each), len(places)) if each else 0 for each in contexts]
    weights = [[weight if each else 0.0] for each in contexts]
    return Emphasis(torch.tensor(rows), torch.tensor(weights, dtype=torch.float32))


def _segments(
    samples: Sequence[Sample],
    tokens: Sequence[Tokens],
    rows: Sequence[int],
    teacher_tokens: TokenRows,
    part_tokens: int,
) -> Segments:
    """The segments of all chunks: their tokens, and their rows among the teacher's vectors.

    A chunk whose tokens the teacher sees differently, because it begins within a word, has none.
    """
    sizes = teacher_tokens.sizes
    first_of = np.concatenate(([0], np.cumsum(-(-sizes // part_tokens))))
    bounds, places, chunks = [], [], []
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
            chunks.append(np.full(len(starts), chunk - 1))
        bounds.append(np.concatenate(found))
    rows_P, chunks_P = (
        torch.from_numpy(np.concatenate([np.empty(0, np.int64), *each]))
        for each in (places, chunks)
    )
    return Segments(teacher_tokens, part_tokens, rows_P, chunks_P, bounds)
