"""Splitters of Chroma's "Evaluating Chunking Strategies for Retrieval", and rankings of chunks.

The splitters are written from their description (Smith and Troynikov, 2024), in tokens of the mini.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import Protocol

import bm25s
import numpy as np

from dewey_embed import Dewey
from dewey_embed.eval.models import BM25_B, BM25_K1, bm25_words
from dewey_embed.train.teachers.minilm import MiniLM
from dewey_embed.types import DocumentVectors, Floats

WINDOW = 2048
"""Tokens that the mini reads at once, as an index does."""

TEACHER_TOKENS = 510
"""Tokens that the teacher reads of a chunk: all that it has positions for."""

PIECE_TOKENS = 50
"""Tokens of the pieces that the cluster splitter groups."""

SEPARATORS = ("\n\n", "\n", ".", "?", "!", " ", "")

Range = tuple[int, int]

Embed = Callable[[Sequence[Range]], Floats]
"""Vectors of ranges of one document."""


class Tokenized:
    """A text and its tokens: a range has those that begin in it."""

    def __init__(self, text: str, model: Dewey) -> None:
        self.text = text
        self.offsets = model.tokenizer.encode([text])[0].offsets
        begins = np.bincount(self.offsets[:, 0], minlength=len(text) + 1)
        self._before = np.concatenate(([0], np.cumsum(begins)))

    def num_tokens(self, start: int, end: int) -> int:
        """The number of tokens of a range."""
        return int(self._before[end] - self._before[start])

    def visible(self, ranges: Sequence[Range]) -> list[Range]:
        """The ranges without white space at their ends, and without those of nothing else."""
        kept = []
        for first, last in ranges:
            part = self.text[first:last]
            start = first + len(part) - len(part.lstrip())
            end = start + len(part.strip())
            if self.num_tokens(start, end):
                kept.append((start, end))
        return kept


def fixed(text: Tokenized, _: Embed, *, tokens: int, overlap: int) -> list[Range]:
    """Chunks of as many tokens each."""
    offsets = text.offsets
    starts = range(0, max(len(offsets) - overlap, 1), tokens - overlap)
    lasts = [min(start + tokens, len(offsets)) - 1 for start in starts]
    return [
        (int(offsets[start, 0]), int(offsets[last, 1]))
        for start, last in zip(starts, lasts, strict=True)
    ]


def recursive(text: Tokenized, _: Embed, *, tokens: int, overlap: int) -> list[Range]:
    """Chunks of parts at the first separator whose parts fit, joined while they fit."""
    runs = _parts(text, 0, len(text.text), tokens, SEPARATORS)
    return text.visible([each for run in runs for each in _joined(text, run, tokens, overlap)])


def _parts(
    text: Tokenized, start: int, end: int, tokens: int, separators: Sequence[str]
) -> Iterator[list[Range]]:
    """Runs of parts that fit; longer ones are cut at later separators, in runs of their own."""
    own = text.text[start:end]
    number = next(i for i, each in enumerate(separators) if each in own)
    separator, later = separators[number], separators[number + 1 :]
    cuts = [start + each.start() for each in re.finditer(re.escape(separator), own)]
    bounds = sorted({start, *cuts, end})
    run: list[Range] = []
    for part in pairwise(bounds):
        if text.num_tokens(*part) < tokens or not later:
            run.append(part)
            continue
        if run:
            yield run
            run = []
        yield from _parts(text, *part, tokens, later)
    if run:
        yield run


def _joined(text: Tokenized, run: Sequence[Range], tokens: int, overlap: int) -> list[Range]:
    """Neighbouring parts together, as many as fit; a chunk begins in the one before it."""
    chunks = []
    first = filled = 0
    for last, part in enumerate(run):
        length = text.num_tokens(*part)
        if filled + length > tokens and last > first:
            chunks.append((run[first][0], run[last - 1][1]))
            while first < last and (filled > overlap or filled + length > tokens):
                filled -= text.num_tokens(*run[first])
                first += 1
        filled += length
    return [*chunks, (run[first][0], run[-1][1])]


def cluster(text: Tokenized, embed: Embed, *, tokens: int) -> list[Range]:
    """The segments of pieces that are most alike: pairs above the mean cosine count for them."""
    pieces = recursive(text, embed, tokens=PIECE_TOKENS, overlap=0)
    vectors = embed(pieces)
    gains = vectors @ vectors.T
    num = len(pieces)
    gains -= (gains.sum() - np.trace(gains)) / max(num * (num - 1), 1)
    np.fill_diagonal(gains, 0)
    best, begin = np.zeros(num + 1), np.zeros(num + 1, np.int64)
    for end in range(1, num + 1):
        starts = range(max(0, end - tokens // PIECE_TOKENS), end)
        values = [best[start] + gains[start:end, start:end].sum() for start in starts]
        chosen = len(values) - 1 - int(np.argmax(values[::-1]))  # of equal ones the shortest
        best[end], begin[end] = values[chosen], starts[chosen]
    chunks = []
    end = num
    while end:
        chunks.append((pieces[begin[end]][0], pieces[end - 1][1]))
        end = int(begin[end])
    return chunks[::-1]


Splitter = Callable[[Tokenized, Embed], list[Range]]

SMALLEST = "recursive 64/0"
"""Chunks as small as Dewey's passages; Chroma's settings are the others."""

SPLITTERS: Mapping[str, Splitter] = {
    SMALLEST: partial(recursive, tokens=64, overlap=0),
    "recursive 200/0": partial(recursive, tokens=200, overlap=0),
    "recursive 400/200": partial(recursive, tokens=400, overlap=200),
    "recursive 800/400": partial(recursive, tokens=800, overlap=400),
    "fixed 200/0": partial(fixed, tokens=200, overlap=0),
    "fixed 400/200": partial(fixed, tokens=400, overlap=200),
    "cluster 200": partial(cluster, tokens=200),
    "cluster 400": partial(cluster, tokens=400),
}
"""Tokens of a chunk, and of it that the chunk before it has, too."""


class Embedder(Protocol):
    """A model that ranks chunks by the cosine of their vectors and the query's."""

    name: str

    def queries(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of queries."""
        ...

    def ranges(self, document: int, ranges: Sequence[Range]) -> Floats:
        """Unit vectors of ranges of a document."""
        ...


class OnePass:
    """The mini: a chunk's vector is pooled from the one pass over its document."""

    name = "mini"

    def __init__(self, model: Dewey, texts: Sequence[str]) -> None:
        self._model, self._texts = model, texts

    @cached_property
    def _read(self) -> list[DocumentVectors]:
        spans = [[(0, len(text))] for text in self._texts]
        return self._model.encode_document(
            self._texts, spans=spans, window=WINDOW, keep_states=True
        )

    def queries(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of queries."""
        return self._model.encode_query(texts)

    def ranges(self, document: int, ranges: Sequence[Range]) -> Floats:
        """Unit vectors of ranges of a document."""
        return self._read[document].pool(ranges)


class EachAlone:
    """all-MiniLM-L6-v2, the mini's teacher, which reads each chunk by itself."""

    name = MiniLM.name

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    @cached_property
    def _model(self) -> MiniLM:
        return MiniLM(max_tokens=TEACHER_TOKENS)

    def queries(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of queries."""
        return self._model.embed(texts)

    def ranges(self, document: int, ranges: Sequence[Range]) -> Floats:
        """Unit vectors of ranges of a document."""
        return self._model.embed([self._texts[document][start:end] for start, end in ranges])


def bm25_scores(chunks: Sequence[str], queries: Sequence[str]) -> Floats:
    """BM25 scores (Q, C) of chunks, by the words and constants of `dewey eval bm25`."""
    index = bm25s.BM25(k1=BM25_K1, b=BM25_B)
    index.index([bm25_words(chunk) for chunk in chunks], show_progress=False)
    return np.stack([index.get_scores(bm25_words(query)) for query in queries])
