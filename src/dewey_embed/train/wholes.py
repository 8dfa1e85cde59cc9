"""Targets of whole texts, where the teacher reads less than a text has.

A short-context teacher sees only the beginning of a long text: a mean over windows sees all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dewey_embed.text.splitter import split
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.samples import Sample
from dewey_embed.train.targets import Floats
from dewey_embed.train.teachers.recipe import TeacherRecipe
from dewey_embed.train.teachers.teacher import Teacher, embed_unique


def whole_vectors(
    teacher: Teacher,
    samples: Sequence[Sample],
    chunk_vectors: Sequence[Floats],
    tokenizer: Tokenizer,
    recipe: TeacherRecipe,
) -> Floats:
    """(S, K) float32, unit length: the teacher's vector for each sample's whole text.

    Beyond `recipe.max_tokens`, as `recipe.long_texts` says: of the text's beginning, or the mean
    over its windows weighted by their length, or over its chunks likewise.
    """
    texts: list[str] = []
    owners: list[int] = []
    whole = np.zeros((len(samples), teacher.dim), np.float64)
    for row, tokens in enumerate(tokenizer.encode([sample.text for sample in samples])):
        sample, parts = samples[row], list[tuple[int, int]]()
        if sample.spans == [(0, len(sample.text))]:  # as of a sentence: nobody is asked twice
            whole[row] = chunk_vectors[row][0]
        elif len(tokens) <= recipe.max_tokens:
            parts = [(0, len(sample.text))]
        elif recipe.long_texts == "mean_of_chunks":
            lengths = np.array([end - start for start, end in sample.spans], np.float64)
            whole[row] = lengths @ chunk_vectors[row]
        else:
            windows = split(sample.text, tokens, chunk_tokens=recipe.max_tokens)
            if recipe.long_texts == "truncate":
                windows = windows[:1]
            parts = [(window.char_start, window.char_end) for window in windows]
        texts += [sample.text[start:end] for start, end in parts]
        owners += [row] * len(parts)
    if texts:
        lengths = np.array([len(text) for text in texts], np.float64)
        np.add.at(whole, owners, lengths[:, None] * embed_unique(teacher, texts))
    unit: Floats = (whole / np.linalg.norm(whole, axis=1, keepdims=True)).astype(np.float32)
    return unit
