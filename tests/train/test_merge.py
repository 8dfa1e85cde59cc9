"""`dewey merge`: weighted means of models, and what cannot be merged."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.model.folder import CHECKSUMS_FILE, HISTORY_FILE
from dewey_embed.train.merge import merge, shares
from dewey_embed.train.push import files_to_push
from dewey_embed.train.start import runs_of
from tests.commands import ended
from tests.train.conftest import write_student

CARD = """---
license: {licence}
---
## Data
| source | weight | licence |
|---|---|---|
| {source} | 1.0 | CC0 |
"""
MACHINE = {"cores": 2, "processor": "x", "capability": "AVX512", "devices": []}


def run(command):
    return {"command": command, "steps": 3, "tokens": 7, "train_hours": 0.5, "machine": MACHINE}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three models of one shape, in bfloat16, with a history and a card."""
    folder = tmp_path_factory.mktemp("merge")
    for seed, name in enumerate("abc", 1):
        write_student(folder / f"student-{name}", seed=seed)
        model = Dewey.load(folder / f"student-{name}", single_vector="cls", dtype="bfloat16")
        model.save(folder / name)
        history = [run("dewey train start"), run(f"dewey train {name}")]
        (folder / name / HISTORY_FILE).write_text(json.dumps(history))
        (folder / name / "README.md").write_text(CARD.format(licence="mit", source=f"{name}.txt"))
    return [folder / name for name in "abc"]


def tensors(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("weights", [None, [1, 2, 5], [0, 1, 0]])
def test_every_weight_is_the_weighted_mean_in_float32_rounded_once(three, tmp_path, weights):
    merge(three, tmp_path / "merged", weights)
    merged, sources = tensors(tmp_path / "merged"), [tensors(each) for each in three]
    assert merged.keys() == sources[0].keys()
    for name, tensor in merged.items():
        terms = [
            torch.tensor(share) * source[name].float()
            for share, source in zip(shares(3, weights), sources, strict=True)
        ]
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, (terms[0] + terms[1] + terms[2]).bfloat16())


def test_one_model_with_all_of_the_weight_is_itself_bit_for_bit(three, tmp_path):
    merge(three[:1], tmp_path / "alone", [1.0])
    copies = [shutil.copytree(three[0], tmp_path / f"copy{number}") for number in range(2)]
    merge([three[0], *copies], tmp_path / "thrice")
    for name, tensor in tensors(three[0]).items():
        assert torch.equal(tensors(tmp_path / "alone")[name], tensor)
        assert torch.equal(tensors(tmp_path / "thrice")[name], tensor)


def test_a_merged_model_loads_encodes_and_can_be_pushed(three, tmp_path, capsys):
    assert ended("merge", *three[:2], "--weights", "1,3", "-o", tmp_path / "merged") == 0
    printed = capsys.readouterr().out
    assert printed == f"{tmp_path / 'merged'}: 0.25 of {three[0]}, 0.75 of {three[1]}\n"
    vectors = Dewey.load(tmp_path / "merged").encode(["who pays the rent?", "timber"])
    assert vectors.shape == (2, 32)
    assert {"README.md", HISTORY_FILE} <= {each.name for each in files_to_push(tmp_path / "merged")}


def test_the_card_and_the_history_say_what_was_merged(three, tmp_path):
    merge(three[:2], tmp_path / "merged", [1, 3])
    text = (tmp_path / "merged" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: sentence-transformers\nlicense: mit\n")
    assert f"| {three[0]} | 0.25 | mit |\n| {three[1]} | 0.75 | mit |\n" in text
    assert "3 runs, each counted once: 21 tokens, 1.50 hours." in text
    assert "| a.txt | 1.0 | CC0 |\n| b.txt | 1.0 | CC0 |\n" in text
    commands = [each["command"] for each in runs_of(tmp_path / "merged")]
    assert commands[:-1] == ["dewey train start", "dewey train a", "dewey train b"]
    assert runs_of(tmp_path / "merged")[-1]["steps"] == 0


def test_a_card_names_no_licence_where_those_of_the_models_differ(three, tmp_path):
    other = shutil.copytree(three[1], tmp_path / "other")
    (other / "README.md").write_text(CARD.format(licence="cc-by-4.0", source="b.txt"))
    merge([three[0], other], tmp_path / "merged")
    text = (tmp_path / "merged" / "README.md").read_text()
    assert "license:" not in text
    assert f"| {other} | 0.5 | cc-by-4.0 |" in text


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "1 weights for 2 models"),
        ([1.0, -1.0], "need numbers from 0"),
        ([0.0, 0.0], "not all of them 0"),
        ([float("nan"), 1.0], "need numbers from 0"),
    ],
)
def test_weights_that_make_no_mean_are_refused(three, tmp_path, weights, said):
    with pytest.raises(ConfigError, match=said):
        merge(three[:2], tmp_path / "merged", weights)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("spelling", ["itself", "a link", "another spelling"])
def test_a_model_given_twice_is_refused(three, tmp_path, spelling):
    (tmp_path / "link").symlink_to(three[0])
    again = {
        "itself": three[0],
        "a link": tmp_path / "link",
        "another spelling": three[1].parent / ".." / three[1].parent.name / three[0].name,
    }[spelling]
    with pytest.raises(ConfigError, match=r"given twice .*; give each model once"):
        merge([three[0], three[1], again], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.fixture
def other(three, tmp_path):
    """A copy of the second model that a test may change."""
    return shutil.copytree(three[1], tmp_path / "other", ignore=lambda *_: [CHECKSUMS_FILE])


def refused(three, other, tmp_path):
    """The reason for which the first model and another are not merged."""
    with pytest.raises(CheckpointError) as caught:
        merge([three[0], other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    return str(caught.value)


def test_another_setting_is_named_with_both_values(three, other, tmp_path):
    path = other / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "local_attention": values["local_attention"] * 2}))
    said = refused(three, other, tmp_path)
    assert f"{other}: differs from {three[0]} in local_attention (" in said
    assert "trained from one start" in said


def test_another_shape_is_refused(three, other, tmp_path):
    weights = tensors(other)
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert "has shape" in refused(three, other, tmp_path)


def test_another_tokenizer_is_refused(three, other, tmp_path):
    path = other / "tokenizer.json"
    path.write_text(path.read_text().replace('"the":', '"thee":', 1))
    assert f"{other}: has another tokenizer than {three[0]}" in refused(three, other, tmp_path)


def test_a_missing_model_is_named(three, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        merge([three[0], tmp_path / "nowhere"], tmp_path / "merged")
