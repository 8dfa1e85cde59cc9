"""Several processes train what one does, and go on where another number of them stopped."""

import itertools
import json
import os
import re
from unittest.mock import patch

import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dewey_embed.errors import RunError
from dewey_embed.train.batches import Collator, SampleSet
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.run import RunFolder
from dewey_embed.train.sharding import SharedBatches, load_weights
from dewey_embed.train.start import start_tokenizer
from dewey_embed.train.student import build_student
from dewey_embed.train.teach import teach
from dewey_embed.train.trainer import AlignmentTrainer
from tests.train.groups import RANKS, run_in_two
from tests.train.worlds import Run, broken_off, perform, perform_in_two

LIMIT = 1e-6
"""After all steps in float32: the norm of a weight's difference by the weight's, and the largest
difference of a vector's numbers."""

ONE_NUMBER = 1e-5
"""The largest difference of a single weight, a twentieth of a step: where a gradient is next to
nothing, Adam divides its rounding by its size."""

STEPS, MIDDLE = 50, 35  # the middle lies in the second epoch
OPTIMIZERS = ("stable_adamw", "muon")

CHANGES = (
    # five samples on two processes: two and three
    *("training.batch_samples=5", f"training.max_steps={STEPS}", "training.epochs=99"),
    *(f"training.save_steps={MIDDLE}", f"training.evaluate_steps={STEPS}"),
    # as recipes/mini_context.toml weighs and trains, and every term beside
    *("loss.cosine_cls=0.25", "loss.cosine_parts=1.0", "loss.similarity_chunks=30.0"),
    *("loss.similarity_cls=0.5", "loss.similarity_truncated=1.0", "loss.in_sequence=0.02"),
    *("loss.in_batch=0.06", "loss.spread_chunks=0.1"),
    *("training.learning_rate=5e-4", "training.table_learning_rate=2e-4"),
    *("training.betas=[0.9,0.98]", "training.warmup_steps=20"),
    *("diagnostics.passkey_tokens=[]", "diagnostics.held_out_samples=2", "corpus.max_texts=60"),
    *("base.vector_size=384", "targets.part_tokens=8"),
)


@pytest.fixture(scope="module")
def full(tiny, tmp_path_factory):
    """The tiny recipe with a teacher that gives segments, too, and a folder for its runs."""
    root = tmp_path_factory.mktemp("worlds")
    recipe = root / "full.toml"
    teacher = '[teacher]\nkind = "package"\nmax_tokens = 96\n\n[targets]'
    text = re.sub(r"\[teacher\].*\[targets\]", teacher, tiny.recipe.read_text(), flags=re.DOTALL)
    recipe.write_text(text)
    return recipe, root


@pytest.fixture(scope="module")
def alone(full):
    """The runs of one process, by optimiser."""
    recipe, root = full
    runs = {
        name: Run(recipe, (*CHANGES, f"training.optimizer={name}"), root / name, root / "targets")
        for name in OPTIMIZERS
    }
    for run in runs.values():
        perform(run)
    return runs


@pytest.fixture(scope="module")
def together(alone, full):
    """The runs of two processes, by kind and optimiser."""
    _, root = full
    runs = {
        (kind, name): alone[name]._replace(folder=root / f"{kind}_{name}", kind=kind)
        for kind, name in (("ddp", "stable_adamw"), ("fsdp", "muon"))
    }
    perform_in_two(list(runs.values()))
    return runs


def weights_of(run):
    return load_file(run.folder / "checkpoints" / f"checkpoint-{STEPS}" / "model.safetensors")


def assert_same(run, expected):
    """Weights and vectors are those of another run, and as many tokens were read."""
    ours, theirs = weights_of(run), weights_of(expected)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert (ours[name] - weight).norm() <= LIMIT * weight.norm(), name
        assert (ours[name] - weight).abs().max() <= ONE_NUMBER, name
    found, wanted = vectors(run, ours), vectors(run, theirs)
    assert all((found[name] - wanted[name]).abs().max() <= LIMIT for name in wanted)
    took = [json.loads((each.folder / "result.json").read_text()) for each in (run, expected)]
    assert [each["steps"] for each in took] == [STEPS, STEPS]
    assert took[0]["tokens"] == took[1]["tokens"]


def vectors(run, weights):
    """A few texts' vectors by these weights."""
    recipe, folder = read_recipe(run.recipe, run.changes), RunFolder(run.folder, run.targets)
    samples = SampleSet(teach(recipe, folder.start, folder.targets), "train")
    student = build_student(recipe, folder.start).eval()
    load_weights(student, weights)
    batch = Collator(start_tokenizer(folder.start))([samples[number] for number in range(4)])
    with torch.no_grad():
        return student(**batch, vectors_only=True)


@pytest.mark.parametrize(("kind", "name"), [("ddp", "stable_adamw"), ("fsdp", "muon")])
def test_two_processes_train_what_one_does(alone, together, kind, name) -> None:
    run = together[kind, name]
    assert (run.folder / "checkpoints" / f"checkpoint-{STEPS}" / "rng_state_1.pth").exists()
    assert_same(run, alone[name])


def test_gradients_are_clipped_by_the_norm_over_all_processes(alone, together) -> None:
    for (_, name), run in together.items():
        ours, theirs = (logged(each, "grad_norm") for each in (run, alone[name]))
        assert min(theirs) > 1.0  # training.max_grad_norm: all are clipped
        assert ours == pytest.approx(theirs, rel=1e-5)


