"""Random tiny Sentence Transformers folders, made from a seed: what others' folders may look like.

Each is written file by file, as their versions 2 to 6 do, so that a hundred take seconds.
"""

import json
import random
from functools import cache
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.model.twins import hugging_face_config

WORDS = (
    "The quick brown fox jumps over the lazy dog. A tenant pays the rent monthly, on Mondays. "
    "Patents belong to the heirs of the inventor; rivers carry timber and ships to the sea. "
    "Straße, naïve café, ÀÉÎ and 東京; 😀 query: passage: "
)
CORPUS = [WORDS] * 20
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "<s>", "</s>"]
TEXTS = [
    "The rent is due on Mondays.",
    "patents",
    "  A FOX, a river and Straße 😀\nships\tcarry timber;  naïve café 東京  ",
    "Ships carry timber to the sea. " * 12,
    "",
]
WIDTH = 16


def byte_level():
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return backend, trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def word_piece():
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend, trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=SPECIAL, show_progress=False
    )


def unigram():
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend, trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )


def word_level():
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)


def characters():
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return backend, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)


def byte_fallback():
    """As Gemma's: spaces become ▁, and bytes stand for characters that are not known."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="[UNK]", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    return backend, trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL + bytes_, show_progress=False
    )


def prepended():
    """As Llama's: a ▁ stands before the text, and words may join over spaces."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="[UNK]", fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Lowercase()]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    return backend, trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL + bytes_, max_token_length=8, show_progress=False
    )


KINDS = (byte_level, word_piece, unigram, word_level, characters, byte_fallback, prepended)


@cache
def trained(kind):
    backend, trainer = kind()
    backend.train_from_iterator(CORPUS, trainer)
    return backend.to_str()


def template(single):
    def make(ids):
        used = [(name, ids[name]) for name in SPECIAL if name in single]
        return processors.TemplateProcessing(single=single, special_tokens=used)

    return make


TEMPLATES = (
    template("[CLS] $A [SEP]"),
    template("[CLS] $A [SEP]"),
    template("<s> $A </s>"),
    template("[CLS] $A"),
    template("$A [SEP]"),
    template("[CLS] [MASK] $A [SEP] </s>"),
    lambda ids: processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])),
    lambda ids: processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"])),
    lambda ids: processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), template("<s> $A [SEP]")(ids)]
    ),
    lambda _: None,
)
RUN = ("Dense", "Normalize", "Dropout")
REFUSED = ("LayerNorm", "WeightedLayerPooling", "LSTM", "CNN", "Pooling")
ACTIVATIONS = ("linear.Identity", "activation.Tanh", "activation.ReLU", "activation.GELU",
               "activation.SiLU", "activation.Sigmoid", "activation.Softplus")  # fmt: skip


def make_folder(folder: Path, seed: int) -> None:
    """Write a folder that the seed decides; some are such as we must refuse."""
    choose = random.Random(seed)
    transformer = folder / choice(choose, {"": 4, "0_Transformer": 1, "parts/encoder": 1})
    transformer.mkdir(parents=True)
    backend = tokenizers.Tokenizer.from_str(trained(KINDS[seed % len(KINDS)]))
    ids = backend.get_vocab()
    if (processor := choose.choice(TEMPLATES)(ids)) is not None:
        backend.post_processor = processor
    if choose.random() < 0.1:
        backend.enable_truncation(7)
    write_backbone(transformer, choose, rows=max(ids.values()) + 1 + choose.choice((0, 0, 5)))
    if choose.random() < 0.05:  # a token past the table
        backend.add_tokens([f"zebra{i}" for i in range(8)])
    backend.save(str(transformer / "tokenizer.json"))
    write_tokenizer_config(transformer, choose)
    write_model_file(folder, choose)
    write_modules(folder, transformer, choose)


def choice(choose, weights):
    return choose.choices(list(weights), list(weights.values()))[0]


def write_backbone(folder, choose, rows):
    transformers = pytest.importorskip("transformers")
    config = hugging_face_config("tiny", local_attention=16)
    config.num_hidden_layers = 2
    config.vocab_size, config.hidden_size, config.intermediate_size = rows, WIDTH, 24
    config.layer_types = ["full_attention", "sliding_attention"]
    config.max_position_embeddings = 96
    if choose.random() < 0.5:  # left over from another tokenizer
        config.cls_token_id, config.sep_token_id = choose.choice([(0, 0), (3, 3), (2, 1)])
    torch.manual_seed(choose.randrange(10**6))
    model = transformers.ModernBertModel(config)
    tensors = {
        name: torch.randn_like(tensor) * 0.15 + (1 if tensor.ndim == 1 else 0)
        for name, tensor in model.state_dict().items()
    }
    prefix = choose.choice(("", "", "model."))
    save_file({prefix + n: t for n, t in tensors.items()}, folder / "model.safetensors")
    values = config.to_dict()
    if prefix:
        values["architectures"] = ["ModernBertForMaskedLM"]
    write(folder / "config.json", values)


