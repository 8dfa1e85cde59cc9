"""Damaged and odd model folders: the same vectors, or one line that names the file."""

import copy
import json
import os
import random
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dewey_embed import Dewey
from dewey_embed.errors import CheckpointError, ConfigError, DeweyError
from tests.model.random_folders import (
    WIDTH,
    template,
    trained,
    word_piece,
    write,
    write_backbone,
)

ODD = (None, True, 0, -1, 3, 10**12, 1e400, 0.5, "", "text", "\u0000", [], [1], [[]], {}, {"a": 1})


FILES = {
    "config.json": 120,
    "modules.json": 60,
    "config_sentence_transformers.json": 40,
    "sentence_bert_config.json": 30,
    "tokenizer_config.json": 30,
    "1_Pooling/config.json": 40,
    "2_Dense/config.json": 60,
    "tokenizer.json": 60,
}
"""JSON files of a folder, and how many changes of each are tried."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A Sentence Transformers folder with every file that we read."""
    import tokenizers

    folder = tmp_path_factory.mktemp("good") / "model"
    folder.mkdir()
    backend = tokenizers.Tokenizer.from_str(trained(word_piece))
    ids = backend.get_vocab()
    backend.post_processor = template("[CLS] $A [SEP]")(ids)
    backend.save(str(folder / "tokenizer.json"))
    write_backbone(folder, random.Random(1), rows=len(ids))
    named = {"sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    write(folder / "tokenizer_config.json", {"model_max_length": 64, **named})
    write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    prompts = {"query": "ships ", "document": ""}
    write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "cosine"},
    )
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write(folder / "modules.json", modules)
    for path in ("1_Pooling", "2_Dense"):
        (folder / path).mkdir()
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode": "mean", "include_prompt": True}
    write(folder / "1_Pooling" / "config.json", pooling)
    name = "torch.nn.modules.linear.Identity"
    dense = {"in_features": WIDTH, "out_features": 8, "bias": False, "activation_function": name}
    write(folder / "2_Dense" / "config.json", dense)
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(8, WIDTH, generator=generator)
    save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def vectors(folder):
    return Dewey.load(folder, dtype="float32").encode(["ships carry timber", "the rent"])


def json_files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.json"))


