"""Models → folders that plain Sentence Transformers loads, with no code of ours.

`dewey.json` beside Sentence Transformers' own files holds what it has no name for. The caller
writes the tokenizer into the same folder, then lets `whole_folder` put it under its name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dewey_embed.config import DeweyConfig
from dewey_embed.errors import CheckpointError
from dewey_embed.model.checkpoint import SETTINGS_FILE
from dewey_embed.model.dewey import DeweyModel

FORMAT = 1

# The module paths of Sentence Transformers 2 to 5, which 6 still reads.
MODULE = "sentence_transformers.models."

POOLING_NOTE = {
    "cls": "Sentence Transformers gives the same single vector: its CLS pooling is ours.",
    "mean": (
        "Sentence Transformers' mean also counts CLS and SEP, which Dewey's leaves out, "
        "so its vectors differ slightly from Dewey's."
    ),
    "cls_add_mean": (
        "Sentence Transformers has no sum of CLS and mean: it gives the mean "
        "(which there counts CLS and SEP too), so its vectors differ from Dewey's."
    ),
}


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder that stands under `path` only once all of it is written.

    An older model folder at `path` is replaced; anything else there is left alone.

    Raises:
        CheckpointError: `path` holds something that is no model folder.

    """
    if path.exists() and any(path.iterdir()) and not (path / SETTINGS_FILE).exists():
        raise CheckpointError(f"{path} exists and is no Dewey model folder; choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            os.replace(path, old)
        os.replace(draft, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_model(model: DeweyModel, folder: Path) -> None:
    """Nothing; `folder` then holds all of a model but its tokenizer."""
    config = model.config
    body = _tensors(model.backbone)
    _write_safetensors(body, folder / "model.safetensors")
    dtype = str(next(iter(body.values())).dtype).removeprefix("torch.")
    write_json(folder / "config.json", {**config.backbone.to_hugging_face(), "dtype": dtype})
    if model.head is not None:
        (folder / "2_Dense").mkdir()
        head = {f"linear.{name}": tensor for name, tensor in _tensors(model.head).items()}
        _write_safetensors(head, folder / "2_Dense" / "model.safetensors")
        write_json(
            folder / "2_Dense" / "config.json",
            {
                "in_features": config.backbone.hidden_size,
                "out_features": config.vector_size,
                "bias": config.head_bias,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
    _write_modules(config, folder, has_head=model.head is not None)
    settings = config.model_dump(mode="json", exclude={"backbone"})
    write_json(folder / SETTINGS_FILE, {"format": FORMAT, **settings})


def write_tokenizer_files(source: Path, folder: Path, config: DeweyConfig) -> None:
    """Nothing; `folder` then says which token is which, as the model's own folder did."""
    path = source / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    values |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_tokens}
    write_json(folder / "tokenizer_config.json", values)
    special = source / "special_tokens_map.json"
    if special.exists():
        shutil.copy(special, folder)


def write_json(path: Path, values: Any) -> None:
    """Nothing; the file holds `values` as indented JSON with a final newline."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_modules(config: DeweyConfig, folder: Path, *, has_head: bool) -> None:
    """What Sentence Transformers reads: modules, pooling, prompts, length."""
    kinds = ["Transformer", "Pooling", *(["Dense"] if has_head else []), "Normalize"]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{kind}",
            "type": MODULE + kind,
        }
        for index, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    normalize = folder / str(modules[-1]["path"])
    for path in (folder / "1_Pooling", normalize):
        path.mkdir()
    sides = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    write_json(normalize / "config.json", sides)
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.backbone.hidden_size,
            "pooling_mode_cls_token": config.single_vector == "cls",
            "pooling_mode_mean_tokens": config.single_vector != "cls",
            "include_prompt": config.single_vector == "cls",
        },
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": config.max_tokens, "do_lower_case": False},
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": config.prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            "dewey_pooling_note": POOLING_NOTE[config.single_vector],
        },
    )


def _write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Nothing; the file then holds the tensors, with the permissions of any other file."""
    from safetensors.torch import save

    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()
    }
