"""A document that a person reads on the page: where its text is relevant, its best passages."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dewey_embed.encoder import Dewey
from dewey_embed.index.ranking import Query
from dewey_embed.index.reader import Reader
from dewey_embed.index.settings import INDEX_OPTIONS
from dewey_embed.index.store import Store
from dewey_embed.index.sync import new_settings, passages_of
from dewey_embed.index.tables import Record, content_hash
from dewey_embed.serve.errors import ApiError
from dewey_embed.text.sentences import SECTIONS
from dewey_embed.types import Document, DocumentVectors, Floats, Hit, Rows

GRANULARITIES: dict[str, int] = {
    "sentence": 0,
    "50 words": 64,
    "150 words": 192,
    "400 words": 512,
    "1,500 words": 2048,
}
"""Names of granularities, and about how many tokens around a sentence are scored with it.

They say how much text that is: a text need not have pages or sections."""

PASSAGES = 8
"""Passages that a query is answered with."""

MAX_DOCUMENTS = 24
MAX_BYTES = 1 << 29
"""Bytes of texts and vectors that are kept; with more, the document used longest ago leaves."""


class Heat:
    """How relevant the text around each of a document's sentences (C,) is, at any granularity.

    The vector of a range of sentences is the sum of theirs by length, as in an index: exact for a
    model whose head is one linear layer without bias, and a mean of its sentences for any other.
    Its cosine with a query is a difference of two running sums, so that a query costs one product
    with each sentence, whatever the granularities are.
    """

    def __init__(self, vectors: DocumentVectors, section_starts: Rows) -> None:
        num_tokens = np.array([span.num_tokens for span in vectors.spans], np.int64)
        weights = (vectors.norms * num_tokens)[:, None]
        self._sentences: Floats = (vectors.chunks * weights).astype(np.float32)
        sums = np.zeros((len(num_tokens) + 1, self._sentences.shape[1]))
        np.cumsum(self._sentences, axis=0, out=sums[1:])
        self._ranges = {
            name: ranges_around(num_tokens, size, section_starts)
            for name, size in GRANULARITIES.items()
        }
        self._lengths = {
            name: np.maximum(np.linalg.norm(sums[ends] - sums[starts], axis=1), 1e-12)
            for name, (starts, ends) in self._ranges.items()
        }

    @property
    def num_bytes(self) -> int:
        """Bytes of memory, about."""
        return self._sentences.nbytes + 24 * len(GRANULARITIES) * len(self._sentences)

    def cosines(self, query: Floats, granularity: str) -> Floats:
        """Cosines (C,) of a query's vector (D,) with the text around each sentence."""
        products = np.zeros(len(self._sentences) + 1)
        np.cumsum(self._sentences @ query, out=products[1:], dtype=np.float64)
        starts, ends = self._ranges[granularity]
        cosines = (products[ends] - products[starts]) / self._lengths[granularity]
        found: Floats = cosines.astype(np.float32)
        return found

    def relevance(self, query: Floats) -> dict[str, list[int]]:
        """For each granularity, from 0 (the document's median, or less) to 255 (its highest)."""
        relevance = {}
        for name in GRANULARITIES:
            cosines = self.cosines(query, name)
            above = cosines - np.median(cosines)
            scaled = np.clip(above / max(float(above.max()), 1e-6), 0, 1)
            relevance[name] = np.round(255 * scaled).astype(int).tolist()
        return relevance


def ranges_around(num_tokens: Rows, size: int, section_starts: Rows) -> tuple[Rows, Rows]:
    """For each sentence (C,) the first of those around it, and the one after the last.

    They are the sentences of its section whose middles are within half of `size` tokens of its own.
    A section of no more tokens than `size` is taken complete.

    >>> starts, ends = ranges_around(np.array([10, 10, 10, 10]), 20, np.array([0, 1]))
    >>> starts.tolist(), ends.tolist()
    ([0, 1, 1, 2], [1, 3, 4, 4])
    """
    edges = np.concatenate([[0], np.cumsum(num_tokens)])
    rows = np.arange(len(num_tokens))
    firsts = np.union1d([0], section_starts[section_starts < len(rows)])
    lasts = np.append(firsts[1:], len(rows))
    section = np.searchsorted(firsts, rows, side="right") - 1
    first, last = firsts[section], lasts[section]
    middles = (edges[:-1] + edges[1:]) / 2
    starts = np.searchsorted(middles, middles - size / 2)
    ends = np.searchsorted(middles, middles + size / 2, side="right")
    fits = edges[last] - edges[first] <= size
    starts = np.where(fits, first, np.maximum(np.minimum(starts, rows), first))
    ends = np.where(fits, last, np.minimum(np.maximum(ends, rows + 1), last))
    return starts, ends