def refusal(folder):
    """The one line with which a folder is refused."""
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        vectors(folder)
    message = str(caught.value)
    assert "\n" not in message.strip()
    assert len(message) < 2000
    return message


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe{\x00", b"null", b"[]", b"3", b'"text"', b"[" * 100_000, b'{"a": NaN'],
    ids=lambda damage: repr(damage[:9]),
)
def test_a_file_that_is_not_a_json_object_is_named(good, folder, damage):
    for name in json_files(good):
        kept = (folder / name).read_bytes()
        if (name.name, damage) == ("modules.json", b"[]"):
            continue  # a list is what belongs there
        (folder / name).write_bytes(damage)
        assert str(folder / name) in refusal(folder)
        (folder / name).write_bytes(kept)


def test_an_empty_list_of_modules_is_refused(folder):
    write(folder / "modules.json", [])
    assert "modules.json: modules none" in refusal(folder)


def places(value, path=()):
    """Every place within a JSON value, as the keys that lead there."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(value, path, new, *, remove):
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


def mutations(value, choose, number):
    """Copies of a JSON value with one thing in it of another type, or gone."""
    found = [path for path in places(value) if path]
    for _ in range(number):
        path = choose.choice(found)
        yield path, changed(value, path, choose.choice(ODD), remove=choose.random() < 0.2)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "number"), FILES.items())
def test_any_value_in_a_json_file_is_refused_in_one_line_or_read(folder, name, number):
    value = json.loads((folder / name).read_text(encoding="utf-8"))
    refused = []
    for _, mutated in mutations(value, random.Random(name), number):
        write(folder / name, mutated)
        try:
            assert np.isfinite(vectors(folder)).all()
        except (CheckpointError, ConfigError) as error:
            refused.append(str(error).strip())
    assert len(refused) > number / 20
    assert all(".json" in message or ".safetensors" in message for message in refused)
    assert not any("\n" in message for message in refused)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_loads_with_any_value_in_a_json_file_gives_the_same_vectors(folder, name):
    st = pytest.importorskip("sentence_transformers")
    texts = ["ships carry Timber to the sea " * 20, "the rent"]
    value = json.loads((folder / name).read_text(encoding="utf-8"))
    for path, mutated in mutations(value, random.Random(f"slow {name}"), 200):
        write(folder / name, mutated)
        try:
            ours = Dewey.load(folder, dtype="float32").encode(texts, overflow="truncate")
        except (CheckpointError, ConfigError):
            continue
        try:
            theirs = st.SentenceTransformer(str(folder), device="cpu").encode(texts)
        except Exception:  # where they refuse a folder, we may read it
            continue
        theirs /= np.linalg.norm(theirs, axis=-1, keepdims=True)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=f"{name} {path}")


def test_a_missing_file_is_named(good, folder):
    optional = {"config_sentence_transformers", "sentence_bert_config", "tokenizer_config"}
    for path in sorted(good.rglob("*.*")):
        name = path.relative_to(good)
        if path.is_dir() or path.stem in optional or path.name == "modules.json":
            continue
        (folder / name).rename(folder / "away")
        assert str(folder / name) in refusal(folder)
        (folder / "away").rename(folder / name)


@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors"])
@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_weights_are_named(folder, name, size):
    (folder / name).write_bytes((folder / name).read_bytes()[:size])
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.to(torch.int8), "int8: a quantised model"),
        (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn: a quantised model"),
        (lambda t: t[:-1].contiguous(), "has shape"),
        (lambda t: t.unsqueeze(0).contiguous(), "has shape"),
        (lambda t: t.index_fill(0, torch.tensor([0, 2]), float("nan")), "NaN or infinite"),
        (lambda t: t.index_fill(0, torch.tensor([1]), float("inf")), "NaN or infinite"),
        (lambda t: t.index_fill(0, torch.tensor([1]), float("-inf")), "NaN or infinite"),
    ],
)
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("model.safetensors", "layers.1.mlp.Wi.weight"),
        ("model.safetensors", "embeddings.tok_embeddings.weight"),
        ("2_Dense/model.safetensors", "linear.weight"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_named_with_its_file(folder, name, tensor, change, fault):
    tensors = load_file(folder / name)
    prefix = next(key for key in tensors if key.endswith(tensor)).removesuffix(tensor)
    tensors[prefix + tensor] = change(tensors[prefix + tensor])
    save_file(tensors, folder / name)
    message = refusal(folder)
    assert str(folder / name) in message
    assert tensor.removeprefix("linear.") in message
    assert fault in message


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_tensor_of_a_shard_is_named_with_its_shard(folder, prefix):
    loaded = load_file(folder / "model.safetensors")
    tensors = {prefix + name.removeprefix("model."): tensor for name, tensor in loaded.items()}
    (folder / "model.safetensors").unlink()
    last = f"{prefix}final_norm.weight"
    shards = {"a.safetensors": tensors, "b.safetensors": {last: tensors.pop(last)[:-1]}}
    for shard, values in shards.items():
        save_file(values, folder / shard)
    weight_map = {name: shard for shard, values in shards.items() for name in values}
    write(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    assert f"{folder / 'b.safetensors'}: tensor 'backbone.final_norm.weight'" in refusal(folder)


def test_the_values_that_are_not_finite_are_counted(folder):
    tensors = load_file(folder / "model.safetensors")
    name = next(key for key in tensors if key.endswith("final_norm.weight"))
    tensors[name][[1, 5, 7]] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    save_file(tensors, folder / "model.safetensors")
    assert "final_norm.weight' holds 3 NaN or infinite values" in refusal(folder)


def test_large_finite_weights_whose_sum_overflows_are_accepted(folder):
    tensors = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({n: t.half() * 0 + 60_000 for n, t in tensors.items()},
              folder / "2_Dense" / "model.safetensors")  # fmt: skip
    Dewey.load(folder, dtype="float32")


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ('{"weight_map": {', "cannot be read as JSON"),
        ("{}", "weight_map"),
        ('{"weight_map": []}', "weight_map"),
        ('{"weight_map": {"a": 3}}', "weight_map"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors: no such file"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "does not lie beside it"),
    ],
)
def test_a_damaged_index_of_shards_is_named(folder, index, fault):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    assert fault in refusal(folder)


def test_folders_of_other_formats_say_what_to_convert(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in refusal(folder)
    (folder / "pytorch_model.bin").unlink()
    for kind in ("onnx", "openvino"):
        (folder / kind).mkdir()
        (folder / kind / "model_qint8.bin").write_bytes(b"")
        assert f"holds an {kind} model" in refusal(folder)
        shutil.rmtree(folder / kind)


def test_a_path_that_is_not_a_model_folder_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    for given in (file, str(file)):
        assert refusal(given) == f"{file}: is a file; give the folder that holds the model"
    assert "no such folder" in refusal(file / "below")
    assert "no such folder" in refusal(tmp_path / "gone")
    assert "cannot be read" in refusal(tmp_path / ("long" * 100))


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (None, "is an empty folder"),
        ("recipe.json", "is a run that has no model/ yet; run `dewey train` again"),
        ("start/start.json", "is a run that has no model/ yet"),
        ("trainer_state.json", "is a checkpoint, .*give the run's folder"),
        ("notes.txt", "holds no model: it has no config.json"),
        ("ours/config.json", "give one of the folders in it that do: ours$"),
        ("run/model/config.json", "give one of the folders in it that do: run$"),
    ],
)
def test_a_folder_without_a_model_is_called_what_it_is(tmp_path, inside, said):
    if inside is not None:
        (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / inside).write_text("{}")
        (tmp_path / inside).with_name("dewey.json").write_text("{}") if "model" in inside else None
    assert re.search(said, refusal(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else for a moment")
def test_a_folder_that_may_not_be_read_is_not_called_missing(folder):
    for part in (folder.parent, *list(folder.parents)[1:3]):
        part.chmod(0o755)
    for locked in (folder, folder / "2_Dense", folder / "config.json"):
        mode = locked.stat().st_mode
        locked.chmod(0o600 if locked.is_dir() else 0o000)
        os.seteuid(12345)
        try:
            with pytest.raises(DeweyError) as caught:
                Dewey.load(folder)
        finally:
            os.seteuid(0)
            locked.chmod(mode)
        assert "ermission denied" in str(caught.value)
        assert "no such" not in str(caught.value)


def test_tokens_past_the_table_are_named(folder):
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = backend.get_vocab_size()
    backend.add_tokens(["zebra"])
    backend.save(str(folder / "tokenizer.json"))
    message = refusal(folder)
    assert f"token 'zebra' has id {rows}, the model's embedding table {rows} rows" in message
    assert "resize" in message


def test_a_tokenizer_that_panics_is_named(folder):
    value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    value["pre_tokenizer"] = {"type": "FixedLength", "length": 0}
    write(folder / "tokenizer.json", value)
    assert "tokenizer.json: the tokenizer fails" in refusal(folder)


def test_a_vocabulary_with_gaps_is_refused_where_a_text_meets_one(folder):
    value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    last = max(value["model"]["vocab"], key=value["model"]["vocab"].get)
    value["model"]["vocab"][last] = 10_000
    write(folder / "tokenizer.json", value)
    model = Dewey.load(folder)
    with pytest.raises(CheckpointError, match=f"token '{last}' has id 10000"):
        model.encode([last.removeprefix("##"), "a" + last.removeprefix("##")])


@pytest.mark.parametrize(
    ("single", "fault"),
    [
        ([{"Sequence": {"id": "B", "type_id": 0}}], "names the text 0 times"),
        ([{"Sequence": {"id": "A", "type_id": 0}}] * 2, "names the text 2 times"),
        (
            [
                {"SpecialToken": {"id": "[X]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            r"names '\[X\]', whose ids it does not give",
        ),
    ],
)
def test_a_template_that_cannot_be_followed_is_refused(folder, single, fault):
    value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    value["post_processor"]["single"] = single
    write(folder / "tokenizer.json", value)
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json: .*{fault}"):
        Dewey.load(folder)
