"""Nearest vectors: exact where it says exact, and close to it where there are many."""

import numpy as np
import pytest

from dewey_embed.index.neighbours import (
    EXACT_LIMIT,
    Neighbours,
    best_documents,
    build_inverted,
    read_neighbours,
)
from tests.index.conftest import unit


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(7)


def brute_force(vectors, query, num):
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    return np.argsort(-scores, kind="stable")[:num], scores


def test_flat_search_equals_brute_force(rng):
    vectors = unit(rng, 3000, 48).astype(np.float16)
    neighbours = Neighbours(vectors)
    for query in unit(rng, 20, 48):
        rows, scores = neighbours.nearest(query, 10)
        expected, exact = brute_force(vectors, query, 10)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(scores, exact[expected], atol=1e-6)


def test_equal_vectors_come_in_the_order_of_their_rows(rng):
    vectors = np.repeat(unit(rng, 1, 33), 200, axis=0)
    rows, scores = Neighbours(vectors).nearest(vectors[0], 5)
    assert len(set(scores.tolist())) == 1
    assert rows.tolist() == sorted(rows.tolist())


def test_asking_for_more_than_there_are_gives_all(rng):
    vectors = unit(rng, 3, 8)
    assert len(Neighbours(vectors).nearest(vectors[0], 10)[0]) == 3
    assert len(Neighbours(vectors[:0]).nearest(vectors[0], 10)[0]) == 0


def test_only_allowed_rows_answer(rng):
    vectors = unit(rng, 500, 16)
    allowed = np.zeros(500, np.bool_)
    allowed[[3, 400]] = True
    rows, _ = Neighbours(vectors).nearest(vectors[0], 10, allowed)
    assert sorted(rows.tolist()) == [3, 400]
    assert len(Neighbours(vectors).nearest(vectors[0], 10, allowed & False)[0]) == 0


def test_documents_are_found_behind_one_that_owns_all_nearest_chunks(rng):
    query = unit(rng, 16)
    crowd = query + 0.01 * rng.standard_normal((5000, 16)).astype(np.float32)
    others = unit(rng, 40, 16)
    vectors = np.concatenate([crowd, others]).astype(np.float32)
    owners = np.concatenate([np.zeros(5000, np.int64), np.arange(1, 41)])
    rows, scores = best_documents(Neighbours(vectors), owners, query, 5)
    best = np.argsort(-(others @ query))[:4] + 1
    assert rows.tolist() == [0, *best.tolist()]
    assert np.all(np.diff(scores) <= 0)


@pytest.fixture(scope="module")
def clustered(rng, tmp_path_factory):
    centres = unit(rng, 300, 64)
    owners = rng.integers(0, 300, 60_000)
    vectors = centres[owners] + 0.09 * rng.standard_normal((60_000, 64)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    assert len(vectors) > EXACT_LIMIT
    path = tmp_path_factory.mktemp("ivf") / "chunks.faiss"
    build_inverted(vectors, path)
    return vectors, read_neighbours(vectors, path), path


def test_inverted_search_finds_the_true_ten(clustered, rng):
    vectors, neighbours, _ = clustered
    chosen = rng.integers(0, len(vectors), 200)
    queries = vectors[chosen] + 0.09 * rng.standard_normal((200, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    hits = 0
    for query in queries:
        rows, scores = neighbours.nearest(query, 10)
        expected, exact = brute_force(vectors, query, 10)
        hits += len(set(rows.tolist()) & set(expected.tolist()))
        np.testing.assert_allclose(scores, exact[rows], atol=1e-6)  # rescored in float
    assert hits / 2000 >= 0.97


def test_inverted_search_finds_as_many_as_asked_through_a_filter(clustered, rng):
    vectors, neighbours, _ = clustered
    query = vectors[0].astype(np.float32)
    few = np.zeros(len(vectors), np.bool_)
    few[::3000] = True
    rows, _ = neighbours.nearest(query, 10, few)
    np.testing.assert_array_equal(
        np.sort(rows), np.sort(brute_force(vectors[::3000], query, 10)[0] * 3000)
    )
    many = np.ones(len(vectors), np.bool_)
    many[rows] = False
    many[: len(vectors) // 10] = False
    assert many.sum() > EXACT_LIMIT
    rows, _ = neighbours.nearest(query, 3000, many)
    assert len(rows) == 3000
    assert many[rows].all()


def test_inverted_search_reaches_every_vector(clustered):
    vectors, neighbours, _ = clustered
    rows, _ = neighbours.nearest(vectors[0].astype(np.float32), len(vectors))
    assert len(rows) == len(vectors)


def test_the_same_vectors_give_the_same_index(clustered, tmp_path):
    vectors, _, path = clustered
    build_inverted(vectors, tmp_path / "again.faiss")
    assert (tmp_path / "again.faiss").read_bytes() == path.read_bytes()
