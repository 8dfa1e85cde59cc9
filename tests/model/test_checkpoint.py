"""Others' model folders and ours: what loads, what comes back, what is refused and how."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dewey_embed import Dewey
from dewey_embed.config import PAPER_PROMPTS
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.model.folder import locate_model
from dewey_embed.single_vectors import SINGLE_VECTORS, SingleVectorKind
from tests.model.twins import hugging_face_config

MINI = locate_model(None)[1]
TEXTS = ["A short text.", "Another, about ships and who owns them. " * 30]


def bert_sized(**changes):
    """A tiny ModernBERT over mini's vocabulary."""
    config = hugging_face_config("tiny", **changes)
    config.vocab_size, config.pad_token_id = 30522, 0
    config.cls_token_id = config.bos_token_id = 101
    config.sep_token_id = config.eos_token_id = 102
    return config


def with_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINI / name, folder)
    return folder


@pytest.fixture
def bare(tmp_path):
    """A Hugging Face ModernBERT checkpoint."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    folder = tmp_path / "bare"
    transformers.ModernBertModel(bert_sized()).save_pretrained(folder)
    return with_tokenizer(folder)


def released(bare, tmp_path, **extra):
    """The released dewey layout: prefixed names, one linear layer with a name of its own."""
    folder = tmp_path / "released"
    shutil.copytree(bare, folder)
    tensors = {f"model.{name}": t for name, t in load_file(folder / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(2)
    head = {"vector_linear.weight": torch.randn(16, 32, generator=generator)}
    save_file(tensors | head | extra, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["DeweyV1"], "vector_size": 16, "single_vector_type": "mean"}
    (folder / "config.json").write_text(json.dumps(config))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_sentence_transformers_folder_gives_the_vectors_it_gives_there(
    bare, tmp_path, pooling, dense
):
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules

    parts = [modules.Transformer(str(bare)), modules.Pooling(32, pooling)]
    if dense:
        parts.append(modules.Dense(32, 24, activation_function=torch.nn.Identity()))
    prompts = {"query": "search for: ", "document": ""}
    theirs = st.SentenceTransformer(
        modules=[*parts, modules.Normalize()], prompts=prompts, device="cpu"
    )
    theirs.save(str(tmp_path / "st"))
    ours = Dewey.load(tmp_path / "st", dtype="float32")
    assert ours.prompts["query"] == "search for: "
    assert ours.config.single_vector == pooling
    assert ours.embedding_dim == (24 if dense else 32)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(ours.encode_query(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)


@pytest.mark.parametrize("single_vector", ["cls", "mean", "cls_add_mean"])
def test_a_saved_model_loads_in_plain_sentence_transformers(tmp_path, single_vector):
    st = pytest.importorskip("sentence_transformers")
    ours = Dewey.load(dtype="float32", single_vector=single_vector)
    ours.save(tmp_path / "saved")
    theirs = st.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    theirs = theirs.float()
    assert theirs.max_seq_length == 131_072
    got, expected = ours.encode(TEXTS), theirs.encode(TEXTS)
    if single_vector == "cls":
        np.testing.assert_allclose(got, expected, atol=1e-5)
    else:
        assert not np.allclose(got, expected, atol=1e-5)
        note = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
        assert "CLS and SEP" in note["dewey_pooling_note"]


@pytest.mark.parametrize("single_vector", ["cls_add_mean", "topics"])
def test_saved_and_loaded_again_a_model_gives_the_same_vectors(tmp_path, single_vector):
    first = Dewey.load(dtype="float32", single_vector=single_vector)
    first.save(tmp_path / "model")
    second = Dewey.load(tmp_path / "model", dtype="float32")
    assert second.config == first.config
    np.testing.assert_array_equal(first.encode(TEXTS), second.encode(TEXTS))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_row_of_the_table_is_all_that_a_new_single_vector_needs(tmp_path, monkeypatch):
    kind = SingleVectorKind(
        combine=lambda cls, mean: mean - cls, mode="mean", same_over=(), difference="It differs."
    )
    monkeypatch.setitem(SINGLE_VECTORS, "difference", kind)
    cls, mean, model = (
        Dewey.load(dtype="float32", single_vector=name) for name in ("cls", "mean", "difference")
    )
    np.testing.assert_allclose(model.encode(TEXTS), mean.encode(TEXTS) - cls.encode(TEXTS))
    with pytest.warns(UserWarning, match="It differs"):
        model.save(tmp_path)
    again = Dewey.load(tmp_path, dtype="float32")
    assert again.config.single_vector == "difference"
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    monkeypatch.delitem(SINGLE_VECTORS, "difference")
    *others, last = map(repr, SINGLE_VECTORS)
    with pytest.raises(ConfigError, match=f"must be {', '.join(others)} or {last}"):
        Dewey.load(tmp_path)


def test_saving_replaces_a_model_and_spares_anything_else(tmp_path):
    model = Dewey.load()
    model.save(tmp_path / "model")
    model.save(tmp_path / "model")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="something other than a model"):
        model.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_a_bare_modernbert_loads_and_pools_its_mean(bare):
    model = Dewey.load(bare, dtype="float32")
    assert (model.config.vector_size, model.config.single_vector) == (None, "mean")
    assert model.encode(TEXTS).shape == (2, 32)


def test_a_masked_language_model_loads_without_its_head(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "mlm"
    transformers.ModernBertForMaskedLM(bert_sized()).save_pretrained(folder)
    assert Dewey.load(with_tokenizer(folder)).encode(TEXTS).shape == (2, 32)


@pytest.mark.parametrize("bias", [True, False])
def test_the_released_layout_loads_with_its_head_whatever_its_name(bare, tmp_path, bias):
    extra = {"vector_linear.bias": torch.ones(16)} if bias else {}
    model = Dewey.load(released(bare, tmp_path, **extra), dtype="float32")
    assert model.prompts == PAPER_PROMPTS
    assert model.config.head_bias is bias
    assert model.config.single_vector == "mean"
    document = model.encode_document(TEXTS[1], prompt="")
    states = Dewey.load(bare, dtype="float32").encode_document(TEXTS[1])
    assert document.chunks.shape == (len(states.chunks), 16)


def test_a_second_linear_layer_is_refused_and_all_are_listed(bare, tmp_path):
    folder = released(bare, tmp_path, **{"other.weight": torch.zeros(16, 32)})
    with pytest.raises(CheckpointError, match=r"other\.weight \(16, 32\), vector_linear\.weight"):
        Dewey.load(folder)


def test_a_truncated_file_is_named(tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(MINI, folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated"):
        Dewey.load(folder)


@pytest.mark.parametrize("damage", ["missing", "shape", "unknown"])
def test_the_first_wrong_tensor_is_named(bare, damage):
    tensors = load_file(bare / "model.safetensors")
    name = "layers.2.mlp.Wi.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = tensors[name][:-1].contiguous()
    else:
        tensors[name + "_extra"] = torch.zeros(1)
    save_file(tensors, bare / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*layers\.2\.mlp\.Wi\.weight"):
        Dewey.load(bare)


def test_pickles_and_foreign_folders_are_not_opened(bare, tmp_path):
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        Dewey.load(bare)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="no known layout"):
        Dewey.load(tmp_path / "bert")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is an empty folder"):
        Dewey.load(tmp_path / "empty")


def test_a_module_that_cannot_be_run_is_refused(bare):
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1", "type": "sentence_transformers.models.LSTM"},
    ]
    (bare / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="LSTM"):
        Dewey.load(bare)