def write_tokenizer_config(folder, choose):
    named = dict(
        unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    for name in ("sep_token", "eos_token", "mask_token"):
        if choose.random() < 0.15:
            del named[name]
    values = {
        "tokenizer_class": choose.choice(("PreTrainedTokenizerFast", "TokenizersBackend")),
        "model_max_length": choose.choice((32, 96, 512, 10**30)),
    }
    if choose.random() < 0.05:
        values["truncation_side"] = "left"
    if choose.random() < 0.1:
        values["add_bos_token"] = True
    write(folder / "tokenizer_config.json", named | values)
    if choose.random() < 0.7:
        read = {"do_lower_case": choose.random() < 0.3}
        if choose.random() < 0.6:
            read["max_seq_length"] = choose.choice((20, 48, 96, 128, None))
        if choose.random() < 0.05:
            read["query_length"] = 8
        name = choose.choice(("sentence_bert_config.json", "sentence_roberta_config.json"))
        write(folder / name, read)


def write_model_file(folder, choose):
    if choose.random() < 0.15:
        return
    prompts = {"query": "query: ", "document": choose.choice(("passage: ", "")), "other": "AB"}
    values = {"prompts": choose.choice(({}, prompts, prompts, {"query": None, "other": "Zü "}))}
    if choose.random() < 0.4:
        values["default_prompt_name"] = choose.choice(("query", "other", "other", None))
    if choose.random() < 0.2:
        values["truncate_dim"] = choose.choice((5, 8, 64))
    if choose.random() < 0.2:
        values["similarity_fn_name"] = choose.choice(("cosine", "dot", None))
    if choose.random() < 0.05:
        values["model_type"] = "SparseEncoder"
    write(folder / "config_sentence_transformers.json", values)


def write_modules(folder, transformer, choose):
    kinds = [choose.choice(RUN) for _ in range(choose.choice((0, 0, 1, 1, 2, 2, 3, 4)))]
    order = ["Transformer", "Pooling", *kinds]
    if choose.random() < 0.12:
        order.insert(choose.randrange(1, len(order) + 1), choose.choice(REFUSED))
    modules, width = [], WIDTH
    for index, kind in enumerate(order):
        path = str(transformer.relative_to(folder)) if index == 0 else f"{index}_{kind}"
        package = choose.choice(("models.", "sentence_transformer.modules."))
        if kind in ("Transformer", "Dense", "Normalize"):
            package = choose.choice(("models.", "base.modules."))
        modules.append(
            {
                "idx": choose.choice((index, 0)),
                "name": str(index),
                "path": "" if path == "." else path,
                "type": f"sentence_transformers.{package}{kind}",
            }
        )
        if index:
            (folder / path).mkdir(exist_ok=True)
            width = write_module(folder / path, kind, width, choose)
    write(folder / "modules.json", modules)


def write_module(folder, kind, width, choose):
    """Write a module's files; the width of what comes out of it."""
    if kind == "Pooling":
        return write_pooling(folder, choose)
    if kind == "Dense":
        return write_dense(folder, width, choose)
    if kind == "Dropout":
        write(folder / "config.json", {"dropout": 0.5})
    elif kind == "Normalize" and choose.random() < 0.3:
        write(folder / "config.json", {"module_input_name": "sentence_embedding"})
    return width


def write_pooling(folder, choose):
    modes = choice(choose, {"cls": 8, "mean": 12, "max": 1, "lasttoken": 1, "cls mean": 1}).split()
    values = {"word_embedding_dimension": WIDTH}
    if choose.random() < 0.5:
        values["pooling_mode"] = modes if len(modes) > 1 else modes[0]
    else:
        keys = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
        values |= {f"pooling_mode_{keys.get(mode, mode)}": True for mode in modes}
    if choose.random() < 0.5:
        values["include_prompt"] = choose.random() < 0.5
    write(folder / "config.json", values)
    return WIDTH * len(modes)


def write_dense(folder, width, choose):
    out, bias = choose.choice((WIDTH, 12)), choose.random() < 0.5
    values = {"in_features": width, "out_features": out, "bias": bias}
    if choose.random() < 0.9:
        name = choose.choice((*ACTIVATIONS[:2], *ACTIVATIONS))
        values["activation_function"] = f"torch.nn.modules.{name}"
    tensors = {"linear.weight": torch.randn(out, width) * 0.3}
    if bias:
        tensors["linear.bias"] = torch.randn(out) * 0.3
    if choose.random() < 0.05:
        values["use_residual"] = True
        if out != width:
            tensors["residual.weight"] = torch.randn(out, width)
    write(folder / "config.json", values)
    save_file(tensors, folder / "model.safetensors")
    return out


def write(path, values):
    path.write_text(json.dumps(values), encoding="utf-8")
