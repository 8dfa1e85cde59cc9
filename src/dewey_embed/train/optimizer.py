"""The optimiser of a recipe: which parameters it moves, how fast, and by which rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from dewey_embed.train.recipe import TrainingRecipe

BALANCE_RATE = 100.0
"""Factor on the learning rate of the two balance parameters, which have a long way to go."""


def build_optimizer(
    model: nn.Module, recipe: TrainingRecipe, args: TrainingArguments
) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters, with a rate of its own for the token table.

    StableAdamW is AdamW whose update is clipped to the size of its root mean square.
    Source: arXiv 2304.13013 §3.3; arXiv 2503.20376 §4.

    Muon moves each matrix of the layers along the nearest orthogonal matrix to its momentum, by
    0.2·√max(rows, columns) times the learning rate, which is the size of AdamW's own steps; all
    else goes by AdamW. Source: https://kellerjordan.github.io/posts/muon; arXiv 2502.16982 §2.2.
    """
    groups = parameter_groups(model, recipe)
    if recipe.optimizer != "muon":
        chosen, options = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer: torch.optim.Optimizer = chosen([group for _, group in groups], **options)
        return optimizer
    from pytorch_optimizer import Muon

    return Muon(
        [
            {**group, "use_muon": True, "use_adjusted_lr": True}
            if name == "layers"
            else {**group, "use_muon": False, "betas": recipe.betas, "eps": args.adam_epsilon}
            for name, group in groups
        ]
    )


def parameter_groups(model: nn.Module, recipe: TrainingRecipe) -> list[tuple[str, dict[str, Any]]]:
    """All parameters by name of group: `table`, `balance`, `layers` (their matrices), `rest`."""
    groups: dict[str, list[nn.Parameter]] = {"table": [], "balance": [], "layers": [], "rest": []}
    for name, parameter in model.named_parameters():
        is_matrix = ".layers." in name and parameter.ndim == 2
        groups[
            "table" if "tok_embeddings" in name
            else "balance" if "log_variances" in name
            else "layers" if is_matrix
            else "rest"
        ].append(parameter)  # fmt: skip
    rates = {
        "table": recipe.table_learning_rate or recipe.learning_rate,
        "balance": BALANCE_RATE * recipe.learning_rate,
    }
    return [
        (
            name,
            {
                "params": parameters,
                "lr": rates.get(name, recipe.learning_rate),
                "weight_decay": 0.0 if name in rates else recipe.weight_decay,
            },
        )
        for name, parameters in groups.items()
        if parameters
    ]
