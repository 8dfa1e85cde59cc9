"""Chunks → passages: runs of whole sentences, and the surroundings that each stands in.

A passage is what a search shows: as many neighbouring chunks (sentences) of a document as fit into
a number of tokens. Its vector is the weighted sum of theirs, which is what one pass would give it.
Its surroundings are the two passages before it and the two after it in its document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.types import Floats, Mask, Rows

REACH = 2
"""Passages before and after one that are its surroundings. Chosen with the weights: docs/log.md."""


def passage_numbers(
    texts: Sequence[str], num_tokens: Rows, size: int, begins_section: Mask | None = None
) -> Rows:
    """The passage (C,) of each chunk of a document: as many chunks together as fit in `size`.

    A chunk that begins a section begins a passage. A passage of few words, such as a heading, takes
    in the chunk after it, however long; any other chunk of more than `size` tokens is a passage by
    itself.

    >>> texts = ["# Rent", "The tenant pays all of it.", "It is due on the first of May."]
    >>> passage_numbers(texts, np.array([3, 70, 13]), size=64)
    array([0, 0, 1])
    """
    numbers = np.zeros(len(num_tokens), np.int64)
    number = filled = num_words = 0
    for row, (text, tokens) in enumerate(zip(texts, num_tokens.tolist(), strict=True)):
        is_full = filled + tokens > size or (begins_section is not None and begins_section[row])
        if is_full and num_words >= LEAST_WORDS:
            number, filled, num_words = number + 1, 0, 0
        filled += tokens
        num_words += len(_WORD.findall(text))
        numbers[row] = number
    return numbers


LEAST_WORDS = 6
"""A passage of fewer words, one for each character of a script without spaces, is not alone."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")


class Surroundings:
    """The surroundings of P passages; `starts` (N + 1,) are the first passages of N documents."""

    def __init__(self, starts: Rows) -> None:
        owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self._same_document = {
            step: (owners[step:] == owners[:-step]).astype(np.float32)
            for step in range(1, REACH + 1)
        }

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum (P, …) over each passage and its surroundings, of a value (P, …) each."""
        total = values.copy()
        for step, is_same in self._same_document.items():
            same = is_same.reshape(-1, *[1] * (values.ndim - 1))
            total[step:] += values[:-step] * same
            total[:-step] += values[step:] * same
        return total


def unit_rows(sums: Floats) -> tuple[Floats, Floats]:
    """Vectors (P, D) at unit length, and their lengths (P,); zeros stay."""
    norms = np.linalg.norm(sums, axis=1).astype(np.float32)
    return sums / np.maximum(norms, 1e-12)[:, None], norms
