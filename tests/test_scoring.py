"""The formulas of scoring in closed form, and `similarity` against them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_embed.errors import ConfigError, InputError
from dewey_embed.quantization import to_precision
from dewey_embed.scoring import Scales, multi_scores, nearest, passage_scores, similarity
from dewey_embed.types import DocumentVectors, Span


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


SHARES = st.floats(0, 1, width=16)


def test_weights_of_multi_and_hybrid():
    assert multi_scores(floats(1, 0, 0.8), floats(0, 1, 0.8)).tolist() == pytest.approx(
        [0.75, 0.25, 0.8]
    )
    meaning = Scales(floats(1, 0.4), floats(0, 0.8), floats(0, 0.4), floats(0, 0.2))
    words = Scales(floats(0, 0.6), floats(0, 0.2), floats(1, 0.4))
    own, around = np.array([1, 0.4 + 0.4 + 0.3 + 0.1]), np.array([0.75, 0.6 + 0.1 + 0.3])
    np.testing.assert_allclose(passage_scores(meaning, None), own / 2.75, rtol=1e-6)
    hybrid = (0.35 * own + 0.65 * around) / (0.35 * 2.75 + 0.65 * 2.25)
    np.testing.assert_allclose(passage_scores(meaning, words), hybrid, rtol=1e-6)


@given(
    st.lists(st.floats(-1, 1, width=16), min_size=4, max_size=4),
    st.lists(SHARES, min_size=3, max_size=3),
)
def test_scores_are_from_zero_to_one(cosines, shares):
    meaning, words = Scales(*map(floats, cosines)), Scales(*map(floats, shares))
    for scores in (passage_scores(meaning, None), passage_scores(meaning, words)):
        assert 0 <= scores[0] <= 1 + 1e-6


def test_what_matches_perfectly_scores_one():
    one = floats(1)
    scores = passage_scores(Scales(one, one, one, one), Scales(one, one, one))
    assert scores.tolist() == pytest.approx([1])


def document(*rows: list[float]) -> DocumentVectors:
    vector, *chunks = np.array(rows, np.float32)
    spans = [Span(0, 1, 0, 1)] * len(chunks)
    return DocumentVectors(
        vector=vector,
        chunks=np.array(chunks, np.float32).reshape(-1, len(vector)),
        spans=spans,
        num_tokens=1,
        used_tokens=1,
    )


def test_single_is_by_the_nearest_of_several_vectors_and_multi_by_the_one():
    several = replace(document([1, 0], [0.6, 0.8]), vectors=floats([0, 1], [0.6, 0.8]))
    queries = floats([0, 1], [1, 0])
    single = similarity(queries, [several], 2, mode="single")
    np.testing.assert_allclose(single, [[1], [0.6]], atol=1e-6)
    multi = similarity(queries, [several], 2, mode="multi")
    np.testing.assert_allclose(multi, [[0.6], [0.75 * 0.6 + 0.25]], atol=1e-6)
    broken = replace(several, vectors=floats([0, np.nan]))
    with pytest.raises(InputError, match="document 0"):
        similarity(queries, [broken], 2, mode="single")
    with pytest.raises(ConfigError, match=r"shape \(1, 2, 2\), need \(N, D\)"):
        similarity(queries, several.vectors[None], 2, mode="single")


def test_similarity_takes_the_best_chunk_or_the_document_vector_alone():
    documents = [document([0, 1], [1, 0], [0, 1]), document([0.6, 0.8])]
    queries = floats(1, 0)
    multi = similarity(queries, documents, 2, mode="multi")
    single = similarity(queries, documents, 2, mode="single")
    np.testing.assert_allclose(multi, [[0.75, 0.6]], atol=1e-6)
    np.testing.assert_allclose(single, [[0, 0.6]], atol=1e-6)


RANDOM = np.random.default_rng(5)


def unit(*shape):
    vectors = RANDOM.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_nearest_is_the_order_of_similarity_best_first_equal_ones_by_row():
    queries, documents = unit(3, 16), unit(20, 16)
    rows, scores = nearest(queries, documents, 16, k=5, mode="multi", rescore_multiplier=1)
    cosines = queries @ documents.T
    np.testing.assert_array_equal(rows, np.argsort(-cosines, axis=1)[:, :5])
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, :-6:-1], atol=1e-6)
    same = np.repeat(floats([1, 0], [0, 1]), 3, axis=0)
    rows, _ = nearest(floats(0, 1), same, 2, k=9, mode="multi", rescore_multiplier=1)
    assert rows.tolist() == [[3, 4, 5, 0, 1, 2]]


@pytest.mark.parametrize("multiplier", [1, 2, 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_candidates_of_the_first_vectors_are_ordered_by_the_exact_ones(multiplier, chunked):
    queries, exact = unit(4, 16), unit(20, 16)
    rough = to_precision(exact, "binary")
    if chunked:
        exact, rough = ([document(row, row) for row in each] for each in (exact, rough))
        rough = [replace(each, vector=each.vector.astype(np.int8),
                         chunks=each.chunks.astype(np.int8)) for each in rough]  # fmt: skip
    rows, scores = nearest(
        queries, rough, 16, k=2, mode="multi", rescore=exact, rescore_multiplier=multiplier
    )
    by_bits = similarity(queries, rough, 16, mode="multi")
    by_cosine = similarity(queries, exact, 16, mode="multi")
    for query, own in enumerate(rows):
        candidates = np.argsort(-by_bits[query], kind="stable")[: 2 * multiplier]
        best = sorted(candidates, key=lambda row, query=query: -by_cosine[query, row])[:2]
        assert own.tolist() == best
        np.testing.assert_allclose(scores[query], by_cosine[query, best], atol=1e-6)


def test_what_cannot_be_searched_is_refused():
    vectors = unit(3, 16)
    with pytest.raises(InputError, match="rescore holds 2 documents, 3 were searched"):
        nearest(vectors, vectors, 16, k=1, mode="multi", rescore=vectors[:2], rescore_multiplier=4)
    with pytest.raises(ConfigError, match="k is 0"):
        nearest(vectors, vectors, 16, k=0, mode="multi", rescore_multiplier=4)


def test_similarity_of_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="'hybrid' is unknown; accepted: multi, single"):
        similarity(floats(1, 0), floats(1, 0), 2, mode="hybrid")
