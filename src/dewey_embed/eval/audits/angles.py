"""Cosines and angles of students and teachers: means over documents, and how documents cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.eval.scores import Interval, interval
from dewey_embed.train.diagnostics import Floats, HeldOut, Int, mean_pairwise_cosine

DECILES = 10
LENGTH_EDGES = (0, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)

Doubles = NDArray[np.float64]
Angles = list[list[Interval | None]]
"""By what was measured, then along an axis; None where there is nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Student and teacher on chunks of one size; `places` (C,) are their middles, from 0 to 1."""

    size: int
    held: HeldOut
    places: Doubles

    @cached_property
    def cosines(self) -> Doubles:
        """(C,) of each chunk's two vectors."""
        return row_cosines(self.held.chunks, self.held.chunk_targets)

    @cached_property
    def num_chunks(self) -> Int:
        """(B,) chunks of each document."""
        return np.bincount(self.held.texts, minlength=len(self.held.text_tokens))


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


def by_document(values: Doubles, owners: Int) -> Interval | None:
    """The mean over documents of the means of their values, with its interval; None of nothing.

    So a long document, whose chunks are alike, counts no more than a short one.
    """
    if not len(values):
        return None
    sums, counts = np.bincount(owners, values), np.bincount(owners)
    some = counts > 0
    return interval(sums[some] / counts[some])


def by_place(measured: Sequence[Measured]) -> Angles:
    """Angles of each size by tenth of the document; of documents of ten chunks or more.

    In shorter ones the place says only how short they are.
    """
    found: Angles = []
    for each in measured:
        tenth = np.minimum((each.places * DECILES).astype(np.int64), DECILES - 1)
        long = each.num_chunks[each.held.texts] >= DECILES
        found.append([angle_of(each, long & (tenth == place)) for place in range(DECILES)])
    return found


def by_length(measured: Sequence[Measured]) -> Angles:
    """Angles of each size by length of the document; at last those of documents' own vectors."""
    found: Angles = []
    bins = length_bins(measured[0])
    for each in measured:
        lengths = each.held.text_tokens[each.held.texts]
        found.append([angle_of(each, (lengths > low) & (lengths <= high)) for low, high, _ in bins])
    held = measured[0].held
    own = degrees(row_cosines(held.cls, held.cls_targets))
    lengths = held.text_tokens
    inside = [(lengths > low) & (lengths <= high) for low, high, _ in bins]
    found.append([by_document(own[some], np.arange(some.sum())) for some in inside])
    return found


def angle_of(measured: Measured, some: NDArray[np.bool_]) -> Interval | None:
    """The mean angle of some chunks, which are marked."""
    return by_document(degrees(measured.cosines[some]), measured.held.texts[some])


def length_bins(measured: Measured) -> list[tuple[int, int, int]]:
    """Lengths that occur: over, up to, and the mean of the documents between."""
    lengths = measured.held.text_tokens
    edges = (*LENGTH_EDGES, int(max(lengths.max(), LENGTH_EDGES[-1]) + 1))
    inside = [(low, high, lengths[(lengths > low) & (lengths <= high)])
              for low, high in pairwise(edges)]  # fmt: skip
    return [(low, high, round(float(some.mean()))) for low, high, some in inside if len(some)]


def tightness(chunks: Floats, owners: Int) -> Tightness:
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


def pair_cosines(chunks: Floats, owners: Int, most: int) -> tuple[Doubles, Doubles]:
    """Cosines of pairs of chunks: those of one document, and those of two; of the first `most`."""
    some, of = chunks[:most].astype(np.float64), owners[:most]
    first, second = np.triu_indices(len(some), 1)
    cosines = (some @ some.T)[first, second]
    same = of[first] == of[second]
    return cosines[same], cosines[~same]
