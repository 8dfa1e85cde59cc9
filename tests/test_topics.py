"""A document's topics and their vectors, against closed forms and an oracle."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.topics import (
    ALIKE,
    COMMON_SHARE,
    CUT_COST,
    HALF_WEIGHT_AT,
    LONGEST,
    MEAN_WEIGHT,
    MOST_VECTORS,
    STRETCH_TOKENS,
    change_points,
    joined,
    stretches_of,
    topic_vectors,
)

WIDTH = 32


def topics(rows):
    """Of a document that has them beside a vector of its own."""
    return topic_vectors(rows, np.zeros(WIDTH, np.float32))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def noisy(sizes, noise=0.2, seed=0, axes=None):
    """Unit stretches of topics along different axes, so many of each."""
    rows = np.eye(WIDTH)[np.repeat(np.arange(len(sizes)) if axes is None else axes, sizes)]
    return unit(
        rows + np.random.default_rng(seed).normal(0, noise / WIDTH**0.5, rows.shape)
    ).astype(np.float32)


def test_a_topic_is_the_mean_direction_of_its_stretches():
    rows = noisy([3, 9, 2])
    expected = unit(np.stack([rows[:3].sum(0), rows[3:12].sum(0), rows[12:].sum(0)]))
    np.testing.assert_allclose(topics(rows), expected, atol=1e-6)


def test_a_small_topic_of_a_long_document_keeps_a_vector_as_near_as_alone():
    rows = noisy([40, 3, 60])
    small = unit(rows[40:43].sum(0))
    assert (topics(rows) @ small).max() == pytest.approx(1, abs=1e-5)
    assert unit(rows.sum(0)) @ small < 0.1


@pytest.mark.parametrize("num", range(MOST_VECTORS))
def test_a_document_of_few_stretches_has_its_own_vector_alone(num):
    own = unit(np.ones(WIDTH, np.float32))
    np.testing.assert_array_equal(topic_vectors(noisy([1] * num), own), own[None])


@given(st.integers(0, 1000))
def test_stretches_are_all_of_a_text_in_order_and_only_the_last_is_short(num):
    stretches = stretches_of(num)
    assert [token for start, end in stretches for token in range(start, end)] == list(range(num))
    assert all(end - start == STRETCH_TOKENS for start, end in stretches[:-1])


def test_more_topics_than_vectors_share_them_and_long_ones_count_no_more_than_short_ones():
    sizes = [40, 4, 40, 4, 40, 4, 40, 4]
    rows = noisy(sizes, noise=0)
    vectors = topics(rows)
    assert vectors.shape == (MOST_VECTORS, WIDTH)
    # Of orthogonal topics the second moment is their shares: the formula is closed.
    strength = (len(sizes) / 2 - MOST_VECTORS / 2) ** 2
    weights = 1 / (1 + strength * np.array(sizes) / sum(sizes))
    mean_weight = MEAN_WEIGHT * strength / (strength + HALF_WEIGHT_AT)
    for number, vector in enumerate(vectors):
        apart = np.zeros(WIDTH)
        apart[2 * number : 2 * number + 2] = weights[2 * number : 2 * number + 2]
        expected = unit(apart) + mean_weight * unit(rows.sum(axis=0))
        np.testing.assert_allclose(vector, unit(expected), atol=1e-5)
    assert weights[1] > weights[0]


def test_a_document_of_many_topics_stays_as_near_to_their_subject_as_one_of_few():
    """So that a query which any of them could answer does not find the shorter one only."""
    subject = np.eye(1, WIDTH, dtype=np.float32)
    nearness = []
    for num in (3, 24):
        rows = unit(noisy([4] * num, axes=range(1, num + 1)) + 0.5 * subject)
        nearness.append((topics(rows) @ subject.T).max())
    assert nearness[1] > nearness[0]


def test_neighbours_that_are_alike_are_joined_while_there_are_too_many():
    again = noisy([12, 12, 12, 12, 12, 12], noise=1.2, axes=[0, 0, 1, 2, 3, 3])
    expected = unit(np.stack([part.sum(0) for part in np.split(again, [24, 36, 48])]))
    np.testing.assert_allclose(topics(again), expected, atol=1e-5)


@pytest.mark.parametrize(("cosine", "num"), [(ALIKE / 2, 8), (ALIKE * 2, 4)])
def test_neighbours_below_the_cosine_stay_apart_and_share_a_vector(cosine, num):
    """Pairs of neighbours along axes of their own, so alike within a pair."""
    rows = np.zeros((40, WIDTH), np.float32)
    for pair in range(4):
        own = slice(10 * pair, 10 * pair + 10)
        rows[own, 2 * pair] = 1
        rows[10 * pair + 5 : own.stop, 2 * pair : 2 * pair + 2] = cosine, (1 - cosine**2) ** 0.5
    distinct = unit(rows - COMMON_SHARE * np.outer(rows @ unit(rows.mean(0)), unit(rows.mean(0))))
    assert len(change_points(distinct)) - 1 == 8
    assert len(joined(distinct, change_points(distinct))) - 1 == num


def test_what_all_stretches_have_in_common_hides_no_topic():
    own = np.repeat(np.eye(WIDTH, dtype=np.float32)[1:3], 6, axis=0)
    rows = unit(np.eye(WIDTH, dtype=np.float32)[:1] + 0.6 * own)
    assert len(change_points(rows)) - 1 == 1
    np.testing.assert_allclose(topics(rows), rows[[0, 6]], atol=1e-6)


def test_a_topic_may_be_longer_than_the_longest_between_two_cuts():
    rows = noisy([LONGEST + 40, 30, 30, 30], noise=0)
    np.testing.assert_allclose(topics(rows), np.eye(4, WIDTH), atol=1e-6)


def cost(rows, bounds):
    parts = [rows[start:end] for start, end in itertools.pairwise(bounds)]
    squares = sum(((part - part.mean(0)) ** 2).sum() for part in parts)
    return squares + CUT_COST * len(parts)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 7), st.integers(0, 2**16))
def test_cuts_are_the_cheapest_of_all(num, seed):
    rng = np.random.default_rng(seed)
    rows = noisy(np.ones(num, int), noise=0.5, seed=seed, axes=rng.integers(0, 3, num))
    best = min(
        cost(rows, (0, *inner, num))
        for count in range(num)
        for inner in itertools.combinations(range(1, num), count)
    )
    bounds = change_points(rows)
    assert (bounds[0], bounds[-1]) == (0, num)
    assert cost(rows, bounds) == pytest.approx(best, abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16))
def test_turning_all_stretches_turns_the_vectors(seed):
    rng = np.random.default_rng(seed)
    rows = noisy(rng.integers(1, 9, 8), seed=seed)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    np.testing.assert_allclose(topics(rows @ turn), topics(rows) @ turn, atol=1e-4)


def test_stretches_that_are_all_the_same_are_one_topic():
    rows = np.repeat(noisy([1]), 50, axis=0)
    np.testing.assert_allclose(topics(rows), rows[:1], atol=1e-6)
