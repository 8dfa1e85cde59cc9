"""What a document is called, as part of what is searched.

A chunk seldom names what its document is about; the title does. So a chunk is compared with a
query twice, by its own vector and by the direction of its own and its title's together, and the
better of the two counts; and so is the document. Titles, and names of files, are among the words
too. How this was chosen is in docs/log.md.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.index.inverted import Inverted
from dewey_embed.index.neighbours import Mask, Neighbours, Rows, Scores, read_neighbours
from dewey_embed.types import Document

TITLE_WEIGHT = np.float32(1.0)
"""What a title's vector weighs beside a chunk's."""

MIN_NORM = 0.1
"""A chunk that points away from its title, so that little is left of both, is compared alone."""

_NAME_WORDS = re.compile(r"[^\W\d_]{3,}")
"""Words of a file's name: runs of letters. Numbers and codes say nothing that has a meaning."""


def title_text(document: Document) -> str:
    """The text whose vector stands for a document's title; empty where it has none.

    The name of a file stands for its title where it has no other, without numbers and extension.

    >>> title_text(Document(id="/c/lease_2024-v2.pdf", source="/c/lease_2024-v2.pdf", text="…"))
    'lease'
    """
    title, name = document.title.strip(), file_name(document)
    if name and title in ("", name):
        return " ".join(_NAME_WORDS.findall(PurePosixPath(name).stem))
    return title


def searched_text(document: Document) -> str:
    """All of a document that word search knows: its title, the name of its file, its text."""
    names = dict.fromkeys((document.title, file_name(document)))
    return "\n".join([*filter(None, names), document.text])


def file_name(document: Document) -> str:
    """The name of the file that a document is; empty for a record, or a text from elsewhere."""
    is_file = document.source != "" and document.id == document.source
    return PurePosixPath(document.source).name if is_file else ""


class Titles:
    """The distinct titles (M) of N documents; `of` (N,) says which is whose, -1 for none."""

    def __init__(self, vectors: Neighbours, of: Rows) -> None:
        self.vectors = vectors
        self.of = of
        titled = np.flatnonzero(of >= 0)
        self._documents = titled[np.argsort(of[titled], kind="stable")]
        self._starts = np.searchsorted(of[self._documents], np.arange(len(vectors) + 1))

    def documents(self, query: NDArray[np.float32], num: int) -> Rows:
        """At least `num` documents, if so many have a title: those whose titles are nearest."""
        titles, _ = self.vectors.nearest(query, num)
        found = [self._documents[self._starts[row] : self._starts[row + 1]] for row in titles]
        return np.concatenate(found)[:num] if found else np.zeros(0, np.int64)


class TitledNeighbours(Neighbours):
    """Vectors (R, D) of documents, or of their chunks, scored with and without their titles.

    Document i owns the rows `starts[i]` to `starts[i + 1]`; `norms` (R,) are the lengths of the
    sums of a row's vector and its title's, 0 where there is no title.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        inverted: Inverted | None,
        titles: Titles,
        starts: Rows,
        norms: NDArray[np.float32],
    ) -> None:
        super().__init__(vectors, inverted)
        self._titles, self._starts, self._norms = titles, starts, norms

    def scores(self, rows: Rows | slice, query: NDArray[np.float32]) -> Scores:
        """The better inner product (len(rows),) float32 of some rows with a query (D,)."""
        alone = super().scores(rows, query)
        if len(self._titles.vectors) == 0:
            return alone
        places = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        titles = self._titles_of(places)
        distinct, which = np.unique(titles, return_inverse=True)
        products = np.zeros(len(distinct), np.float32)
        products[distinct >= 0] = self._titles.vectors.scores(distinct[distinct >= 0], query)
        return _better(alone, products[which], self._norms[places])

    def rough_scores(self, query: NDArray[np.float32], allowed: Mask | None = None) -> Scores:
        """About the scores (R,) of all rows, -inf of those not allowed."""
        alone = super().rough_scores(query, allowed)
        if len(self._titles.vectors) == 0:
            return alone
        products = self._titles.vectors.rough_scores(query)
        titles = np.repeat(self._titles.of, np.diff(self._starts))
        return _better(alone, products[titles], self._norms)

    def _candidates(self, query: NDArray[np.float32], num: int, allowed: Mask | None) -> Rows:
        found = super()._candidates(query, num, allowed)
        if self.is_compared_whole or len(self._titles.vectors) == 0:
            return found
        documents = self._titles.documents(query, num)
        sizes = self._starts[documents + 1] - self._starts[documents]
        within = documents[: 1 + np.searchsorted(np.cumsum(sizes), 4 * num)]
        rows = [np.arange(self._starts[row], self._starts[row + 1]) for row in within]
        titled = np.concatenate([*rows, np.zeros(0, np.int64)])
        return np.union1d(found, titled if allowed is None else titled[allowed[titled]])

    def _titles_of(self, rows: Rows) -> Rows:
        return self._titles.of[np.searchsorted(self._starts, rows, side="right") - 1]


def _better(alone: Scores, titles: Scores, norms: NDArray[np.float32]) -> Scores:
    """Scores alone or, where they are higher, beside the titles'; -inf stays."""
    joined = (alone + TITLE_WEIGHT * titles) / np.maximum(norms, MIN_NORM)
    better: Scores = np.where(norms >= MIN_NORM, np.maximum(alone, joined), alone)
    return better


def joined_norms(vectors: NDArray[Any], titles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths (R,) of vectors (R, D) with their titles' (R, D) beside them; 0 for zeros."""
    norms = np.linalg.norm(vectors.astype(np.float32) + TITLE_WEIGHT * titles, axis=1)
    return np.where(titles.any(axis=1), norms, np.float32(0))


def read_titled(
    vectors: NDArray[Any],
    path: Path,
    titles: Titles,
    starts: Rows,
    norms: NDArray[np.float32],
) -> TitledNeighbours:
    """Vectors (R, D) with the inverted file that was built from them at `path`, and titles."""
    plain = read_neighbours(vectors, path)
    return TitledNeighbours(vectors, plain.inverted, titles, starts, norms)
