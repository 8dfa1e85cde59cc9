"""Nearest vectors: exact where it says exact, and close to it where there are many."""

import shutil

import numpy as np
import pytest

from dewey_embed.index.ivf import build_ivf
from dewey_embed.index.vectors import Neighbours, read_neighbours
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


@pytest.fixture(scope="module")
def clustered(rng, tmp_path_factory):
    centres = unit(rng, 300, 64)
    owners = rng.integers(0, 300, 60_000)
    vectors = centres[owners] + 0.09 * rng.standard_normal((60_000, 64)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    path = tmp_path_factory.mktemp("ivf") / "chunks.faiss"
    build_ivf(vectors, path)
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


def test_inverted_search_finds_as_many_as_asked_through_a_filter(clustered, rng, monkeypatch):
    monkeypatch.setattr("dewey_embed.index.vectors.EXACT_LIMIT", 50_000)
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
    assert many.sum() > 50_000
    rows, _ = neighbours.nearest(query, 3000, many)
    assert len(rows) == 3000
    assert many[rows].all()


def test_inverted_search_reaches_every_vector(clustered):
    vectors, neighbours, _ = clustered
    rows, _ = neighbours.nearest(vectors[0].astype(np.float32), len(vectors))
    assert len(rows) == len(vectors)


def test_the_same_vectors_give_the_same_index(clustered, tmp_path):
    vectors, _, path = clustered
    build_ivf(vectors, tmp_path / "again.faiss")
    for suffix in (".faiss", ".lists"):
        again = tmp_path / f"again{suffix}"
        assert again.read_bytes() == path.with_suffix(suffix).read_bytes()


def test_far_queries_find_their_nearest_too(clustered, rng):
    vectors, neighbours, _ = clustered
    hits = 0
    for query in unit(rng, 200, 64):  # of no cluster: worse than any real question
        rows, _ = neighbours.nearest(query, 10)
        hits += len(set(rows.tolist()) & set(brute_force(vectors, query, 10)[0].tolist()))
    assert hits / 2000 >= 0.85


@pytest.mark.parametrize("width", [1, 33, 50])
def test_any_width_can_be_inverted(width, rng, tmp_path):
    vectors = unit(rng, 2000, width)
    build_ivf(vectors, tmp_path / "v.faiss")
    query = unit(rng, width)
    rows, scores = read_neighbours(vectors, tmp_path / "v.faiss").nearest(query, 10)
    assert len(set(rows.tolist())) == 10
    assert scores[0] == pytest.approx(float((vectors @ query).max()), abs=1e-5)


def test_an_inverted_file_may_be_moved_and_stays_while_it_is_open(clustered, tmp_path):
    vectors, neighbours, path = clustered
    for suffix in (".faiss", ".lists"):
        shutil.copy(path.with_suffix(suffix), tmp_path / f"moved{suffix}")
    moved = read_neighbours(vectors, tmp_path / "moved.faiss")
    shutil.rmtree(tmp_path)  # its pages stay for whoever has it open
    query = vectors[7].astype(np.float32)
    np.testing.assert_array_equal(moved.nearest(query, 10)[0], neighbours.nearest(query, 10)[0])


def test_lists_that_are_not_whole_are_refused(clustered, tmp_path):
    vectors, _, path = clustered
    shutil.copy(path, tmp_path / "v.faiss")
    (tmp_path / "v.lists").write_bytes(path.with_suffix(".lists").read_bytes()[:-1])
    with pytest.raises(ValueError, match="expected"):
        read_neighbours(vectors, tmp_path / "v.faiss")


def test_the_more_vectors_are_alike_the_more_are_scored(tmp_path, monkeypatch):
    """Copies crowd around each vector: a fixed number of candidates would miss the nearest."""
    rng = np.random.default_rng(11)
    originals = unit(rng, 30, 64)
    vectors = np.repeat(originals, 700, axis=0)
    vectors = vectors + 0.02 * rng.standard_normal(vectors.shape).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    build_ivf(vectors, tmp_path / "chunks.faiss")
    neighbours = read_neighbours(vectors, tmp_path / "chunks.faiss")
    found = {}
    for growth in (0, 50):
        monkeypatch.setattr("dewey_embed.index.vectors._CANDIDATES_GROWTH", growth)
        hits = 0
        for query in originals:
            rows, _ = neighbours.nearest(query, 10)
            hits += len(set(rows) & set(brute_force(vectors, query, 10)[0]))
        found[growth] = hits / 300
    assert found[0] < 0.5
    assert found[50] > 0.98


def test_building_says_how_far_it_is(clustered, tmp_path):
    vectors, _, _ = clustered
    done = []
    build_ivf(vectors, tmp_path / "v.faiss", done.append)
    assert sum(done) == len(vectors)
    assert len(done) > 1
