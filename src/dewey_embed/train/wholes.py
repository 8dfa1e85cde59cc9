"""Targets of whole texts, where the teacher reads less than a text has.

A short-context teacher sees only the beginning of a long text: a mean over windows sees all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.samples import Sample
from dewey_embed.train.targets import Floats
from dewey_embed.train.teachers.recipe import TeacherRecipe
from dewey_embed.train.teachers.teacher import Teacher, embed_unique
from dewey_embed.types import Tokens


@dataclass(frozen=True, slots=True)
class Wholes:
    """Of which vectors each sample's whole text is the mean.

    Rows count all samples' chunks first and then `texts`, about which the teacher is to be asked
    as well. `owners`, `rows` (W,) int64 and `weights` (W,) float32 are one entry for each piece.
    """

    texts: list[str]
    owners: Tensor
    rows: Tensor
    weights: Tensor

    def pin_memory(self) -> Wholes:
        """The same, its tensors where a GPU copies from without waiting."""
        owners, rows, weights = (
            part.pin_memory() for part in (self.owners, self.rows, self.weights)
        )
        return Wholes(self.texts, owners, rows, weights)

    def mean(self, vectors: Tensor, num_samples: int) -> Tensor:
        """(S, K) float32, unit length, of all rows' vectors (C + E, K)."""
        device = vectors.device
        owners, rows, weights = (
            part.to(device, non_blocking=True) for part in (self.owners, self.rows, self.weights)
        )
        sums = vectors.new_zeros((num_samples, vectors.shape[1]))
        sums.index_add_(0, owners, weights.unsqueeze(1) * vectors[rows])
        return F.normalize(sums, dim=-1)


def plan_wholes(
    samples: Sequence[Sample], tokens: Sequence[Tokens], recipe: TeacherRecipe
) -> Wholes:
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
    return Wholes(texts, torch.tensor(owners), torch.tensor(rows), torch.tensor(weights))


def whole_vectors(
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
    plan = plan_wholes(samples, tokens, recipe)
    vectors = np.concatenate([*chunk_vectors, embed_unique(teacher, plan.texts)])
    whole: Floats = plan.mean(torch.from_numpy(vectors), len(samples)).numpy()
    return whole
