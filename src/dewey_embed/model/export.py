"""Models → folders that plain Sentence Transformers loads, with no code of Dewey's.

`dewey.json` beside Sentence Transformers' own files holds the settings it has no name for. The
caller writes the tokenizer into the same folder, then lets `model.folder` put it in its place.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dewey_embed.config import Dense, DeweyConfig
from dewey_embed.files import write_json
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.folder import MODULES_FILE, SETTINGS_FILE, read_json
from dewey_embed.model.hugging_face import to_hugging_face
from dewey_embed.single_vectors import SINGLE_VECTORS

FORMAT = 1

# The module paths of Sentence Transformers 2 to 5, which 6 still reads.
MODULE = "sentence_transformers.models."

# Written under torch's names, which Sentence Transformers imports.
ACTIVATION_CLASSES = {
    "identity": "linear.Identity",
    "tanh": "activation.Tanh",
    "relu": "activation.ReLU",
    "gelu": "activation.GELU",
    "silu": "activation.SiLU",
    "sigmoid": "activation.Sigmoid",
}

NOT_COPIED = ("auto_map", "add_bos_token", "add_eos_token", "max_len", "tokenizer_file")
"""Keys of a `tokenizer_config.json` that do not apply to the tokenizer that is written."""


def pooling_difference(config: DeweyConfig) -> str | None:
    """How Sentence Transformers' single vector differs from Dewey's; None where it does not."""
    return SINGLE_VECTORS[config.single_vector].difference_of(config.pooled_over)


def write_model(model: DeweyModel, folder: Path) -> None:
    """Write a model without its tokenizer into `folder`."""
    config = model.config
    body = _tensors(model.backbone)
    _write_safetensors(body, folder / "model.safetensors")
    dtype = str(next(iter(body.values())).dtype).removeprefix("torch.")
    _write_json(folder / "config.json", {**to_hugging_face(config.backbone), "dtype": dtype})
    kinds = ["Transformer", "Pooling"]
    for module, step in zip(model.steps, config.steps, strict=True):
        if isinstance(step, Dense):
            _write_dense(module, step, folder / f"{len(kinds)}_Dense")
        else:
            _write_normalize(folder / f"{len(kinds)}_Normalize")
        kinds.append("Dense" if isinstance(step, Dense) else "Normalize")
    if model.head is not None:
        head = Dense(
            in_features=model.head.in_features,
            out_features=model.head.out_features,
            bias=config.head_bias,
        )
        _write_dense(model.head, head, folder / f"{len(kinds)}_Dense")
        kinds.append("Dense")
    _write_normalize(folder / f"{len(kinds)}_Normalize")
    _write_modules(config, folder, [*kinds, "Normalize"])
    settings = config.model_dump(mode="json", exclude={"backbone", *config.unused()})
    _write_json(folder / SETTINGS_FILE, {"format": FORMAT, **settings})


def write_tokenizer_files(source: Path, folder: Path, config: DeweyConfig) -> None:
    """Copy the names of the special tokens from the model's own folder `source` to `folder`."""
    values = read_json(source / "tokenizer_config.json", missing_ok=True)
    values = {key: value for key, value in values.items() if key not in NOT_COPIED}
    values |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_tokens}
    _write_json(folder / "tokenizer_config.json", values)
    special = source / "special_tokens_map.json"
    if special.exists():
        shutil.copyfile(special, folder / special.name)


def _write_json(path: Path, values: Any) -> None:
    write_json(path, values, indent=2)


def _write_dense(layer: nn.Module, step: Dense, folder: Path) -> None:
    """Write a linear layer as Sentence Transformers' Dense."""
    folder.mkdir()
    tensors = {f"linear.{name}": tensor for name, tensor in _tensors(layer).items()}
    _write_safetensors(tensors, folder / "model.safetensors")
    _write_json(
        folder / "config.json",
        {
            "in_features": step.in_features,
            "out_features": step.out_features,
            "bias": step.bias,
            "activation_function": f"torch.nn.modules.{ACTIVATION_CLASSES[step.activation]}",
        },
    )


def _write_normalize(folder: Path) -> None:
    """Write the config of a Normalize."""
    folder.mkdir()
    sides = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    _write_json(folder / "config.json", sides)


def _write_modules(config: DeweyConfig, folder: Path, kinds: list[str]) -> None:
    """Write Sentence Transformers' own files: modules, pooling, prompts, length."""
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{kind}",
            "type": MODULE + kind,
        }
        for index, kind in enumerate(kinds)
    ]
    _write_json(folder / MODULES_FILE, modules)
    (folder / "1_Pooling").mkdir()
    mode, difference = SINGLE_VECTORS[config.single_vector].mode, pooling_difference(config)
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.backbone.hidden_size,
            "pooling_mode_cls_token": mode == "cls",
            "pooling_mode_mean_tokens": mode == "mean",
            "include_prompt": difference is None and config.pooled_over != "after_prompt",
        },
    )
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": config.max_tokens, "do_lower_case": False},
    )
    kept = {} if config.truncate_dim is None else {"truncate_dim": config.truncate_dim}
    same = f"Sentence Transformers gives the same single vector: its {mode} pooling is Dewey's."
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": config.prompts,
            "default_prompt_name": config.default_prompt_name,
            "similarity_fn_name": "cosine",
            **kept,
            "dewey_pooling_note": difference or same,
        },
    )


def _write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file with the permissions of any other file."""
    from safetensors.torch import save

    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()
    }
