"""Figures of a run against closed forms and loops, their warnings, and the schedule."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dewey_embed.train.diagnostics import (
    HeldOut,
    alignment_figures,
    effective_rank,
    mean_pairwise_cosine,
    rank_figures,
    tightness_figures,
    warnings,
)
from dewey_embed.train.recipe import DiagnosticsRecipe, Recipe
from dewey_embed.train.schedule import Progress

LIMITS = DiagnosticsRecipe()


def unit_rows(random, *shape):
    rows = random.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def held_out(chunks, chunk_targets, texts, *, cls=None, cls_targets=None, text_tokens=None):
    """Vectors as one batch; whole texts default to the student agreeing with its teacher."""
    texts = np.asarray(texts)
    num_texts = int(texts.max()) + 1
    if cls is None:
        cls = cls_targets = np.eye(num_texts, chunks.shape[1], dtype=np.float32)
    if text_tokens is None:
        text_tokens = np.full(num_texts, 100)
    sizes = np.full(len(chunks), 50)
    return HeldOut(cls, cls_targets, chunks, chunk_targets, texts, sizes, np.asarray(text_tokens))


def all_figures(held):
    return alignment_figures(held) | tightness_figures(held) | rank_figures(held)


class TestRank:
    @pytest.mark.parametrize("count", [1, 3, 16])
    def test_orthonormal_rows_have_as_many(self, count):
        basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
        assert effective_rank(basis[:count].astype(np.float32)) == pytest.approx(count, rel=1e-5)

    def test_identical_rows_have_one(self):
        row = unit_rows(np.random.default_rng(0), 1, 16)
        assert effective_rank(np.repeat(row, 20, 0)) == pytest.approx(1, rel=1e-4)

    def test_two_directions_of_unequal_weight_by_hand(self):
        rows = np.array([[1, 0]] * 9 + [[0, 1]] * 4, np.float32)  # singular values 3 and 2
        expected = np.exp(-(0.6 * np.log(0.6) + 0.4 * np.log(0.4)))
        assert effective_rank(rows) == pytest.approx(expected, rel=1e-6)

    def test_a_collapsed_student_has_a_low_ratio(self):
        teacher = np.eye(8, dtype=np.float32)
        student = np.repeat(teacher[:1], 8, 0)
        figures = rank_figures(held_out(student, teacher, np.zeros(8, int)))
        assert figures["effective_rank"] == pytest.approx(1, rel=1e-4)
        assert figures["rank_ratio"] == pytest.approx(1 / 8, rel=1e-4)


class TestPairs:
    @given(count=st.integers(2, 12), width=st.integers(1, 9), seed=st.integers(0, 999))
    @settings(max_examples=60, deadline=None)
    def test_the_mean_cosine_of_pairs_is_the_double_loops(self, count, width, seed):
        rows = unit_rows(np.random.default_rng(seed), count, width)
        naive = [rows[i] @ rows[j] for i in range(count) for j in range(count) if i != j]
        assert mean_pairwise_cosine(rows) == pytest.approx(np.mean(naive), abs=1e-5)

    def test_tightness_is_the_mean_over_texts_with_several_chunks(self):
        same, apart = [[1, 0], [1, 0]], [[1, 0], [0, 1]]
        student = np.array([*same, *apart, [0, 1]], np.float32)
        teacher = np.array([*apart, *apart, [0, 1]], np.float32)
        cls = np.eye(3, 2, dtype=np.float32)
        held = held_out(student, teacher, [0, 0, 1, 1, 2], cls=cls, cls_targets=cls)
        figures = tightness_figures(held)
        assert figures["tightness"] == pytest.approx(0.5)
        assert figures["teacher_tightness"] == pytest.approx(0)
        assert figures["extra_tightness"] == pytest.approx(0.5)

    def test_texts_of_one_chunk_have_no_tightness(self):
        rows = np.eye(3, dtype=np.float32)
        assert tightness_figures(held_out(rows, rows, [0, 1, 2])) == {}


class TestAlignment:
    def test_a_student_that_is_its_teacher_is_aligned_without_warnings(self):
        random = np.random.default_rng(3)
        chunks, cls = unit_rows(random, 60, 24), unit_rows(random, 10, 24)
        tokens = np.arange(10) * 600 + 50
        figures = all_figures(
            held_out(chunks, chunks, np.arange(60) // 6, cls=cls, cls_targets=cls,
                     text_tokens=tokens)
        )  # fmt: skip
        for name in ("alignment", "chunk_cosine", "cls_cosine", "similarity_correlation",
                     "target_recall_at_1", "rank_ratio"):  # fmt: skip
            assert figures[name] == pytest.approx(1, abs=1e-5)
        assert figures["extra_tightness"] == pytest.approx(0, abs=1e-6)
        assert warnings(figures, LIMITS) == []

    def test_alignment_is_halfway_between_chunks_and_whole_texts(self):
        chunks = np.array([[1, 0], [0, 1]], np.float32)
        targets = np.array([[1, 0], [0, -1]], np.float32)
        cls, cls_targets = np.array([[1, 0]], np.float32), np.array([[0.6, 0.8]], np.float32)
        figures = alignment_figures(
            held_out(chunks, targets, [0, 0], cls=cls, cls_targets=cls_targets)
        )
        assert figures["chunk_cosine"] == pytest.approx(0)
        assert figures["cls_cosine"] == pytest.approx(0.6)
        assert figures["alignment"] == pytest.approx(0.3)

    def test_chunks_with_contextual_and_plain_targets_are_counted_and_measured_apart(self):
        chunks = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
        targets = np.array([[0.6, 0.8], [0, -1], [1, 0]], np.float32)
        held = held_out(chunks, targets, [0, 0, 1])
        assert not [name for name in alignment_figures(held) if "contextual" in name]
        figures = alignment_figures(replace(held, contextual=np.array([True, False, False])))
        wanted = (
            "contextual_chunks",
            "chunk_cosine_contextual",
            "plain_chunks",
            "chunk_cosine_plain",
        )
        assert [figures[name] for name in wanted] == pytest.approx([1, 0.6, 2, 0])
        every = alignment_figures(replace(held, contextual=np.ones(3, bool)))
        assert every["plain_chunks"] == 0
        assert "chunk_cosine_plain" not in every

    def test_a_turned_student_keeps_similarities_but_not_its_targets(self):
        random = np.random.default_rng(4)
        targets = unit_rows(random, 40, 16)
        turn, _ = np.linalg.qr(random.normal(size=(16, 16)))
        turned = (targets @ turn).astype(np.float32)
        figures = alignment_figures(held_out(turned, targets, np.arange(40) // 4))
        assert figures["similarity_correlation"] == pytest.approx(1, abs=1e-4)
        assert figures["target_recall_at_1"] < 0.5
        assert figures["chunk_cosine"] < 0.5

    def test_lengths_fall_into_half_open_buckets_and_empty_ones_are_left_out(self):
        cosines = np.array([1.0, 0.8, 0.6, 0.0])
        cls = np.stack([cosines, np.sqrt(1 - cosines**2)], 1).astype(np.float32)
        cls_targets = np.tile(np.array([[1, 0]], np.float32), (4, 1))
        chunks = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
        held = held_out(chunks, chunks, [0, 1, 2, 3], cls=cls, cls_targets=cls_targets,
                        text_tokens=[10, 255, 256, 4096])  # fmt: skip
        by_length = {k: v for k, v in alignment_figures(held).items() if "/" in k}
        assert by_length == pytest.approx(
            {
                "chunk_cosine/0-64": 1.0,
                "chunk_cosine_in/0-256": 1.0,
                "chunk_cosine_in/256-1024": 1.0,
                "chunk_cosine_in/4096-": 1.0,
                "cls_cosine/0-256": 0.9,
                "cls_cosine/256-1024": 0.6,
                "cls_cosine/4096-": 0.0,
            }
        )


class TestWarnings:
    @pytest.mark.parametrize(
        ("name", "good", "bad", "key"),
        [
            ("chunk_cosine", 0.61, 0.59, "training.learning_rate"),
            ("extra_tightness", 0.14, 0.16, "loss.similarity_chunks"),
            ("rank_ratio", 0.51, 0.49, "loss.similarity_chunks"),
            ("short_cls_cosine", 0.51, 0.49, "split.sentences"),
            ("passkey/8192", 0.5, 0.49, "split.crop_tokens"),
        ],
    )
    def test_one_past_its_limit_names_its_figure_and_the_key_to_change(self, name, good, bad, key):
        assert warnings({name: good}, LIMITS) == []
        [message] = warnings({name: bad}, LIMITS)
        assert message.startswith(f"{name} is {bad:.3f}, the limit 0.")
        assert key in message
        section, field = key.split(".")
        kind = Recipe.model_fields[section].annotation
        assert field in kind.model_fields

    def test_long_texts_that_fall_behind_short_ones(self):
        figures = {"cls_cosine/0-256": 0.9, "cls_cosine/256-1024": 0.5, "cls_cosine/1024-4096": 0.7}
        [message] = warnings(figures, LIMITS)
        assert "falls by 0.200" in message
        assert "split.crop_tokens" in message
        assert warnings(figures | {"cls_cosine/1024-4096": 0.85}, LIMITS) == []
        assert warnings({"cls_cosine/0-256": 0.9}, LIMITS) == []

    def test_limits_are_the_recipes(self):
        strict = DiagnosticsRecipe(min_chunk_cosine=0.9, min_passkey_accuracy=1.0)
        figures = {"chunk_cosine": 0.8, "passkey/1024": 0.67, "passkey/8192": 1.0}
        assert warnings(figures, LIMITS) == []
        assert [message.split(" is ")[0] for message in warnings(figures, strict)] == [
            "chunk_cosine", "passkey/1024",
        ]  # fmt: skip


class TestSchedule:
    @given(max_steps=st.integers(1, 500), warmup=st.integers(0, 600), data=st.data())
    @settings(max_examples=100, deadline=None)
    def test_up_over_the_warm_up_then_down_to_nothing(self, max_steps, warmup, data):
        step = data.draw(st.integers(0, max_steps + 5))
        progress = Progress(max_steps)
        share = min(1, step / max_steps)
        ramp = (step + 1) / (warmup + 1) if step < warmup else 1
        assert progress.share(step) == pytest.approx(share)
        assert progress.rate(step, warmup) == pytest.approx(ramp * (1 - share))
        assert progress.rate(max_steps, warmup) == 0

    def test_minutes_count_where_they_end_first(self):
        halfway = Progress(1000, max_minutes=2, elapsed_s=60)
        assert halfway.share(10) == pytest.approx(0.5, abs=0.01)
        assert halfway.share(900) == 0.9
        assert Progress(1000, max_minutes=2, elapsed_s=121).share(0) == 1
        assert Progress(1000, max_minutes=2, elapsed_s=121).rate(0, 0) == 0

    def test_shares_and_rates_are_those_of_the_time_noted_last(self):
        progress = Progress(1000, max_minutes=0.01)
        time.sleep(0.3)
        assert progress.elapsed_s > 0.3
        assert progress.share(10) == 0.01
        progress.note()
        share = progress.share(10)
        assert share >= 0.5
        assert progress.share(10) == share
        assert progress.rate(10, 0) == 1 - share

    def test_the_clock_runs_on_from_earlier_processes(self):
        progress = Progress(10, elapsed_s=30)
        first = progress.elapsed_s
        assert 30 <= first <= progress.elapsed_s < 40
