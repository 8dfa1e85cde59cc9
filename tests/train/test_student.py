"""The student: gradients reach CLS and chunks, it can learn, and processes add up to one."""

from pathlib import Path

import pytest
import torch

from dewey_embed.model.engine import training_kernels
from dewey_embed.model.int8 import TrainedLinear
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.start import start_folder, start_tokenizer
from dewey_embed.train.student import build_student, repacked
from dewey_embed.train.teach import teach
from dewey_embed.train.trainer import arguments
from tests.model.test_native import needs_bfloat16
from tests.train.conftest import MINI
from tests.train.groups import run_in_two

WATCHED = "model.backbone.layers.1.attn.Wqkv.weight"


@pytest.fixture(scope="module")
def taught(tiny, tmp_path_factory):
    """The tiny recipe, its started model, a batch maker, and its training samples.

    The first of these are of texts with questions and without.
    """
    root = tmp_path_factory.mktemp("taught")
    recipe = read_recipe(tiny.recipe)
    start = start_folder(recipe, root / "start")
    targets = teach(recipe, start, root / "targets")
    samples = list(SampleSet(targets, "train"))
    asked, others = (
        [one for one in samples if bool(one.sample.questions) == has] for has in (True, False)
    )
    mixed = [one for pair in zip(asked, others, strict=False) for one in pair]
    return recipe, start, Collator(start_tokenizer(start)), mixed


def gradients(model, batch):
    model.zero_grad()
    model(**batch)["loss"].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@needs_bfloat16
def test_attention_is_trained_by_kernels_where_a_recipe_compiles(tiny) -> None:
    for compile_, expected in (("auto", True), ("never", False)):
        recipe = read_recipe(tiny.recipe, [f'training.compile="{compile_}"'])
        kernels = training_kernels(build_student(recipe, MINI).model.backbone)
        assert (kernels is not None) == expected


@needs_bfloat16
def test_layers_are_trained_in_int8_where_a_recipe_says_so(tiny, tmp_path) -> None:
    for precision, kind in (("int8", TrainedLinear), ("bfloat16", torch.nn.Linear)):
        recipe = read_recipe(
            tiny.recipe, ["training.compile=auto", f"training.precision={precision}"]
        )
        assert arguments(recipe.training, tmp_path, 1, show=False).bf16  # all else is bfloat16
        layers = build_student(recipe, MINI).model.backbone.layers
        assert {type(layer.mlp.Wi) for layer in layers} == {kind}
        assert {type(layer.attn.Wqkv) for layer in layers} == {kind}


def test_who_asks_for_int8_where_there_are_no_kernels_is_told_so(tiny) -> None:
    recipe = read_recipe(tiny.recipe, ["training.precision=int8"])  # it compiles nothing
    with pytest.warns(UserWarning, match="training in bfloat16"):
        model = build_student(recipe, MINI)
    assert type(model.model.backbone.layers[0].mlp.Wi) is torch.nn.Linear


@pytest.mark.parametrize("term", ["cosine_cls", "cosine_chunks", "in_sequence", "in_batch"])
def test_every_term_alone_moves_the_layers(taught, term) -> None:
    recipe, start, collate, samples = taught
    zero = dict.fromkeys(recipe.loss.weights, 0)
    alone = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={**zero, term: 1.0})})
    found = gradients(build_student(alone, start), collate([samples[i] for i in range(4)]))
    assert found[WATCHED].abs().max() > 0
    assert found["model.head.weight"].abs().max() > 0


def test_vectors_are_naive_means_of_each_text_alone(taught) -> None:
    recipe, start, collate, samples = taught
    model = build_student(recipe, start).eval()
    chosen = [samples[i] for i in range(3)]
    batch = collate(chosen)
    found = model(**batch, vectors_only=True)
    row, chunk = 0, 0
    for number, length in enumerate(batch["lengths"][: len(chosen)]):
        alone = model.model(repacked(batch["ids"][row : row + length], (length,)))[:length]
        expected = model.model.embed(alone[:1])
        torch.testing.assert_close(found["cls"][number : number + 1], expected)
        for _ in chosen[number].sample.spans:
            start_, end = (int(batch[name][chunk]) - row for name in ("starts", "ends"))
            expected = model.model.embed(alone[start_:end].mean(0, keepdim=True))
            torch.testing.assert_close(found["chunks"][chunk : chunk + 1], expected)
            chunk += 1
        row += length
    assert chunk == len(found["chunks"])


@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_a_questions_vector_is_its_single_vector_and_learns(taught, kind) -> None:
    recipe, start, collate, samples = taught
    model = build_student(recipe, start).eval()
    model.model.config = model.model.config.model_copy(update={"single_vector": kind})
    given = {}
    model.alignment.register_forward_pre_hook(
        lambda _, args, named: given.update(named), with_kwargs=True
    )
    batch = collate(samples[:2])
    model(**batch)
    start_, end = (int(batch[f"question_{name}"][0]) for name in ("starts", "ends"))
    alone = model.model(repacked(batch["ids"][start_ - 1 : end + 1], (end - start_ + 2,)))
    expected = alone[0] if kind == "cls" else alone[1 : end - start_ + 1].mean(0)
    torch.testing.assert_close(given["questions"][:1], model.model.embed(expected[None]))
    assert given["questions"].requires_grad


def test_a_tiny_student_overfits_its_tiny_teacher(taught) -> None:
    recipe, start, collate, samples = taught
    torch.manual_seed(0)
    model = build_student(recipe, start)
    batch = collate([samples[i] for i in range(3)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 300)
        optimizer.zero_grad()
        model(**batch)["loss"].backward()
        optimizer.step()
    vectors = model(**batch, vectors_only=True)
    assert (vectors["chunks"] * batch["chunk_targets"]).sum(1).mean() > 0.99
    assert (vectors["cls"] * batch["cls_targets"]).sum(1).mean() > 0.99


def test_gradient_checkpointing_changes_no_gradient(taught) -> None:
    recipe, start, collate, samples = taught
    batch = collate([samples[i] for i in range(3)])
    plain = build_student(recipe, start)
    again = build_student(recipe, start)
    again.model.backbone.recompute = True
    expected = gradients(plain, batch)
    for name, gradient in gradients(again, batch).items():
        torch.testing.assert_close(gradient, expected[name])


BALANCES = ("fixed", "dynamic")


def balanced(recipe, balance):
    return recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"balance": balance})})


def one_process(rank: int, taught, shares, results: str) -> None:
    """One of two processes: its share of the samples, and the gradients that all agree on."""
    recipe, start, collate, samples = taught
    found = {}
    for balance in BALANCES:
        model = build_student(balanced(recipe, balance), start)
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        parallel(**collate([samples[i] for i in shares[rank]]))["loss"].backward()
        found[balance] = {name: p.grad for name, p in model.named_parameters()}
    if rank == 0:
        torch.save(found, results)


def test_two_processes_have_the_gradients_of_one_with_both_batches(taught, tmp_path: Path) -> None:
    recipe, start, collate, samples = taught
    shares = ([0, 1, 2], [3, 4])  # unequal: texts and chunks differ in number
    results = tmp_path / "gradients.pt"
    run_in_two(one_process, taught, shares, str(results))
    together = torch.load(results)
    batch = collate([samples[i] for i in range(5)])
    assert len(batch["answer_places"]) > 3
    for balance in BALANCES:
        alone = gradients(build_student(balanced(recipe, balance), start), batch)
        assert together[balance].keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(together[balance][name], gradient, rtol=1e-4, atol=1e-6)
