"""Models → folders that plain Sentence Transformers loads, with no code of Dewey's.

`dewey.json` beside Sentence Transformers' own files holds the settings it has no name for. The
caller writes the tokenizer into the same folder, then lets `model.folder` put it in its place.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from dewey_embed.config import DeweyConfig
from dewey_embed.files import write_json
from dewey_embed.model.dewey import ACTIVATIONS, DenseStep, DeweyModel
from dewey_embed.model.folder import (
    AXES_FILE,
    AXES_NAME,
    MODULES_FILE,
    SETTINGS_FILE,
    Json,
    read_json,
)
from dewey_embed.model.hugging_face import to_hugging_face
from dewey_embed.single_vectors import SINGLE_VECTORS
from dewey_embed.types import Floats

FORMAT = 1

# The module paths of Sentence Transformers 2 to 5, which 6 still reads.
MODULE = "sentence_transformers.models."

NOT_COPIED = ("auto_map", "add_bos_token", "add_eos_token", "max_len", "tokenizer_file")
"""Keys of a `tokenizer_config.json` that do not apply to the tokenizer that is written."""


def pooling_difference(config: DeweyConfig) -> str | None:
    """How Sentence Transformers' single vector differs from Dewey's; None where it does not."""
    return SINGLE_VECTORS[config.single_vector].difference_of(config.pooled_over)


def write_model(model: DeweyModel, folder: Path) -> None:
    """Write a model without its tokenizer into `folder`."""
    config = model.config
    _write_weights(model.backbone, folder)
    if model.teacher_axes is not None:
        _write_axes(model.teacher_axes, folder / AXES_FILE)
    dtype = str(next(model.backbone.parameters()).dtype).removeprefix("torch.")
    files: dict[str, Any] = {
        "config.json": {**to_hugging_face(config.backbone), "dtype": dtype},
        "sentence_bert_config.json": {"max_seq_length": config.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": _model_file(config),
        SETTINGS_FILE: {
            "format": FORMAT,
            **config.model_dump(mode="json", exclude={"backbone", *config.unused()}),
        },
    }
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{MODULE}Transformer"}]
    for index, (kind, values, layer) in enumerate(_modules(model), start=1):
        path = f"{index}_{kind}"
        listed.append({"idx": index, "name": str(index), "path": path, "type": MODULE + kind})
        files[f"{path}/config.json"] = values
        (folder / path).mkdir()
        if layer is not None:
            _write_weights(layer, folder / path, prefix="linear.")
    files[MODULES_FILE] = listed
    for name, values in files.items():
        write_json(folder / name, values, indent=2)


def write_tokenizer_files(source: Path, folder: Path, config: DeweyConfig) -> None:
    """Copy the names of the special tokens from the model's own folder `source` to `folder`."""
    values = read_json(source / "tokenizer_config.json", missing_ok=True)
    values = {key: value for key, value in values.items() if key not in NOT_COPIED}
    values |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_tokens}
    write_json(folder / "tokenizer_config.json", values, indent=2)
    special = source / "special_tokens_map.json"
    if special.exists():
        shutil.copyfile(special, folder / special.name)


def _modules(model: DeweyModel) -> list[tuple[str, Json, nn.Module | None]]:
    """Sentence Transformers' modules after the Transformer: kind, config, layer with weights."""
    config = model.config
    mode, difference = SINGLE_VECTORS[config.single_vector].mode, pooling_difference(config)
    pooling = {
        "word_embedding_dimension": config.backbone.hidden_size,
        "pooling_mode_cls_token": mode == "cls",
        "pooling_mode_mean_tokens": mode == "mean",
        "include_prompt": difference is None and config.pooled_over != "after_prompt",
    }
    sides = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    modules: list[tuple[str, Json, nn.Module | None]] = [("Pooling", pooling, None)]
    for step in (*model.steps, model.head):
        if isinstance(step, nn.Linear):
            modules.append(("Dense", _dense(step), step))
        elif step is not None:
            modules.append(("Normalize", sides, None))
    return [*modules, ("Normalize", sides, None)]


def _dense(layer: nn.Linear) -> Json:
    activation = ACTIVATIONS["identity"]
    if isinstance(layer, DenseStep):
        activation = type(layer.activation)
    return {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": layer.bias is not None,
        "activation_function": f"{activation.__module__}.{activation.__name__}",
    }


def _model_file(config: DeweyConfig) -> Json:
    """Sentence Transformers' settings of the complete model, and a note on its single vector."""
    mode = SINGLE_VECTORS[config.single_vector].mode
    same = f"Sentence Transformers gives the same single vector: its {mode} pooling is Dewey's."
    return {
        "prompts": config.prompts,
        "default_prompt_name": config.default_prompt_name,
        "similarity_fn_name": "cosine",
        **({} if config.truncate_dim is None else {"truncate_dim": config.truncate_dim}),
        "dewey_pooling_note": pooling_difference(config) or same,
    }


def _write_axes(axes: Floats, path: Path) -> None:
    """Write the axes of a model's vectors."""
    from safetensors.numpy import save

    path.write_bytes(save({AXES_NAME: np.ascontiguousarray(axes)}))


def _write_weights(module: nn.Module, folder: Path, prefix: str = "") -> None:
    """Write a module's safetensors file, with the permissions of any other file."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        prefix + name: tensor.detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
