"""The terms of the loss against closed forms, and one batch over several processes."""

import math

import pytest
import torch
import torch.nn.functional as F

from dewey_embed.train.loss_terms import LOSS_TERMS, LossTerm, cosine_loss, similarity_loss
from dewey_embed.train.recipe import LossRecipe
from dewey_embed.train.student import AlignmentLoss


def unit(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def loss_of(recipe, chunks, chunk_targets, cls, cls_targets, segments=None, segment_targets=None):
    nothing = torch.zeros(0, chunks.shape[1])
    return AlignmentLoss(recipe)(
        chunks=chunks,
        chunk_targets=chunk_targets,
        cls=cls,
        cls_targets=cls_targets,
        segments=nothing if segments is None else segments,
        segment_targets=nothing if segment_targets is None else segment_targets,
    )


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
    nothing = torch.zeros(0, 2)
    local, whole = cosine_loss(chunks, target), cosine_loss(cls, target)
    given = dict(
        chunks=chunks, chunk_targets=target, cls=cls, cls_targets=target,
        segments=nothing, segment_targets=nothing,
    )  # fmt: skip
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
    nothing = torch.zeros(0, 2)
    for _ in range(50):
        optimizer.zero_grad()
        loss(
            chunks=near, chunk_targets=target, cls=far, cls_targets=target,
            segments=nothing, segment_targets=nothing,
        ).loss.backward()  # fmt: skip
        optimizer.step()
    local, whole = torch.exp(-loss.log_variances).tolist()
    assert local > 10 * whole