class Reading:
    """A document with its vectors, open on a page; several threads may ask at a time.

    Passages are ranked by an index that holds this document alone, with the vectors of the one
    pass over it: answers are those of `dewey search` after `dewey index` of the same file. The
    folder of that index is temporary.
    """

    def __init__(
        self, document: Document, vectors: DocumentVectors, title: Floats | None, model: Dewey
    ) -> None:
        self.document, self.num_tokens = document, vectors.num_tokens
        self.sentences = [(span.char_start, span.char_end) for span in vectors.spans]
        self.heat = Heat(vectors, section_starts(document, self.sentences))
        folder = Path(tempfile.mkdtemp(prefix="dewey-page-"))
        self.close = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        store = Store(folder / "index", new_settings(model, INDEX_OPTIONS, None))
        record = Record(
            document=document,
            hash=content_hash(document),
            vectors=vectors,
            passages=passages_of(document, vectors, INDEX_OPTIONS.chunk_tokens[0]),
            title_vector=title,
        )
        with store.writer() as writer:
            writer.write([record])
            writer.finish()
        self._reader = Reader(store)
        self._reader.lay_out()

    @property
    def num_bytes(self) -> int:
        """Bytes of memory, about."""
        return self.heat.num_bytes + 4 * len(self.document.text) + 200 * len(self.sentences)

    def hit(self, query: str, vector: Floats) -> Hit:
        """The document with the passages that answer a query best, best first.

        Raises:
            IndexStoreError: the document has been closed.

        """
        wanted = Query(text=query, vector=vector, k=1, mode="hybrid", passages=PASSAGES)
        [hit] = self._reader.hits(wanted)
        return hit


def section_starts(document: Document, sentences: Sequence[tuple[int, int]]) -> Rows:
    """The sentences with which the sections of a document begin."""
    chars = [each.char for each in document.landmarks if each.kind in SECTIONS]
    ends = np.array([end for _, end in sentences], np.int64)
    # A landmark may stand in the blanks before the first sentence of its section.
    return np.unique(np.searchsorted(ends, chars, side="right"))


class _Kept(NamedTuple):
    """A document that is open, and the vectors of the queries that it was asked."""

    reading: Reading
    queries: OrderedDict[str, Floats]


class Shelf:
    """The documents that are open on pages, by ids that cannot be guessed."""

    MAX_QUERIES = 64

    def __init__(self, max_documents: int = MAX_DOCUMENTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_documents, self._max_bytes = max_documents, max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, reading: Reading) -> str:
        """The id of a document that is now kept; those used longest ago may leave for it."""
        document_id = secrets.token_urlsafe(18)
        self._kept[document_id] = _Kept(reading, OrderedDict())
        while len(self._kept) > 1 and (
            len(self._kept) > self._max_documents
            or sum(each.reading.num_bytes for each in self._kept.values()) > self._max_bytes
        ):
            self.remove(next(iter(self._kept)))
        return document_id

    def get(self, document_id: str) -> Reading:
        """The document with an id.

        Raises:
            ApiError: it is not open, or no longer.

        """
        if document_id not in self._kept:
            raise ApiError(404, "this document is no longer open here; open it again")
        self._kept.move_to_end(document_id)
        return self._kept[document_id].reading

    def remove(self, document_id: str) -> None:
        """Let go of a document, if it is there."""
        if kept := self._kept.pop(document_id, None):
            kept.reading.close()

    def vector(self, document_id: str, query: str) -> Floats | None:
        """The vector of a query that a document was asked before."""
        kept = self._kept.get(document_id)
        return None if kept is None else kept.queries.get(query)

    def keep_vector(self, document_id: str, query: str, vector: Floats) -> None:
        """Keep the vector of a query with the document that is asked."""
        kept = self._kept.get(document_id)
        if kept is not None:
            kept.queries[query] = vector
            if len(kept.queries) > self.MAX_QUERIES:
                kept.queries.popitem(last=False)
