"""The model that training starts from, and the training runs that it went through before.

A start is either a warm start from a teacher's vectors, or a pretrained checkpoint with its context
extended and a new head; it is deterministic, so that every process of a run may make its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dewey_embed.errors import CheckpointError, RunError
from dewey_embed.files import write_json
from dewey_embed.model.backbone import extend_context
from dewey_embed.model.checkpoint import build_model
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.export import write_model, write_tokenizer_files
from dewey_embed.model.folder import atomic_model_folder, locate_model
from dewey_embed.pretrained import read_pretrained
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.recipe import BaseRecipe, Recipe, fingerprint
from dewey_embed.train.recipe_file import read_object
from dewey_embed.train.warm_start import warm_start

HISTORY_FILE = "dewey_training.json"

KEPT = ("command", "steps", "tokens", "train_hours", "machine")
"""What a history keeps of the result of a run."""


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """The runs of the model in a folder; none where it says nothing of any.

    Raises:
        CheckpointError: its history is damaged.

    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    try:
        return [{key: run[key] for key in KEPT} for run in json.loads(path.read_bytes())]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: is no history of training runs ({error!r}); mend it, or remove it and the "
            "runs before will not be told"
        ) from None


def with_run(before: list[dict[str, Any]], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history of a model after one more run."""
    return [*before, {key: result[key] for key in KEPT}]


STAMP = "start.json"


def start_folder(recipe: Recipe, folder: Path, *, progress: bool = False) -> Path:
    """`folder`, which then holds the recipe's untrained model; kept where it is there already.

    Raises:
        RunError: the folder holds the start of another recipe.
        CheckpointError: the base checkpoint cannot be found or read.

    """
    start = {
        part: section.model_dump(mode="json")
        for part in ("model", "warm_start", "base")
        if (section := getattr(recipe, part)) is not None
    }
    stamp = folder / STAMP
    if stamp.exists():
        kept = read_object(stamp, keys=["recipe"], remedy="give the run another --output")
        if kept["recipe"] != fingerprint(start):
            raise RunError(
                f"{folder}: was started from other settings of [model], [warm_start] or [base]; "
                "give the run another --output, or put them back"
            )
        return folder
    if recipe.base is not None:
        from_checkpoint(recipe.base, folder)
    else:
        warm_start(recipe, folder, progress=progress)
    write_json(stamp, {"recipe": fingerprint(start), **start}, indent=2)
    return folder


def from_checkpoint(recipe: BaseRecipe, output: Path) -> None:
    """Write to `output` the checkpoint with more positions, a head and its prompts.

    The head is drawn by its seed, uniform within ±1/√H as PyTorch's linear layers are.
    Source: arXiv 2503.20376 §2: θ = 73,780,400 for 131,072 positions, a linear layer to 2048.

    Raises:
        CheckpointError: the checkpoint cannot be found or read.
        RunError: it has modules that training would not train.

    """
    _, source = locate_model(recipe.checkpoint)
    checkpoint, tokenizer = read_pretrained(source)
    base = checkpoint.config
    if base.steps or base.before_ids is not None or base.after_ids is not None:
        raise RunError(
            f"{source}: has modules before its last linear layer, or other special "
            "tokens than one before a text and one after it; train from its bare ModernBERT"
        )
    model = build_model(checkpoint)
    backbone = extend_context(
        base.backbone, recipe.max_position_embeddings, recipe.global_rope_theta
    )
    new_head = recipe.vector_size is not None and (
        model.head is None or model.head.out_features != recipe.vector_size
    )
    config = base.model_copy(
        update={
            "backbone": backbone,
            "vector_size": recipe.vector_size or base.vector_size,
            "head_bias": base.head_bias and not new_head,
            "single_vector": recipe.single_vector,
            "prompts": recipe.prompts,
            "max_tokens": recipe.max_position_embeddings,
            # Trained and then used without what Sentence Transformers adds.
            "pooled_over": "text",
            "default_prompt_name": None,
            "truncate_dim": None,
        }
    )
    model.config, model.backbone.config = config, backbone
    if new_head:
        model.head = _new_head(model, config.embedding_dim, recipe.head_seed)
    with atomic_model_folder(output) as draft:
        write_model(model, draft)
        tokenizer.save(draft / "tokenizer.json")
        write_tokenizer_files(checkpoint.tokenizer, draft, config)
        if before := runs_of(source):
            write_json(draft / HISTORY_FILE, before, indent=2)


def _new_head(model: DeweyModel, size: int, seed: int) -> nn.Linear:
    """A linear layer H → `size` without bias."""
    width = model.config.backbone.hidden_size
    dtype = model.backbone.final_norm.weight.dtype
    head = nn.Linear(width, size, bias=False, dtype=dtype)
    bound = 1 / math.sqrt(width)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
    return head


def start_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a started model."""
    return read_pretrained(folder)[1]