def logged(run, name):
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_every_term_of_the_loss_is_that_of_one_process(alone, together) -> None:
    terms = {name for name in logged_names(alone["muon"]) if name.startswith("loss/")}
    assert len(terms) == 9
    for (_, optimizer), run in together.items():
        for name in terms:
            assert logged(run, name) == pytest.approx(logged(alone[optimizer], name), rel=1e-4)


def logged_names(run):
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return set().union(*lines)


@pytest.mark.parametrize(("kind", "name"), [("ddp", "stable_adamw"), ("fsdp", "muon")])
def test_one_process_goes_on_where_two_stopped(alone, together, tmp_path, kind, name) -> None:
    run = broken_off(together[kind, name], MIDDLE, tmp_path / "run", "one")
    perform(run)
    assert_same(run, alone[name])
    for mean in ("loss", "loss/similarity_chunks", "train_loss"):  # of steps 31 to 40, and of all
        assert logged(run, mean) == pytest.approx(logged(alone[name], mean), rel=1e-4)


def test_two_processes_go_on_where_one_stopped_by_fsdp(alone, tmp_path) -> None:
    run = broken_off(alone["stable_adamw"], MIDDLE, tmp_path / "run", "fsdp")
    perform_in_two([run])
    assert_same(run, alone["stable_adamw"])


def test_a_loss_that_breaks_in_one_process_stops_both_with_the_same_words(alone, tmp_path) -> None:
    changes = (*alone["muon"].changes, "training.save_steps=3")
    run_in_two(_break_in_the_second, Run(alone["muon"].recipe, changes, tmp_path / "run",
                                         alone["muon"].targets, "ddp"), tmp_path)  # fmt: skip
    first, second = ((tmp_path / str(rank)).read_text() for rank in RANKS)
    assert first == second
    words = r"step 3: the loss was nan in 2 of the last 3 batches, first in step 2, .* read (.*);"
    names = re.match(words, first)[1].split(", ")
    assert len(names) == 3  # of five samples those of the second process
    assert not list(tmp_path.glob("run/checkpoints/*/*.safetensors"))


def _break_in_the_second(rank, run, folder):
    """Train with a loss of NaN in the second process in step 2; writes the error's words."""
    compute = AlignmentTrainer.compute_loss

    def broken(trainer, *arguments, **named):
        loss = compute(trainer, *arguments, **named)
        if rank == 1 and trainer.state.global_step == 1:
            trainer._terms["loss"][-1] *= float("nan")
            return loss * float("nan")
        return loss

    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    with patch.dict(os.environ, group), patch.object(AlignmentTrainer, "compute_loss", broken):
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(RunError) as error:
            perform(run)
    (folder / str(rank)).write_text(str(error.value))


@pytest.mark.slow
def test_every_kind_trains_the_same_and_goes_on_from_every_other(alone, full, tmp_path) -> None:
    kinds, (_, root) = ("ddp", "fsdp"), full
    complete = {
        (kind, name): alone[name]._replace(folder=root / f"all_{kind}_{name}", kind=kind)
        for kind, name in itertools.product(kinds, OPTIMIZERS)
    }
    perform_in_two(list(complete.values()))
    complete |= {("one", name): run for name, run in alone.items()}
    resumed = {
        (before, after, name): broken_off(
            complete[before, name], MIDDLE, tmp_path / f"{before}_{after}_{name}", after
        )
        for before, after, name in itertools.product((*kinds, "one"), (*kinds, "one"), OPTIMIZERS)
    }
    perform_in_two([run for run in resumed.values() if run.kind != "one"])
    for run in resumed.values():
        if run.kind == "one":
            perform(run)
    for (*_, name), run in (*complete.items(), *resumed.items()):
        assert_same(run, alone[name])


def test_a_checkpoint_without_its_optimiser_is_refused(alone, tmp_path) -> None:
    run = broken_off(alone["muon"], MIDDLE, tmp_path / "run", "one")
    last = run.folder / "checkpoints" / f"checkpoint-{MIDDLE}"
    (last / "optimizer.pt").unlink()
    listed = json.loads((last / "whole.json").read_text())
    del listed["crc"], listed["files"]["optimizer.pt"]
    (last / "whole.json").write_text(json.dumps(listed))
    with pytest.raises(RunError, match=r"has no optimizer\.pt"):
        perform(run)


@given(
    st.integers(0, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)
)  # fmt: skip
def test_shares_of_batches_are_the_batches_of_one_process(samples, size, first, second) -> None:
    def by(ranks):
        shares = [
            SharedBatches(range(samples), size, rank=r, num_ranks=ranks) for r in range(ranks)
        ]
        steps = [list(itertools.chain(*step)) for step in zip(*shares, strict=True)]
        sizes = {len(share) for step in zip(*shares, strict=True) for share in step}
        assert not sizes or max(sizes) - min(sizes) <= 1
        assert {len(share) for share in shares} == {len(steps)}
        return steps

    alone = by(1)
    assert list(itertools.chain(*alone)) == list(range(samples // size * size))
    for ranks in (first, second):
        if ranks <= size:
            assert by(ranks) == alone


def test_more_processes_than_samples_of_a_batch_are_refused() -> None:
    with pytest.raises(RunError, match=r"batch_samples is 4, fewer than the 8 processes"):
        SharedBatches(range(100), 4, rank=0, num_ranks=8)
