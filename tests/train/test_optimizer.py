"""What each parameter's step is: Muon against its definition, the rest against AdamW."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from dewey_embed.model.checkpoint import build_model, read_checkpoint
from dewey_embed.train.recipe import LossRecipe, TrainingRecipe
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.schedule import BALANCE_RATE, build_optimizer, parameter_groups
from dewey_embed.train.start import start_folder
from dewey_embed.train.student import Student


@pytest.fixture
def student(tiny, tmp_path) -> Student:
    start = start_folder(read_recipe(tiny.recipe), tmp_path / "start")
    return Student(build_model(read_checkpoint(start)).float(), LossRecipe(balance="dynamic"))


def settings(**changes) -> TrainingRecipe:
    return TrainingRecipe(
        learning_rate=1e-3, table_learning_rate=5e-4, batch_samples=2, betas=(0.8, 0.9), **changes
    )


def optimizer_of(student: nn.Module, recipe: TrainingRecipe, folder) -> torch.optim.Optimizer:
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], adam_beta1=0.8, adam_beta2=0.9,
        learning_rate=recipe.learning_rate, optim="stable_adamw", weight_decay=recipe.weight_decay,
    )  # fmt: skip
    return build_optimizer(student, recipe, args)


def with_random_gradients(student: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in student.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_every_parameter_is_in_one_group_with_its_rate_and_decay(student) -> None:
    groups = dict(parameter_groups(student, settings(weight_decay=0.1)))
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in student.parameters())
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "table": (5e-4, 0.0), "balance": (BALANCE_RATE * 1e-3, 0.0),
        "layers": (1e-3, 0.1), "rest": (1e-3, 0.1),
    }  # fmt: skip
    assert all(parameter.ndim == 2 for parameter in groups["layers"]["params"])
    assert sum(p.ndim == 2 for p in groups["rest"]["params"]) == 1  # the head


def test_muon_steps_are_orthogonal_and_of_adamws_size(student, tmp_path) -> None:
    recipe = settings(optimizer="muon")
    optimizer = optimizer_of(student, recipe, tmp_path)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    with_random_gradients(student)
    optimizer.step()
    for name, parameter in student.named_parameters():
        if ".layers." not in name or parameter.ndim != 2:
            continue
        step = (before[name] - parameter.detach()) / recipe.learning_rate
        singular = torch.linalg.svdvals(step) / (0.2 * math.sqrt(max(parameter.shape)))
        # five steps of Newton-Schulz leave all but the very smallest within about 0.7 and 1.2
        assert 0.6 < singular.quantile(0.1) <= singular.max() < 1.3, name
        left, _, right = torch.linalg.svd(parameter.grad, full_matrices=False)
        near = nn.functional.cosine_similarity(step.flatten(), (left @ right).flatten(), dim=0)
        assert near > 0.95, name


def test_beside_muon_all_else_goes_by_adamw(student, tmp_path) -> None:
    optimizer = optimizer_of(student, settings(optimizer="muon"), tmp_path)
    others = {
        name: (nn.Parameter(p.detach().clone()), p)
        for name, p in student.named_parameters()
        if ".layers." not in name or p.ndim != 2
    }
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    adamw = torch.optim.AdamW(
        [{"params": [own], "lr": rates[id(p)]} for own, p in others.values()],
        betas=(0.8, 0.9), eps=1e-8, weight_decay=0.0,
    )  # fmt: skip
    for _ in range(3):
        with_random_gradients(student)
        for own, parameter in others.values():
            own.grad = parameter.grad
        optimizer.step()
        adamw.step()
    for name, (own, parameter) in others.items():
        torch.testing.assert_close(parameter, own, msg=name)


def test_stable_adamw_steps_no_further_than_its_rate(student, tmp_path) -> None:
    optimizer = optimizer_of(student, settings(optimizer="stable_adamw"), tmp_path)
    table = student.model.backbone.embeddings.tok_embeddings.weight
    before = table.detach().clone()
    with_random_gradients(student)
    optimizer.step()
    size = (before - table.detach()).square().mean().sqrt()
    assert 0.9 * 5e-4 < size <= 5e-4 * 1.001
