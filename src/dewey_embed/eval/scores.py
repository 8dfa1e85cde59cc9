"""A model's scores on a task, query by query; intervals of their means and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mteb.results import TaskResult

MEASURES = {
    "ndcg_cut_1": "ndcg_at_1",
    "ndcg_cut_10": "ndcg_at_10",
    "recall_5": "recall_at_5",
    "recall_10": "recall_at_10",
}
"""trec_eval's measures under mteb's names."""

RESAMPLES = 2000
SEED = 20

Doubles = NDArray[np.float64]
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
    """Why a model has no result on a task; `model` is empty where no model could have one."""

    model: str
    task: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """A model's scores on a task: mteb's result, and of a retrieval task every query's scores.

    `model` is the label of its column; `queries` holds the scores by split and query.
    """

    model: str
    task: str
    result: TaskResult
    queries: dict[str, QueryScores] = field(default_factory=dict)

    @property
    def main_score(self) -> float:
        """The task's main score, the mean over its splits and subsets."""
        entries = [entry for split in self.result.scores.values() for entry in split]
        return float(np.mean([entry["main_score"] for entry in entries]))

    @property
    def ndcg_by_query(self) -> Doubles | None:
        """nDCG@10 of every query, in one order for all models; `None` of other tasks."""
        return self.by_query("ndcg_at_10")

    def by_query(self, measure: str) -> Doubles | None:
        """Every query's score by a measure, in one order; `None` where it was not measured."""
        ordered = [
            scores
            for _, queries in sorted(self.queries.items())
            for _, scores in sorted(queries.items())
        ]
        if not ordered or any(measure not in scores for scores in ordered):
            return None
        return np.array([scores[measure] for scores in ordered])


def query_scores(qrels: Qrels, ranking: Ranking) -> QueryScores:
    """Scores of every query of the qrels by measure; 0 for a query without hits."""
    import pytrec_eval

    judged = {query: dict(gains) for query, gains in qrels.items() if gains}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.1,10", "recall.5,10"})
    scores = evaluator.evaluate({query: dict(ranking.get(query, {})) for query in judged})
    return {
        query: {name: float(scores.get(query, {}).get(key, 0.0)) for key, name in MEASURES.items()}
        for query in judged
    }


def rank_documents(
    queries: Iterable[str], documents: Sequence[str], scores: Iterable[Sequence[float]], top_k: int
) -> dict[str, dict[str, float]]:
    """The `top_k` best documents of each query, by scores (Q, N); of equal ones the first."""
    ranking = {}
    for query, row in zip(queries, np.asarray(scores), strict=True):
        best = np.argsort(-row, kind="stable")[:top_k].tolist()
        ranking[query] = {documents[place]: float(row[place]) for place in best}
    return ranking


def interval(values: Doubles) -> Interval:
    """The mean of queries' scores with its 95% interval, by the percentile bootstrap.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    from scipy.stats import bootstrap

    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    result = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(SEED), batch=200,
    )  # fmt: skip
    return Interval(mean, *(float(edge) for edge in result.confidence_interval))


def paired_p_value(ours: Doubles, theirs: Doubles) -> float:
    """The probability of as large a mean difference by chance, from swapping pairs at random.

    `ours` and `theirs` are scores of the same queries in the same order.
    Source: Smucker, Allan and Carterette, CIKM 2007: the randomisation test.
    """
    from scipy.stats import permutation_test

    if len(ours) < 2 or not np.any(ours != theirs):  # one pair is as far apart either way round
        return 1.0
    result = permutation_test(
        (ours, theirs), _mean_difference, permutation_type="samples", vectorized=True,
        n_resamples=RESAMPLES, rng=np.random.default_rng(SEED), batch=200,
    )  # fmt: skip
    return float(result.pvalue)


def _mean_difference(ours: Doubles, theirs: Doubles, axis: int) -> Doubles:
    difference: Doubles = np.mean(ours - theirs, axis=axis)
    return difference
