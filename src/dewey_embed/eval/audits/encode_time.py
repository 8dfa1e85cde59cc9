"""How long a model takes for one vector a document, and how much longer with chunks' vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from dewey_embed.encoder import Dewey
from dewey_embed.eval.audits.cuts import Cut
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.progress import progress_bar
from dewey_embed.types import DocumentVectors

TIMED_TOKENS = 8192
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class EncodeTime:
    """The fastest and the slowest of several rounds over the same documents, in seconds.

    `cut` is that of the chunks, None where there are none or those of several cuts.
    """

    name: str
    cut: Cut | None
    seconds: float
    slowest: float
    num_tokens: int
    num_vectors: int


def encode_times(
    model: Dewey, data: RetrievalData, cuts: Sequence[Cut], *, seed: int, progress: bool
) -> list[EncodeTime]:
    """How long some documents of the corpus take: their own vectors alone, and chunks' too.

    About 8,192 tokens of documents drawn by seed, the fastest of three rounds.
    """
    texts = _some_texts(model, data, seed)
    tries: dict[str, dict[str, Any]] = {"one vector a document": {"splitter": [[] for _ in texts]}}
    names = {f"and chunks of {cut.chunk_tokens}": cut for cut in cuts}
    tries |= {name: _options([cut]) for name, cut in names.items()}
    if len(cuts) > 1:
        tries[f"and chunks of all {len(cuts)} sizes"] = _options(cuts)
    taken: dict[str, list[float]] = {name: [] for name in tries}
    made: dict[str, Sequence[DocumentVectors]] = {}
    with progress_bar("timing", ROUNDS * len(tries), "passes", show=progress) as advance:
        for _ in range(ROUNDS):
            for name, options in tries.items():
                began = time.perf_counter()
                made[name] = model.encode_document(texts, **options)
                taken[name].append(time.perf_counter() - began)
                advance(1)
    return [
        EncodeTime(
            name=name,
            cut=names.get(name),
            seconds=min(taken[name]),
            slowest=max(taken[name]),
            num_tokens=sum(each.num_tokens for each in made[name]),
            num_vectors=sum(1 + len(each.chunks) for each in made[name]),
        )
        for name in tries
    ]


def _options(cuts: Sequence[Cut]) -> dict[str, Any]:
    """What `encode_document` takes for some cuts."""
    return {
        "chunk_tokens": [cut.chunk_tokens for cut in cuts],
        "chunk_overlap": [cut.overlap_tokens for cut in cuts],
    }


def _some_texts(model: Dewey, data: RetrievalData, seed: int) -> list[str]:
    """Documents in an order by seed, as many as fit into 8,192 tokens; the last one is cut."""
    left = TIMED_TOKENS
    texts: list[str] = []
    shuffled = list(data.documents.values())
    Random(seed).shuffle(shuffled)
    for text in shuffled:
        offsets = model.tokenizer.encode([text])[0].offsets
        if len(offsets):
            texts.append(text if len(offsets) <= left else text[: offsets[left - 1, 1]])
            left -= len(offsets)
        if left <= 0:
            break
    return texts or shuffled[:1]
