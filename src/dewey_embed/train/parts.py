"""Targets within chunks: the teacher's means over stretches of a few tokens.

A teacher that pools by mean says of a chunk the mean of what it says of its tokens. Where student
and teacher share a tokenizer those tokens are known, and each stretch of them is a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from dewey_embed.errors import ConfigError
from dewey_embed.text.splitter import spans_from_characters
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.samples import Sample
from dewey_embed.train.targets import Floats, Int
from dewey_embed.train.teachers.answers import batch_name, checked
from dewey_embed.train.teachers.teacher import Teacher


@runtime_checkable
class PartTeacher(Protocol):
    """A teacher that pools by mean, and can say what it pooled."""

    def embed_parts(
        self, texts: Sequence[str], part_tokens: int
    ) -> tuple[Floats, list[int], list[Floats]]:
        """Vectors (N, K), every text's number of tokens, and its parts (⌈tokens/part_tokens⌉, K).

        All of unit length; part j is of the tokens from j·part_tokens on.
        """
        ...


def chunk_and_part_vectors(
    teacher: Teacher, samples: Sequence[Sample], tokenizer: Tokenizer, part_tokens: int
) -> list[tuple[Floats, Int, Floats]]:
    """For each sample its chunks' vectors (C, K), its parts' bounds (P, 2) and vectors (P, K).

    Bounds are in the sample's tokens. A chunk whose tokens the teacher sees differently, because
    it begins within a word, has no parts.

    Raises:
        ConfigError: the teacher cannot say what it pools.

    """
    if not isinstance(teacher, PartTeacher):
        raise ConfigError(
            f"targets.part_tokens is set, but the teacher {teacher.name} only gives whole vectors; "
            "leave it out"
        )
    texts = [chunk for sample in samples for chunk in sample.chunks()]
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    vectors, sizes, parts = teacher.embed_parts(list(rows), part_tokens)
    where = batch_name(teacher.name, list(rows))
    vectors = checked(vectors, len(rows), teacher.dim, where)
    parts = [checked(one, len(one), teacher.dim, where) for one in parts]
    found = []
    for sample, tokens in zip(
        samples, tokenizer.encode([sample.text for sample in samples]), strict=True
    ):
        own = [rows[chunk] for chunk in sample.chunks()]
        bounds, inner = [], [np.empty((0, vectors.shape[1]), np.float32)]
        spans = spans_from_characters(tokens, sample.spans, num_chars=len(sample.text))
        for row, span in zip(own, spans, strict=True):
            if sizes[row] != span.num_tokens:
                continue
            starts = np.arange(span.token_start, span.token_end, part_tokens)
            ends = np.minimum(starts + part_tokens, span.token_end)
            bounds.append(np.stack((starts, ends), 1))
            inner.append(parts[row])
        whole = np.concatenate(bounds) if bounds else np.empty((0, 2), np.int64)
        found.append((vectors[own], whole.astype(np.int64), np.concatenate(inner)))
    return found
