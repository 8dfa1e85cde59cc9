"""A few vectors for a long document, by its topics, each of which counts the same.

The mean of a long text is near to everything and to nothing in particular: what fills one part in
a hundred of it is lost. So a document gets up to `MOST_VECTORS` vectors, made of those of its
stretches of `STRETCH_TOKENS` tokens. One of fewer stretches than that is served better by its mean.

1. Stretches, without most of what all of them have in common, are cut where the topic changes.
2. Neighbouring topics that are alike are joined, the most alike first, while there are more of
   them than vectors.
3. A topic is the mean direction of its stretches, however many they are.
4. Where there are more topics than vectors, neighbours share one: the sum of theirs, times the
   inverse of (1 + s · second moment of the stretches), so that they stay apart in it: directions
   in which the document says much are worth less. s is the square of half the topics too many.
5. That takes away what all topics have in common, by which a query is near to any of them, and
   among shorter documents such a one would never be found. So the mean direction of the stretches
   is added again, the more the larger s is.

Source of 1: optimal partitioning, Jackson et al., arXiv math/0309285; the cost of a segment is the
sum of squared distances of its unit vectors to their mean. Of 4: Fisher's linear discriminant, as
in generalised max pooling (Murray and Perronnin, CVPR 2014). docs/log.md has what was tried.

Shape suffixes: P stretches of a text, S topics, V vectors, D width.
"""

from __future__ import annotations

import numpy as np

from dewey_embed.types import Floats, Rows

MOST_VECTORS = 4

STRETCH_TOKENS = 128
"""The last stretch of a text has what is left."""

COMMON_SHARE = 0.8
"""Share of the stretches' common direction that is taken out before topics are told apart."""

CUT_COST = 1.6
"""What a topic must save in squared distances to be worth one more cut."""

ALIKE = 0.2
"""Neighbours whose cosine, without what is common, is above this are one topic."""

MEAN_WEIGHT, HALF_WEIGHT_AT = 1.2, 4.0
"""What is added again of the mean direction at most, and the s at which half of it is."""

LONGEST = 256
"""Most stretches between two cuts: joining makes longer topics of them again."""


def stretches_of(num_tokens: int) -> Rows:
    """Token ranges (P, 2) of the stretches of a text of so many tokens.

    >>> stretches_of(300).tolist()
    [[0, 128], [128, 256], [256, 300]]
    """
    starts = np.arange(0, num_tokens, STRETCH_TOKENS)
    return np.stack([starts, np.minimum(starts + STRETCH_TOKENS, num_tokens)], axis=1)


def topic_vectors(stretches: Floats, own: Floats) -> Floats:
    """Unit vectors (V, D) of a document's topics from those of its stretches (P, D), in order.

    A document of fewer than `MOST_VECTORS` stretches has its `own` vector (D,) alone.

    >>> rows = np.eye(8, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]
    >>> topic_vectors(rows, rows[0])[:, :2].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if len(stretches) < MOST_VECTORS:
        return own[None]
    distinct = _unit(_without_common(stretches))
    bounds = joined(distinct, change_points(distinct))
    topics = _unit(np.add.reduceat(stretches, bounds[:-1]))
    if len(topics) <= MOST_VECTORS:
        return topics
    sums = np.stack([group.sum(axis=0) for group in np.array_split(topics, MOST_VECTORS)])
    strength = ((len(topics) - MOST_VECTORS) / 2) ** 2
    mixing = stretches.T @ stretches * np.float32(strength / len(stretches))
    mixing[np.diag_indices_from(mixing)] += 1
    apart = _unit(np.linalg.solve(mixing, sums.T).T)
    mean_weight = np.float32(MEAN_WEIGHT * strength / (strength + HALF_WEIGHT_AT))
    return _unit(apart + mean_weight * _unit(stretches.mean(axis=0)))


def change_points(distinct: Floats) -> Rows:
    """Bounds (S + 1,) of segments of unit vectors (P, D) at the least total cost."""
    num = len(distinct)
    before = np.concatenate([np.zeros_like(distinct[:1]), np.cumsum(distinct, axis=0)])
    least, begin = np.zeros(num + 1), np.zeros(num + 1, np.int64)
    for end in range(1, num + 1):
        first = max(0, end - LONGEST)
        sums = before[end] - before[first:end]
        saved = np.einsum("pd,pd->p", sums, sums) / np.arange(end - first, 0, -1)
        costs = least[first:end] - saved + CUT_COST
        begin[end] = first + costs.argmin()
        least[end] = costs.min()
    bounds = [num]
    while bounds[-1] > 0:
        bounds.append(int(begin[bounds[-1]]))
    return np.array(bounds[::-1], np.int64)


def joined(distinct: Floats, bounds: Rows) -> Rows:
    """Bounds of topics: where there are many, neighbours that are alike are one."""
    sums = np.add.reduceat(distinct, bounds[:-1])
    while len(sums) > MOST_VECTORS:
        units = _unit(sums)
        cosines = np.einsum("sd,sd->s", units[1:], units[:-1])
        nearest = int(cosines.argmax())
        if cosines[nearest] < ALIKE:
            break
        sums[nearest] += sums[nearest + 1]
        sums = np.delete(sums, nearest + 1, axis=0)
        bounds = np.delete(bounds, nearest + 1)
    return bounds


def _without_common(stretches: Floats) -> Floats:
    """The stretches with less of the direction of their mean."""
    common = _unit(stretches.mean(axis=0))
    return stretches - COMMON_SHARE * (stretches @ common)[:, None] * common


def _unit(vectors: Floats) -> Floats:
    """The vectors scaled to unit length; zeros stay zeros."""
    units: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return units
