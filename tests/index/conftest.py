"""Documents with random unit vectors, and a store to put them in: no model needed."""

from pathlib import Path

import numpy as np
import pytest

from dewey_embed.index.ranking import Query, ranked
from dewey_embed.index.settings import IndexSettings
from dewey_embed.index.store import Store
from dewey_embed.index.tables import Record, content_hash, storable
from dewey_embed.types import Document, DocumentVectors, Span

WIDTH = 24


def unit(rng, *shape):
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def record(document_id, text="some words", *, num_chunks=3, seed=0, **fields):
    """A record whose vectors depend on its id, its text and the seed alone."""
    document = storable(Document(id=document_id, text=text, **fields))
    rng = np.random.default_rng([seed, *document.id.encode(), *document.text[:20].encode()])
    spans = [Span(i, i + 2, i, i + 1) for i in range(num_chunks)]
    vectors = DocumentVectors(
        vector=unit(rng, WIDTH),
        chunks=unit(rng, num_chunks, WIDTH) if num_chunks else np.empty((0, WIDTH), np.float32),
        spans=spans,
        num_tokens=num_chunks,
        used_tokens=num_chunks,
        norms=rng.uniform(0.5, 2, num_chunks).astype(np.float32),
    )
    passages = np.arange(num_chunks) // 2  # two sentences in each
    return Record(
        document=document, hash=content_hash(document), vectors=vectors, passages=passages
    )


def settings(**changes):
    values = {"model": "test", "fingerprint": "f00d", "embedding_dim": WIDTH}
    return IndexSettings(**{**values, **changes})


def ranking(layout, vector, *, text="some words", mode="hybrid", where=None):
    """What answers a query in a layout."""
    query = Query(text=text, vector=vector, k=5, mode=mode, passages=3, filter=where)
    return ranked(query, layout)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "my.index", settings())
