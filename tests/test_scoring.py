"""The formulas of scoring in closed form, and `similarity` against them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dewey_embed.errors import ConfigError
from dewey_embed.scoring import ZScores, hybrid_scores, multi_scores, similarity
from dewey_embed.types import DocumentVectors, Span

SAMPLES = arrays(np.float32, st.integers(2, 20), elements=st.floats(-4, 4, width=16))


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_z_scores_of_their_own_sample_have_mean_zero_and_deviation_one():
    sample = floats(1, 2, 6)
    expected = (np.array([1, 2, 6]) - 3) / np.sqrt(14 / 3)
    np.testing.assert_allclose(ZScores(sample)(sample), expected, rtol=1e-6)


@pytest.mark.parametrize("sample", [floats(), floats(0.7), floats(0.7, 0.7, 0.7)])
def test_a_constant_or_empty_sample_gives_zeros(sample):
    assert ZScores(sample)(floats(1, -2)).tolist() == [0, 0]


@given(SAMPLES)
def test_z_scores_keep_the_order_of_scores(sample):
    scores = ZScores(sample)(sample)
    order = np.argsort(sample, kind="stable")
    assert (np.diff(scores[order]) >= 0).all()


def test_weights_of_multi_and_hybrid():
    assert multi_scores(floats(1, 0, 0.8), floats(0, 1, 0.8)).tolist() == pytest.approx(
        [0.75, 0.25, 0.8]
    )
    assert hybrid_scores(floats(1, 0, -2), floats(0, 1, -2)).tolist() == pytest.approx(
        [0.25, 0.75, -2]
    )


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


def test_similarity_takes_the_best_chunk_or_the_document_vector_alone():
    documents = [document([0, 1], [1, 0], [0, 1]), document([0.6, 0.8])]
    queries = floats(1, 0)
    multi = similarity(queries, documents, 2, mode="multi")
    single = similarity(queries, documents, 2, mode="single")
    np.testing.assert_allclose(multi, [[0.75, 0.6]], atol=1e-6)
    np.testing.assert_allclose(single, [[0, 0.6]], atol=1e-6)


def test_similarity_of_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="'hybrid' is unknown; accepted: multi, single"):
        similarity(floats(1, 0), floats(1, 0), 2, mode="hybrid")
