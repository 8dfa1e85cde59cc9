"""LongEmbed's needle test at any length, with facts and an essay of our own."""

from __future__ import annotations

from random import Random

import numpy as np

from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.generated.facts import facts
from dewey_embed.eval.generated.hidden import check_sizes, draw, hide_all
from dewey_embed.eval.generated.prose import essay

NUM_QUERIES = 50
CHARS = {
    256: 1013.1, 512: 2009.93, 1024: 4069.87, 2048: 8453.82, 4096: 17394.8, 8192: 35202.82,
    16384: 72054.8, 32768: 141769.8,
}  # fmt: skip
"""Mean characters of a document by length. Source: mteb, LEMBNeedleRetrieval."""
QUESTION_CHARS = {
    256: 60.48, 512: 57.3, 1024: 58.28, 2048: 59.92, 4096: 55.86, 8192: 59.6, 16384: 59.12,
    32768: 58.34,
}  # fmt: skip
"""Mean characters of a question by length. Source: mteb, LEMBNeedleRetrieval."""


def needle(
    length: int, *, num: int = NUM_QUERIES, num_documents: int | None = None, seed: int = 0
) -> RetrievalData:
    """A task of `num` questions, each for one fact among twice as many, hidden in an essay.

    `length` is in LongEmbed's tokens, as in `passkey`. Every document is the same essay with one
    fact between two of its sentences; `num_documents` is 2 · `num` unless given.
    Source: LongEmbed, arXiv 2404.12096 §3.2. Its facts are GPT-4's and its essays Paul Graham's;
    here both are made up, to mteb's published counts, so scores are near LongEmbed's, not equal.

    Raises:
        ConfigError: a length too short for a fact, `num` below 1, more facts than there are.

    """
    num_documents = check_sizes(length, num, num_documents)
    rng = Random(f"needle {length} {num} {num_documents} {seed}")
    found = draw(facts, num, num_documents, question_chars(length), rng)
    return hide_all(
        f"needle-{length}",
        found,
        num,
        length=length,
        num_chars=essay_chars(length),
        filler=essay,
        depths=[rng.random() for _ in found],
        rng=rng,
    )


def essay_chars(length: int) -> int:
    """Characters of a document of a length: LongEmbed's, and in proportion between and beyond."""
    longest = max(CHARS)
    if length > longest:
        return round(CHARS[longest] / longest * length)
    return round(float(np.interp(length, [0, *CHARS], [0.0, *CHARS.values()])))


def question_chars(length: int) -> float:
    """Mean characters of a question: LongEmbed's at its lengths, elsewhere their mean."""
    return QUESTION_CHARS.get(length, sum(QUESTION_CHARS.values()) / len(QUESTION_CHARS))
