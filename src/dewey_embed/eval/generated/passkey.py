"""LongEmbed's passkey test at any length."""

from __future__ import annotations

from random import Random

from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.generated.hidden import check_sizes, draw, hide_all
from dewey_embed.eval.generated.prose import refrain
from dewey_embed.train.keys import pass_keys

NUM_QUERIES = 50
CHARS_PER_TOKEN = 3.5526
CHARS_LESS = 32
"""A document of length L has about `CHARS_PER_TOKEN` · L − `CHARS_LESS` characters in LongEmbed."""
QUESTION_CHARS = 37.8
"""The mean over LongEmbed's eight lengths. Source of all three: mteb, LEMBPasskeyRetrieval."""


def passkey(
    length: int, *, num: int = NUM_QUERIES, num_documents: int | None = None, seed: int = 0
) -> RetrievalData:
    """A task of `num` questions, each for the pass key of one person among twice as many.

    `length` is in LongEmbed's tokens, 0.75 words each: 131,072 of them are about 123,000 tokens
    of a WordPiece tokenizer. Every document is the same refrain with one pass key at a random
    place of it. `num_documents` is 2 · `num` unless given. Keys, questions and depths are the same
    at every length, so that lengths compare.
    Source: LongEmbed, arXiv 2404.12096 §3.2; the text is made here, to mteb's published counts.

    Raises:
        ConfigError: a length too short for a key, `num` below 1, more people than names.

    """
    num_documents = check_sizes(length, num, num_documents)
    rng = Random(f"passkey {num} {num_documents} {seed}")
    keys = draw(pass_keys, num, num_documents, QUESTION_CHARS, rng)
    return hide_all(
        f"passkey-{length}",
        keys,
        num,
        length=length,
        num_chars=round(CHARS_PER_TOKEN * length - CHARS_LESS),
        filler=refrain,
        depths=[rng.random() for _ in keys],
        rng=rng,
    )
