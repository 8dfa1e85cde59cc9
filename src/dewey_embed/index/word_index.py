"""BM25 over documents' words: for every word the documents that hold it, with its weight there.

Weights are worked out when the index is laid out, so that a query adds up a few slices of mapped
arrays. Every document that shares a word with the query has a score, exactly.
Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", with Lucene's
always positive idf.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.words import query_words

K1, B = 1.2, 0.75

_NAMES = ("word_numbers", "word_starts", "word_rows", "word_weights")

Integers = NDArray[Any]


class WordIndex:
    """N documents by their words; word i stands in `rows[starts[i] : starts[i + 1]]`."""

    def __init__(self, folder: Path, num: int, mapped: Callable[[Path], NDArray[Any]]) -> None:
        self._num = num
        self._numbers, self._starts, self._rows, self._weights = (
            mapped(folder / f"{name}.npy") for name in _NAMES
        )

    def scores(self, query: str) -> NDArray[np.float32]:
        """BM25 scores (N,) float32 of all documents; 0 where no word is shared."""
        scores = np.zeros(self._num, np.float32)
        numbers, weights = query_words(query)
        places = np.searchsorted(self._numbers, numbers)
        for place, number, weight in zip(places, numbers, weights, strict=True):
            if place < len(self._numbers) and self._numbers[place] == number:
                held = slice(self._starts[place], self._starts[place + 1])
                scores[self._rows[held]] += weight * self._weights[held]
        return scores


def write_word_index(folder: Path, rows: Integers, numbers: Integers, counts: Integers) -> None:
    """Write the word index of documents by their postings, sorted by row.

    Document `rows[i]` holds word `numbers[i]`, `counts[i]` times; all are (P,).
    """
    order = np.argsort(numbers, kind="stable")
    rows, numbers, counts = rows[order].astype(np.int32), numbers[order], counts[order]
    words, starts = np.unique(numbers, return_index=True)
    starts = np.append(starts, len(numbers)).astype(np.int64)
    lengths = np.bincount(rows, counts).astype(np.float64) if len(rows) else np.zeros(0)
    # Documents without a word have no posting, and no part in the mean.
    held = lengths > 0
    num, mean = max(1, int(held.sum())), float(lengths[held].mean()) if held.any() else 1.0
    frequencies = np.diff(starts)
    rarities = np.log1p((num - frequencies + 0.5) / (frequencies + 0.5))
    often = counts.astype(np.float64)
    norms = K1 * (1 - B + B * lengths[rows] / mean) if len(rows) else np.zeros(0)
    weights = np.repeat(rarities, frequencies) * often * (K1 + 1) / (often + norms)
    arrays: tuple[NDArray[Any], ...] = (
        words.astype(np.uint32),
        starts,
        rows,
        weights.astype(np.float32),
    )
    for name, array in zip(_NAMES, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
