"""Scores query by query, and what can be said of their means: intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mteb.results import TaskResult

MEASURES = {"ndcg_cut_1": "ndcg_at_1", "ndcg_cut_10": "ndcg_at_10", "recall_10": "recall_at_10"}
"""trec_eval's measures under mteb's names."""

RESAMPLES = 2000
SEED = 20

Qrels = Mapping[str, Mapping[str, int]]
Ranking = Mapping[str, Mapping[str, float]]
QueryScores = dict[str, dict[str, float]]


class Interval(NamedTuple):
    """A mean over queries with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why one contender has no result on one task."""

    contender: str
    task: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """What one contender reached on one task.

    `queries` are the scores by query and split of a retrieval task, empty of any other.
    """

    contender: str
    task: str
    result: TaskResult
    queries: dict[str, QueryScores] = field(default_factory=dict)


def query_scores(qrels: Qrels, ranking: Ranking) -> QueryScores:
    """Scores of every query of the qrels by measure; a query without an answer has 0."""
    import pytrec_eval

    asked = {query: dict(gains) for query, gains in qrels.items() if gains}
    evaluator = pytrec_eval.RelevanceEvaluator(asked, {"ndcg_cut.1,10", "recall.10"})
    found = evaluator.evaluate({query: dict(ranking.get(query, {})) for query in asked})
    return {
        query: {name: float(found.get(query, {}).get(key, 0.0)) for key, name in MEASURES.items()}
        for query in asked
    }


def interval(values: NDArray[np.float64]) -> Interval:
    """The mean of some queries' scores with its 95% interval, by the percentile bootstrap.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    from scipy.stats import bootstrap

    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(SEED), batch=200,
    )  # fmt: skip
    return Interval(mean, *(float(edge) for edge in found.confidence_interval))


def paired_p_value(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """How likely as large a mean difference is if the two do alike, by swapping pairs at random.

    `ours` and `theirs` are scores of the same queries in the same order.
    Source: Smucker, Allan and Carterette, CIKM 2007: the randomisation test.
    """
    from scipy.stats import permutation_test

    if not np.any(ours != theirs):
        return 1.0
    found = permutation_test(
        (ours, theirs), _mean_difference, permutation_type="samples", vectorized=True,
        n_resamples=RESAMPLES, rng=np.random.default_rng(SEED), batch=200,
    )  # fmt: skip
    return float(found.pvalue)


def _mean_difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    difference: NDArray[np.float64] = np.mean(ours - theirs, axis=axis)
    return difference
