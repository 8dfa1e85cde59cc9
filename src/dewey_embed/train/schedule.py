"""How a run proceeds: its progress, learning rate, optimiser and number of layers.

Progressive depth trains the first layers alone for a while, then those above with them. A step
costs what its layers cost, and the first layers learn much of what they learn as well alone. The
layers above add nothing before they are trained, for their output projections start at zero:
deepening changes no vector, and every checkpoint is a complete model.
Source: Gong et al., ICML 2019 (progressive stacking); arXiv 2203.06211 (growth that preserves the
loss); arXiv 2511.04981 (growth from a single layer, late).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from dewey_embed.model.backbone import Backbone, Layer
from dewey_embed.train.recipe import TrainingRecipe


class Progress:
    """The share of a run that is done: of its steps, or of its minutes where those end first.

    `elapsed_s` is the time that earlier processes of the same run have used. Shares and rates are
    those of the time noted last, which is the first process's: two that read their own clocks would
    train at two rates, and one might stop while the other waits for it.
    """

    def __init__(
        self, max_steps: int, *, max_minutes: float | None = None, elapsed_s: float = 0.0
    ) -> None:
        self.max_steps = max_steps
        self.max_minutes = max_minutes
        self._earlier_s = elapsed_s
        self._started_s = time.monotonic()
        self._noted_s = elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run has taken, those of earlier processes included."""
        return self._earlier_s + time.monotonic() - self._started_s

    def note(self) -> None:
        """Note the time, which shares and rates then are of, in all processes."""
        if self.max_minutes is not None:
            [self._noted_s] = broadcast_object_list([self.elapsed_s])

    def share(self, step: int) -> float:
        """The share done after `step` steps, from 0 to 1."""
        shares = [step / self.max_steps]
        if self.max_minutes is not None:
            shares.append(self._noted_s / (60 * self.max_minutes))
        return min(1.0, max(shares))

    def rate(self, step: int, warmup_steps: int) -> float:
        """The factor on every learning rate: up over the warm-up, then linearly to nothing.

        Source: arXiv 2503.20376 §4, 2000 warm-up steps and linear decay.
        """
        return min(1.0, (step + 1) / (warmup_steps + 1)) * (1.0 - self.share(step))


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
    else goes by AdamW. The matrix is found in bfloat16 unless training is in float32.
    Source: https://kellerjordan.github.io/posts/muon; arXiv 2502.16982 §2.2.
    """
    groups = parameter_groups(model, recipe)
    if recipe.optimizer != "muon":
        chosen, options = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer: torch.optim.Optimizer = chosen([group for _, group in groups], **options)
        return optimizer
    from pytorch_optimizer import Muon

    from dewey_embed.train.muon import Float32Muon

    kind = Float32Muon if recipe.precision == "float32" else Muon
    return kind(
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


def layers_at(depth_shares: Sequence[tuple[int, float]], done: float) -> int:
    """How many layers run when the share `done` of a run is over."""
    end = 0.0
    for layers, share in depth_shares:
        end += share
        if done < end:
            return layers
    return depth_shares[-1][0]


def zero_output_projections(backbone: Backbone, first: int) -> None:
    """Set output projections above the `first` layers to zero: they then add nothing."""
    with torch.no_grad():
        for layer in backbone.layers[first:]:
            for output in (cast(Layer, layer).attn.Wo, cast(Layer, layer).mlp.Wo):
                for parameter in output.parameters():
                    parameter.zero_()


def deepening(
    backbone: Backbone, recipe: TrainingRecipe, progress: Progress
) -> list[TrainerCallback]:
    """What makes a backbone deeper during a run; nothing, where all its layers run throughout."""
    return [_Deepening(backbone, recipe.depth_shares, progress)] if recipe.depth else []


class _Deepening(TrainerCallback):
    """Has a backbone run, in each step of training, as many layers as it has by then."""

    def __init__(
        self, backbone: Backbone, shares: Sequence[tuple[int, float]], progress: Progress
    ) -> None:
        self.backbone, self.shares, self.progress = backbone, shares, progress

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.backbone.depth = layers_at(self.shares, self.progress.share(state.global_step))
