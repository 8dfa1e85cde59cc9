"""Titles: a chunk is compared alone and beside its document's title, and the better counts."""

import numpy as np
import pytest

from dewey_embed.index.layout import open_layout
from dewey_embed.index.tables import file_name, title_text
from dewey_embed.index.vectors import (
    EXACT_LIMIT,
    TITLE_WEIGHT,
    Neighbours,
    TitledNeighbours,
    Titles,
    joined_norms,
)
from dewey_embed.types import Document
from tests.index.conftest import WIDTH, record, unit
from tests.index.test_store import write


def better(vectors, titles, query):
    """The definition, row by row."""
    joined = vectors + TITLE_WEIGHT * titles
    joined /= np.linalg.norm(joined, axis=1, keepdims=True)
    titled = titles.any(axis=1)
    return np.where(titled, np.maximum(vectors @ query, joined @ query), vectors @ query)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def titled(rng, num_documents=30, width=WIDTH, per_document=4):
    """Chunks of documents of which two thirds have a title, and some share one."""
    starts = np.arange(0, num_documents * per_document + 1, per_document)
    distinct = unit(rng, 7, width)
    of = rng.integers(-3, 7, num_documents)
    of[of < 0] = -1
    vectors = unit(rng, int(starts[-1]), width).astype(np.float32)
    titles = np.where(of[:, None] >= 0, distinct[of], 0).astype(np.float32)
    of_rows = np.repeat(titles, np.diff(starts), axis=0)
    neighbours = TitledNeighbours(
        vectors, None, Titles(Neighbours(distinct), of), starts, joined_norms(vectors, of_rows)
    )
    return neighbours, vectors, of_rows


def test_scores_are_the_better_of_alone_and_beside_the_title(rng):
    neighbours, vectors, titles = titled(rng)
    for query in unit(rng, 20, WIDTH):
        expected = better(vectors, titles, query)
        rows = rng.permutation(len(vectors))[:11]
        np.testing.assert_allclose(neighbours.scores(rows, query), expected[rows], atol=1e-5)
        np.testing.assert_allclose(neighbours.scores(slice(3, 9), query), expected[3:9], atol=1e-5)
        np.testing.assert_allclose(neighbours.rough_scores(query), expected, atol=1e-5)
        found, _ = neighbours.nearest(query, 5)
        np.testing.assert_array_equal(found, np.argsort(-expected, kind="stable")[:5])


def test_a_chunk_that_points_away_from_its_title_is_compared_alone(rng):
    vectors = unit(rng, 1, WIDTH)
    neighbours = TitledNeighbours(
        vectors,
        None,
        Titles(Neighbours(-vectors), np.array([0])),
        np.array([0, 1]),
        joined_norms(vectors, -vectors),
    )
    query = unit(rng, WIDTH)
    np.testing.assert_allclose(neighbours.scores(np.array([0]), query), vectors @ query, atol=1e-6)


def test_among_many_a_document_is_found_by_its_title_alone(rng, tmp_path):
    from dewey_embed.index.ivf import build_ivf, read_ivf

    num = EXACT_LIMIT + 1000
    vectors = unit(rng, num, 32).astype(np.float16)
    build_ivf(vectors, tmp_path / "v.faiss")
    title = unit(rng, 1, 32)
    of = np.full(num // 10, -1)
    of[4321] = 0
    of_rows = np.zeros((num, 32), np.float32)
    of_rows[43210:43220] = title
    neighbours = TitledNeighbours(
        vectors,
        read_ivf(tmp_path / "v.faiss", num),
        Titles(Neighbours(title), of),
        np.arange(0, num + 1, 10),
        joined_norms(vectors, of_rows),
    )
    found, scores = neighbours.nearest(title[0], 5)
    assert set(found) & set(range(43210, 43220))
    assert scores[0] == pytest.approx(better(vectors.astype(float), of_rows, title[0]).max(), 1e-3)


def test_a_title_lifts_the_chunks_of_its_document_through_the_store(store, rng):
    title = unit(rng, WIDTH)
    plain = record("a", num_chunks=3)
    named = record("b", num_chunks=3, title="Quetzal")
    records = [plain, type(named)(**{**fields(named), "title_vector": title})]
    write(store, records)
    found = open_layout(store.folder, store.snapshot())
    titles = np.repeat([np.zeros(WIDTH), title], 3, axis=0).astype(np.float32)
    chunks = np.concatenate([r.vectors.chunks.astype(np.float16) for r in records])
    np.testing.assert_allclose(
        found.chunk_vectors.scores(np.arange(6), title),
        better(chunks.astype(np.float32), titles, title),
        atol=1e-5,
    )
    assert found.words.scores("quetzal").tolist()[0] == 0
    assert found.words.scores("quetzal")[1] > 0


def fields(made):
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (Document(id="1", text="", title="Annual report"), "Annual report"),
        (Document(id="/c/lease_2024-v2.pdf", source="/c/lease_2024-v2.pdf", text=""), "lease"),
        (
            Document(id="/c/a.pdf", source="/c/a.pdf", text="", title="Lease of the mill"),
            "Lease of the mill",
        ),
        (
            Document(id="/c/müll_Vertrag.txt", source="/c/müll_Vertrag.txt", text="", title=""),
            "müll Vertrag",
        ),
        (Document(id="/c/2503.20376.pdf", source="/c/2503.20376.pdf", text=""), ""),
        (Document(id="r1", source="/c/x.jsonl", text=""), ""),
        (Document(id="n", text=""), ""),
    ],
)
def test_a_document_is_called_by_its_title_or_the_words_of_its_files_name(document, text):
    assert title_text(document) == text
    assert (file_name(document) == "") == (document.id != document.source)
