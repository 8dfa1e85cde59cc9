"""Models of one shape → one model, whose weights are the mean of theirs: a model soup.

Checkpoints of one run, or runs from one start, lie in one basin, where the mean of their weights is
a model, too, and often a better one.
Source: Wortsman et al., "Model soups", arXiv 2203.05482: θ = Σᵢ wᵢ θᵢ with Σᵢ wᵢ = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dewey_embed.config import DeweyConfig
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.files import write_json
from dewey_embed.model.checkpoint import Checkpoint, build_model
from dewey_embed.model.export import write_model, write_tokenizer_files
from dewey_embed.model.folder import HISTORY_FILE, atomic_model_folder, locate_model, read_json
from dewey_embed.pretrained import read_pretrained
from dewey_embed.progress import progress_bar
from dewey_embed.train.card import CARD, data_rows, licence_of, merged_card, with_axes
from dewey_embed.train.command import this_command
from dewey_embed.train.run import machine
from dewey_embed.train.start import runs_of
from dewey_embed.types import Floats


class Ingredient(NamedTuple):
    """A model that is merged: its name as given, its folder, and its share of the mean."""

    name: str
    folder: Path
    share: float


def merge(
    models: Sequence[str | Path],
    output: Path,
    weights: Sequence[float] | None = None,
    *,
    progress: bool = False,
) -> list[Ingredient]:
    """Write the weighted mean of models to `output`; the models, with the shares that they had.

    Weights are divided by their sum; without any all models count the same. The mean is taken in
    float32 and written in bfloat16, as training writes its models.

    Raises:
        ConfigError: there is no model, one is given twice, or not one weight from 0 for each.
        CheckpointError: a model cannot be loaded, or has another shape, tokenizer or setting than
            the first.

    """
    ingredients = [
        Ingredient(*locate_model(model), share)
        for model, share in zip(models, shares(len(models), weights), strict=True)
    ]
    _require_different(ingredients)
    first, tokenizer = read_pretrained(ingredients[0].folder)
    means: dict[str, Tensor] = {}
    with progress_bar("merging", len(ingredients), "models", show=progress) as advance:
        for each in ingredients:
            checkpoint, _ = read_pretrained(each.folder)
            _require_alike(ingredients[0].name, first, each.name, checkpoint)
            for name, tensor in build_model(checkpoint).state_dict().items():
                term = each.share * tensor.float()
                means[name] = means[name] + term if name in means else term
            advance(1)
    model = build_model(first).float()
    model.load_state_dict(means)
    history = _history(ingredients)
    with atomic_model_folder(output) as draft:
        write_model(model.to(torch.bfloat16), draft)
        tokenizer.save(draft / "tokenizer.json")
        write_tokenizer_files(first.tokenizer, draft, model.config)
        write_json(draft / HISTORY_FILE, history, indent=2)
        card = _card(ingredients, history)
        card = card if model.teacher_axes is None else with_axes(card)
        (draft / CARD).write_text(card, encoding="utf-8")
    return ingredients


def shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The share of each of `count` models, of sum 1.

    >>> shares(2, None), shares(2, [1, 3])
    ([0.5, 0.5], [0.25, 0.75])

    Raises:
        ConfigError: there is no model, or not one weight from 0 for each.

    """
    if not count:
        raise ConfigError("no model to merge; give two or more")
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise ConfigError(
            f"{len(given)} weights for {count} models; give one for each, in their order"
        )
    total = sum(given)
    if not math.isfinite(total) or total <= 0 or min(given) < 0:
        raise ConfigError(
            f"weights {', '.join(f'{each:g}' for each in given)}: need numbers from 0, not all of "
            "them 0; they are divided by their sum"
        )
    return [each / total for each in given]


def _require_different(ingredients: Sequence[Ingredient]) -> None:
    """Refuse a folder that is given twice: its weights would count twice, which `weights` says."""
    names: dict[Path, str] = {}
    for each in ingredients:
        folder = each.folder.resolve()
        if folder in names:
            raise ConfigError(
                f"{each.name}: given twice ({names[folder]}: {folder}); give each model once, and "
                "weights where one shall count for more"
            )
        names[folder] = each.name


def _require_alike(first: str, ours: Checkpoint, name: str, theirs: Checkpoint) -> None:
    """Refuse a model whose weights do not stand for the same things as the first one's."""
    remedy = "only models that were trained from one start can be merged"
    if differ := _differences(ours.config, theirs.config):
        raise CheckpointError(f"{name}: differs from {first} in {'; '.join(differ)}; {remedy}")
    files = [each.tokenizer / "tokenizer.json" for each in (ours, theirs)]
    same = ours.lower_case == theirs.lower_case and read_json(files[0]) == read_json(files[1])
    if not same:
        raise CheckpointError(f"{name}: has another tokenizer than {first}; {remedy}")
    if not _same_axes(ours.teacher_axes, theirs.teacher_axes):
        raise CheckpointError(
            f"{name}: its vectors stand in other axes than those of {first}, so that no weight of "
            "their last layers is alike; merge the models as they were before `dewey rotate`, then "
            "rotate the merged one"
        )


def _same_axes(ours: Floats | None, theirs: Floats | None) -> bool:
    """Whether two models' vectors stand in the same axes."""
    if ours is None or theirs is None:
        return ours is theirs
    return bool(np.array_equal(ours, theirs))


def _differences(ours: DeweyConfig, theirs: DeweyConfig) -> list[str]:
    """The settings that differ, each with both of its values."""
    mine, others = _flat(ours), _flat(theirs)
    return [
        f"{name} ({others[name]!r}, not {value!r})"
        for name, value in mine.items()
        if value != others[name]
    ]


def _flat(config: DeweyConfig) -> dict[str, Any]:
    """A model's settings, with those of its backbone beside the others."""
    return {**dict(config.backbone), **{k: v for k, v in dict(config).items() if k != "backbone"}}


def _history(ingredients: Sequence[Ingredient]) -> list[dict[str, Any]]:
    """The runs behind all of the models, each once, and the merging."""
    runs: list[dict[str, Any]] = []
    for each in ingredients:
        runs += [run for run in runs_of(each.folder) if run not in runs]
    command = this_command()
    merging = {"steps": 0, "tokens": 0, "train_hours": 0.0, "machine": machine()}
    return [*runs, {"command": command, **merging}]


def _card(ingredients: Sequence[Ingredient], history: Sequence[dict[str, Any]]) -> str:
    """The merged model's card."""
    *runs, merging = history
    models = [(each.name, each.share, licence_of(each.folder)) for each in ingredients]
    data = list(dict.fromkeys(row for each in ingredients for row in data_rows(each.folder)))
    return merged_card(merging["command"], models, runs, data)
