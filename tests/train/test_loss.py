"""The terms of the loss against closed forms, and one batch over several processes."""

import math

import pytest
import torch
import torch.nn.functional as F

from dewey_embed.train import loss_terms
from dewey_embed.train.loss_terms import (
    LOSS_TERMS,
    TEMPERATURE,
    LossTerm,
    answers,
    contrastive_loss,
    cosine_loss,
    similarity_loss,
    spread_loss,
    truncated_similarity_loss,
)
from dewey_embed.train.recipe import LossRecipe
from dewey_embed.train.student import AlignmentLoss


def unit(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def vectors_of(chunks, chunk_targets, cls, cls_targets, segments=None, segment_targets=None):
    """The vectors of a batch without questions."""
    nothing = torch.zeros(0, chunks.shape[1])
    return dict(
        chunks=chunks,
        chunk_targets=chunk_targets,
        cls=cls,
        cls_targets=cls_targets,
        segments=nothing if segments is None else segments,
        segment_targets=nothing if segment_targets is None else segment_targets,
        questions=nothing,
        chunk_places=torch.zeros(len(chunks), 4, dtype=torch.int64),
        answer_places=torch.zeros(0, 4, dtype=torch.int64),
    )


def loss_of(recipe, *vectors):
    return AlignmentLoss(recipe)(**vectors_of(*vectors))


def test_cosine_loss_is_0_for_aligned_1_for_orthogonal_2_for_opposite() -> None:
    teacher = unit([1, 0], [0, 1])
    assert cosine_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert cosine_loss(teacher.flip(0), teacher).item() == pytest.approx(1)
    assert cosine_loss(-teacher, teacher).item() == pytest.approx(2)


def test_cosine_loss_of_an_angle_is_one_minus_its_cosine() -> None:
    angle = 0.7
    student = unit([math.cos(angle), math.sin(angle)])
    assert cosine_loss(student, unit([1, 0])).item() == pytest.approx(1 - math.cos(angle))


def test_similarity_loss_is_the_mean_squared_difference_of_all_dot_products() -> None:
    # Student: two equal rows, all products 1. Teacher: orthogonal, products 0 off the diagonal.
    # Two of four entries differ by 1.
    assert similarity_loss(unit([1, 0], [1, 0]), unit([1, 0], [0, 1])).item() == pytest.approx(0.5)


def test_similarity_loss_does_not_mind_a_rotation_of_the_student() -> None:
    teacher = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    assert similarity_loss(teacher @ rotation, teacher).item() == pytest.approx(0, abs=1e-10)
    assert cosine_loss(teacher @ rotation, teacher).item() > 0.1


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    weights = LossRecipe(
        cosine_chunks=2, cosine_cls=3, similarity_chunks=5, similarity_cls=7, cosine_parts=11
    )
    generator = torch.Generator().manual_seed(0)
    vectors = [
        F.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (5, 5, 3, 3, 9, 9)
    ]
    terms = loss_of(weights, *vectors)
    expected = (
        2 * cosine_loss(*vectors[:2])
        + 3 * cosine_loss(*vectors[2:4])
        + 5 * similarity_loss(*vectors[:2])
        + 7 * similarity_loss(*vectors[2:4])
        + 11 * cosine_loss(*vectors[4:])
    )
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_term_added_to_the_table_is_part_of_the_loss(monkeypatch) -> None:
    angle = LossTerm(lambda batch: (batch.cls - batch.cls_targets).norm(dim=-1).mean(), "documents")
    recipe = LossRecipe()
    chunks, cls, target = unit([1, 0]), unit([0, 1]), unit([1, 0])
    before = loss_of(recipe, chunks, target, cls, target)
    monkeypatch.setitem(LOSS_TERMS, "distance_cls", angle)
    object.__setattr__(recipe, "distance_cls", 3.0)
    after = loss_of(recipe, chunks, target, cls, target)
    assert after.terms["distance_cls"].item() == pytest.approx(math.sqrt(2))
    assert (after.loss - before.loss).item() == pytest.approx(3 * math.sqrt(2))


def test_dynamic_balance_follows_its_formula_and_rests_at_the_log_of_each_part() -> None:
    recipe = LossRecipe(
        balance="dynamic", similarity_chunks=0, similarity_cls=0, cosine_chunks=1, cosine_cls=1
    )
    loss = AlignmentLoss(recipe)
    chunks, cls = unit([1, 0.2]), unit([1, 3])
    target = unit([1, 0])
    local, whole = cosine_loss(chunks, target), cosine_loss(cls, target)
    given = vectors_of(chunks, target, cls, target)
    with torch.no_grad():
        loss.log_variances.copy_(torch.tensor([0.3, -0.4]))
    expected = 0.5 * (math.exp(-0.3) * local + 0.3 + math.exp(0.4) * whole - 0.4)
    assert loss(**given).loss.item() == pytest.approx(expected.item(), rel=1e-6)
    with torch.no_grad():
        loss.log_variances.copy_(torch.stack((local.log(), whole.log())))
    loss(**given).loss.backward()
    assert loss.log_variances.grad.abs().max().item() < 1e-6


def test_dynamic_balance_weighs_a_part_more_the_further_it_has_come() -> None:
    loss = AlignmentLoss(LossRecipe(balance="dynamic"))
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    near, far, target = unit([1, 0.1]), unit([0.1, 1]), unit([1, 0])
    for _ in range(50):
        optimizer.zero_grad()
        loss(**vectors_of(near, target, far, target)).loss.backward()
        optimizer.step()
    local, whole = torch.exp(-loss.log_variances).tolist()
    assert local > 10 * whole


class TestContrast:
    """Two samples of one text and one of another; each has chunks of 10 characters."""

    PLACES = torch.tensor(
        [[1, 10, 0, 10], [1, 10, 10, 20], [1, 10, 18, 28], [1, 11, 0, 10], [2, 20, 0, 10]]
    )

    def batch(self, questions, chunks, answer_places):
        given = vectors_of(chunks, chunks, chunks[:1], chunks[:1])
        places = torch.tensor(answer_places).reshape(-1, 4)
        given |= dict(questions=questions, chunk_places=self.PLACES, answer_places=places)
        return loss_terms.Batch(**given)

    def test_an_answer_is_what_shares_half_and_other_samples_of_its_text_are_left_out(self):
        chunks = torch.eye(5)
        batch = self.batch(chunks[:1], chunks, [[1, 10, 10, 20]])
        right, sequence, others = answers(batch)
        assert right.tolist() == [[False, True, False, False, False]]
        assert sequence.tolist() == [[True, False, False, False, False]]  # the third overlaps it
        assert others.tolist() == [[False, False, False, False, True]]

    def test_a_section_has_all_its_chunks_for_answers(self):
        batch = self.batch(torch.eye(5)[:1], torch.eye(5), [[1, 10, 5, 28]])
        assert answers(batch)[0].tolist() == [[True, True, True, False, False]]

    def test_a_term_is_the_negative_log_of_the_answers_share(self):
        chunks = unit([1, 0], [0.6, 0.8], [0, 1], [1, 0], [0.8, 0.6])
        question = unit([0.6, 0.8])
        batch = self.batch(question, chunks, [[1, 10, 10, 20]])
        right, one, other = (
            math.exp(value / TEMPERATURE) for value in (1.0, 0.6, 0.8 * 0.6 + 0.6 * 0.8)
        )
        assert LOSS_TERMS["in_sequence"].of(batch).item() == pytest.approx(
            -math.log(right / (right + one)), rel=1e-4
        )
        assert LOSS_TERMS["in_batch"].of(batch).item() == pytest.approx(
            -math.log(right / (right + other)), rel=1e-4
        )

    def test_equal_similarities_cost_the_log_of_their_number(self):
        chunks = unit(*[[1.0, 0.0]] * 5)
        right = torch.tensor([[True, False, False, False, False]])
        loss = contrastive_loss(chunks[:1], chunks, right, ~right)
        assert loss.item() == pytest.approx(math.log(5))

    def test_a_question_without_an_answer_or_without_anything_wrong_costs_nothing(self):
        chunks = torch.eye(5)
        nowhere = self.batch(chunks[:1], chunks, [[3, 30, 0, 10]])
        none = self.batch(chunks[:0], chunks, [])
        for name in ("in_sequence", "in_batch"):
            assert LOSS_TERMS[name].of(nowhere).item() == 0
            assert LOSS_TERMS[name].of(none).item() == 0
        alone = torch.tensor([[True]])
        assert contrastive_loss(chunks[:1], chunks[:1], alone, ~alone).item() == 0

    def test_it_falls_as_the_question_comes_nearer_to_its_answer(self):
        chunks = torch.eye(5).requires_grad_()
        question = unit([1, 1, 0, 0, 1])
        batch = self.batch(question, chunks, [[1, 10, 10, 20]])
        loss = LOSS_TERMS["in_sequence"].of(batch) + LOSS_TERMS["in_batch"].of(batch)
        loss.backward()
        pulls = -(chunks.grad * question).sum(1)
        assert pulls[1] > 0 > max(pulls[0], pulls[4])
        assert pulls[2] == pulls[3] == 0


def test_spread_is_the_mean_square_of_the_products_of_different_rows() -> None:
    assert spread_loss(torch.eye(4)).item() == 0
    assert spread_loss(unit([1, 0], [0.6, 0.8], [0, 1])).item() == pytest.approx(
        (0.6**2 + 0 + 0.8**2) / 3
    )
    assert spread_loss(torch.eye(4)[:1]).item() == 0


def test_truncated_similarities_are_compared_with_the_teachers_whole_ones() -> None:
    rows = torch.zeros(2, 384)
    rows[0, 0], rows[1, [0, 100, 300]] = 1, torch.tensor([0.6, 0.48, 0.64])
    # Off the diagonal: 1 in the first 64 dimensions, 0.6 / 0.7684 in 128 and 256, 0.6 in all.
    expected = [2 * (1 - 0.6) ** 2 / 4, *2 * [2 * (0.6 / math.hypot(0.6, 0.48) - 0.6) ** 2 / 4]]
    assert truncated_similarity_loss(rows, rows).item() == pytest.approx(
        sum(expected) / 3, rel=1e-4
    )
    assert truncated_similarity_loss(rows[:, :64], rows[:, :64]).item() == 0
