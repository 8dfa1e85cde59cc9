"""Cosines and angles of students and teachers: means over documents, and how documents cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dewey_embed.eval.result_page import Series
from dewey_embed.eval.scores import Doubles, Interval, interval
from dewey_embed.train.diagnostics import HeldOut, mean_pairwise_cosine
from dewey_embed.types import DocumentVectors, Floats, Mask, Rows

DECILES = 10
MIDDLES = [100 * (tenth + 0.5) / DECILES for tenth in range(DECILES)]
"""The middle of each tenth of a document, in percent."""

BARS = 40
"""Bars of a histogram."""

MIN_CHUNKS = 10
"""Fewer chunks than this make a document too short for a chunk's place in it to mean anything."""

LENGTH_EDGES = (0, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

Angles = list[list[Interval | None]]
"""A list for each chunk size, along an axis; None where there is no chunk."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """Student and teacher on chunks of one size; `places` (C,) are their middles, from 0 to 1."""

    size: int
    held: HeldOut
    places: Doubles

    @classmethod
    def of(
        cls,
        size: int,
        documents: Sequence[DocumentVectors],
        number: int,
        chunk_targets: Floats,
        document_targets: Floats,
    ) -> Alignment:
        """Documents' chunks of the size that stands at `number`, and the teacher's vectors."""
        chunks, spans = zip(*(each.at(number) for each in documents), strict=True)
        lengths = np.array([each.num_tokens for each in documents])
        owners = np.repeat(np.arange(len(documents)), list(map(len, spans)))
        flat = [span for own in spans for span in own]
        middles = np.array([(span.token_start + span.token_end) / 2 for span in flat])
        held = HeldOut(
            cls=np.stack([each.vector for each in documents]),
            cls_targets=document_targets,
            chunks=np.concatenate(chunks),
            chunk_targets=chunk_targets,
            texts=owners,
            chunk_tokens=np.array([span.num_tokens for span in flat]),
            text_tokens=lengths,
        )
        return cls(size=size, held=held, places=middles / lengths[owners])

    @cached_property
    def cosines(self) -> Doubles:
        """(C,) of each chunk's two vectors."""
        return row_cosines(self.held.chunks, self.held.chunk_targets)

    @cached_property
    def num_chunks(self) -> Rows:
        """(B,) chunks of each document."""
        return np.bincount(self.held.texts, minlength=len(self.held.text_tokens))

    @cached_property
    def tightness(self) -> tuple[Tightness, Tightness]:
        """How documents' chunks cluster to the student, and to the teacher."""
        held = self.held
        return tightness(held.chunks, held.texts), tightness(held.chunk_targets, held.texts)

    def angle(self, mask: Mask | slice = slice(None)) -> Interval | None:
        """The mean angle of all chunks, or of those in a mask."""
        return by_document(degrees(self.cosines[mask]), self.held.texts[mask])


class Tightness(NamedTuple):
    """Mean cosine of two chunks of one document, and of two documents; None without two."""

    within: float | None
    between: float | None

    @property
    def difference(self) -> float | None:
        """How much more alike chunks of one document are."""
        if self.within is None or self.between is None:
            return None
        return self.within - self.between


def row_cosines(ours: Floats, theirs: Floats) -> Doubles:
    """(N,) cosines of unit vectors (N, D) row by row, from -1 to 1."""
    products: Doubles = np.einsum("nd,nd->n", ours.astype(np.float64), theirs.astype(np.float64))
    return np.clip(products, -1.0, 1.0)


def degrees(cosines: Doubles) -> Doubles:
    """Angles of cosines, from 0 to 180."""
    angles: Doubles = np.degrees(np.arccos(cosines))
    return angles


def by_document(values: Doubles, owners: Rows) -> Interval | None:
    """The mean over documents of the means of their values, with its interval; None without values.

    So a long document, whose chunks are alike, counts no more than a short one.
    """
    if not len(values):
        return None
    sums, counts = np.bincount(owners, values), np.bincount(owners)
    owning = counts > 0
    return interval(sums[owning] / counts[owning])


def tenths(places: Doubles) -> Rows:
    """The tenth (C,) of the document that each place lies in, from 0 to 9.

    >>> tenths(np.array([0.0, 0.09, 0.1, 0.95, 1.0])).tolist()
    [0, 0, 1, 9, 9]
    """
    return np.minimum((places * DECILES).astype(np.int64), DECILES - 1)


def histogram(name: str, values: Doubles, low: float, high: float) -> Series:
    """Shares of values by bars from `low` to `high`; what lies outside is in the last of them."""
    counts, edges = np.histogram(np.clip(values, low, high), BARS, (low, high))
    shares = tuple((counts / max(len(values), 1)).tolist())
    return Series(name=name, x=tuple(edges[:-1].tolist()), y=shares)


def by_place(alignments: Sequence[Alignment]) -> Angles:
    """Angles of each size by tenth of the document, over documents of ten chunks or more."""
    angles: Angles = []
    for each in alignments:
        tenth = tenths(each.places)
        long = each.num_chunks[each.held.texts] >= MIN_CHUNKS
        angles.append([each.angle(long & (tenth == place)) for place in range(DECILES)])
    return angles


def by_length(alignments: Sequence[Alignment]) -> Angles:
    """Angles of each size by length of the document; at last those of documents' own vectors."""
    bins = length_bins(alignments[0])
    angles: Angles = []
    for each in alignments:
        lengths = each.held.text_tokens[each.held.texts]
        angles.append([each.angle((lengths > low) & (lengths <= high)) for low, high, _ in bins])
    held = alignments[0].held
    own = degrees(row_cosines(held.cls, held.cls_targets))
    inside = [(held.text_tokens > low) & (held.text_tokens <= high) for low, high, _ in bins]
    angles.append([by_document(own[mask], np.arange(mask.sum())) for mask in inside])
    return angles


def length_bins(alignment: Alignment) -> list[tuple[int, int, int]]:
    """Lengths that occur: over, up to, and the mean of the documents between."""
    lengths = alignment.held.text_tokens
    edges = (*LENGTH_EDGES, int(max(lengths.max(), LENGTH_EDGES[-1]) + 1))
    inside = [(low, high, lengths[(lengths > low) & (lengths <= high)])
              for low, high in pairwise(edges)]  # fmt: skip
    return [(low, high, round(float(own.mean()))) for low, high, own in inside if len(own)]


def tightness(chunks: Floats, owners: Rows) -> Tightness:
    """How alike unit vectors (C, D) are within their documents and between them.

    Within: the mean over documents of two chunks or more. Between: over all pairs of chunks of two
    documents, (|Σ v|² - Σ |Σ v of a document|²) / (C² - Σ c²).
    """
    groups = [chunks[owners == owner] for owner in np.unique(owners)]
    pairs = [mean_pairwise_cosine(group) for group in groups if len(group) > 1]
    sums = np.stack([group.sum(0, dtype=np.float64) for group in groups])
    sizes = np.array([len(group) for group in groups], np.float64)
    num_pairs = sizes.sum() ** 2 - (sizes**2).sum()
    between = (np.square(sums.sum(0)).sum() - np.square(sums).sum()) / max(num_pairs, 1)
    return Tightness(
        float(np.mean(pairs)) if pairs else None, float(between) if num_pairs else None
    )


def pair_cosines(chunks: Floats, owners: Rows, limit: int) -> tuple[Doubles, Doubles]:
    """Cosines of pairs of the first `limit` chunks: those of one document, and those of two."""
    vectors, owners = chunks[:limit].astype(np.float64), owners[:limit]
    first, second = np.triu_indices(len(vectors), 1)
    cosines = (vectors @ vectors.T)[first, second]
    same = owners[first] == owners[second]
    return cosines[same], cosines[~same]
