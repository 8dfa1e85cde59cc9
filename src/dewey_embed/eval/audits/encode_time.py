"""The time of encoding with one vector a document, and with the vectors of chunks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from dewey_embed.encoder import Dewey
from dewey_embed.eval.beir import RetrievalData
from dewey_embed.eval.result_page import Column, Table
from dewey_embed.eval.vector_cache import ChunkSize
from dewey_embed.progress import progress_bar
from dewey_embed.types import DocumentVectors

TIMED_TOKENS = 8192
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class EncodeTime:
    """The fastest and the slowest of several rounds over the same documents, in seconds.

    `size` is that of the chunks, None where there are none or those of several sizes.
    """

    name: str
    size: ChunkSize | None
    seconds: float
    slowest: float
    num_tokens: int
    num_vectors: int


def encode_times(
    model: Dewey, data: RetrievalData, sizes: Sequence[ChunkSize], *, seed: int, progress: bool
) -> list[EncodeTime]:
    """The time of encoding documents of the corpus: their own vectors alone, and chunks' too.

    About 8,192 tokens of documents drawn by seed, the fastest of three rounds.
    """
    texts = _timed_texts(model, data, seed)
    by_name = {f"and chunks of {size.tokens}": size for size in sizes}
    passes: dict[str, dict[str, Any]] = {
        "one vector a document": {"spans": [[] for _ in texts]},
        **{name: _size_options([size]) for name, size in by_name.items()},
    }
    if len(sizes) > 1:
        passes[f"and chunks of all {len(sizes)} sizes"] = _size_options(sizes)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    vectors: dict[str, Sequence[DocumentVectors]] = {}
    with progress_bar("timing", ROUNDS * len(passes), "passes", show=progress) as advance:
        for _ in range(ROUNDS):
            for name, options in passes.items():
                began = time.perf_counter()
                vectors[name] = model.encode_document(texts, **options)
                seconds[name].append(time.perf_counter() - began)
                advance(1)
    return [
        EncodeTime(
            name=name,
            size=by_name.get(name),
            seconds=min(seconds[name]),
            slowest=max(seconds[name]),
            num_tokens=sum(each.num_tokens for each in vectors[name]),
            num_vectors=sum(1 + len(each.chunks) for each in vectors[name]),
        )
        for name in passes
    ]


def _size_options(sizes: Sequence[ChunkSize]) -> dict[str, Any]:
    """The options of `encode_document` for chunk sizes."""
    return {
        "chunk_tokens": [size.tokens for size in sizes],
        "chunk_overlap": [size.overlap_tokens for size in sizes],
    }


def _timed_texts(model: Dewey, data: RetrievalData, seed: int) -> list[str]:
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


def encode_table(times: Sequence[EncodeTime]) -> Table:
    """The time that chunk vectors add to a pass."""
    alone = times[0].seconds
    return Table(
        title="Time of encoding",
        columns=(
            Column(name="vectors"),
            Column(name="speed", unit="tokens/s", digits=0, best="highest"),
            Column(name="time", unit="ms for 1,000 tokens", digits=2, best="lowest"),
            Column(name="longer than one vector", unit="%", digits=1),
            Column(name="slowest round", unit="% longer", digits=1),
            Column(name="number of vectors", digits=0),
        ),
        rows=tuple(
            (
                each.name, each.num_tokens / each.seconds, 1e6 * each.seconds / each.num_tokens,
                100 * (each.seconds / alone - 1), 100 * (each.slowest / each.seconds - 1),
                each.num_vectors,
            )
            for each in times
        ),
        notes=(
            f"A sample of the documents with {times[0].num_tokens:,} tokens; the fastest of three "
            "rounds, tokenising and splitting included.",
        ),
    )  # fmt: skip
