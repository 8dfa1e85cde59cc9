"""Scores by query, their intervals, and paired differences."""

import numpy as np
import pytest

from dewey_embed.eval.scores import interval, paired_p_value, query_scores


class TestQueryScores:
    def test_the_only_relevant_document_at_rank_two_scores_one_over_log2_of_three(self):
        found = query_scores({"q": {"b": 1}}, {"q": {"a": 0.9, "b": 0.8}})
        assert found["q"]["ndcg_at_10"] == pytest.approx(1 / np.log2(3))
        assert found["q"]["ndcg_at_1"] == 0.0
        assert found["q"]["recall_at_10"] == 1.0

    def test_gains_count_as_they_stand(self):
        found = query_scores({"q": {"a": 1, "b": 4}}, {"q": {"a": 0.9, "b": 0.8}})
        assert found["q"]["ndcg_at_10"] == pytest.approx(
            (1 + 4 / np.log2(3)) / (4 + 1 / np.log2(3))
        )

    def test_a_query_without_an_answer_counts_as_zero_and_one_without_gains_not_at_all(self):
        found = query_scores(
            {"q": {"a": 1}, "unanswered": {"a": 1}, "unjudged": {}}, {"q": {"a": 1}}
        )
        assert {query: scores["ndcg_at_10"] for query, scores in found.items()} == {
            "q": 1.0,
            "unanswered": 0.0,
        }


class TestInterval:
    def test_holds_the_mean_and_narrows_with_the_root_of_the_number(self):
        values = np.random.default_rng(1).uniform(size=4000)
        few, many = interval(values[:40]), interval(values)
        assert few.low < few.mean < few.high
        assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.25)
        # The closed form for a mean of uniform values: 1.96 * sqrt(1/12 / n) on each side.
        assert many.high - many.low == pytest.approx(2 * 1.96 * np.sqrt(1 / 12 / 4000), rel=0.15)

    @pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5]])
    def test_of_equal_values_is_a_point(self, values):
        assert interval(np.array(values)) == (0.5, 0.5, 0.5)

    def test_is_the_same_every_time(self):
        values = np.random.default_rng(2).uniform(size=50)
        assert interval(values) == interval(values)


class TestPairedDifference:
    def test_equal_scores_differ_by_chance_only(self):
        values = np.random.default_rng(3).uniform(size=50)
        assert paired_p_value(values, values) == 1.0
        assert paired_p_value(values[:1], values[:1] + 1) == 1.0  # both swaps are as far apart

    def test_a_constant_lead_is_no_chance(self):
        values = np.random.default_rng(4).uniform(size=50)
        assert paired_p_value(values + 0.1, values) < 0.01

    def test_few_pairs_are_counted_exactly(self):
        # Of the 8 ways to swap three pairs, one has a sum as large, one as small: two-sided 2/8.
        assert paired_p_value(np.array([2.0, 3.0, 4.0]), np.array([1.0, 1.0, 1.0])) == 0.25
