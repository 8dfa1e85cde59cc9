"""Held-out figures are those of the model as it will be written, and cost the student nothing."""

from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from dewey_embed.model.device import default_dtype
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.diagnostics import HeldOutMeasure
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.start import start_folder, start_tokenizer
from dewey_embed.train.student import build_student
from dewey_embed.train.teach import teach
from tests.train.groups import run_in_two


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """A student in training, and what measures it."""
    root = tmp_path_factory.mktemp("measured")
    recipe = read_recipe(tiny.recipe)
    start = start_folder(recipe, root / "start")
    samples = SampleSet(teach(recipe, start, root / "targets"), "train")
    tokenizer = start_tokenizer(start)
    some = [samples[number] for number in range(6)]
    measure = HeldOutMeasure(some, [], Collator(tokenizer), tokenizer, recipe.diagnostics)
    return build_student(recipe, start), measure


def test_figures_are_those_of_the_weights_that_will_be_written(measured) -> None:
    model, measure = measured
    if default_dtype(torch.device("cpu")) != torch.bfloat16:
        pytest.skip("models are used in float32 on this processor")
    figures = measure(model, number=0, last=True)
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.copy_(weight.bfloat16())
    again = measure(model, number=0, last=True)
    assert figures == again


def test_the_student_stays_as_it_was(measured) -> None:
    model, measure = measured
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.random.get_rng_state()
    measure(model, number=0, last=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(after[name].dtype == weight.dtype for name, weight in before.items())


def test_passkeys_are_looked_for_first_now_and_then_and_last(measured) -> None:
    model, measure = measured
    found = [
        "passkey/256" in measure(model, number=number, last=number == 6)
        for number in range(measure.recipe.passkey_every + 3)
    ]
    assert found == [True, False, False, False, True, False, True]


def one_of_two(rank: int, recipe, start: Path, measure, results: str) -> None:
    """One of two processes that share a student's weights out, and measure it together."""
    student = build_student(recipe, start)
    for layer in student.model.backbone.layers:
        fully_shard(layer)
    fully_shard(student)
    figures = measure(student, number=0, last=True)
    if rank == 0:
        torch.save(figures, results)


def test_a_student_shared_out_over_processes_is_measured_as_a_whole_one(
    tiny, measured, tmp_path: Path
) -> None:
    model, measure = measured
    recipe = read_recipe(tiny.recipe)
    start = start_folder(recipe, tmp_path / "start")
    results = tmp_path / "figures.pt"
    run_in_two(one_of_two, recipe, start, measure, str(results))
    together, alone = torch.load(results), measure(model, number=0, last=True)
    wanted = {name for name in alone if not name.startswith("passkey/")}
    assert together.keys() == wanted  # pass keys need the backbone alone, which nobody has
    for name in ("chunk_cosine", "cls_cosine", "tightness"):
        assert together[name] == pytest.approx(alone[name], abs=0.005)
