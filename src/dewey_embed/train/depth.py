"""Progressive depth: the first layers are trained alone for a while, then those above with them.

A step costs what its layers cost, and much of what the first layers learn they learn as well alone.
The layers above add nothing before they are trained, for their output projections start at zero:
deepening changes no vector, and every checkpoint is a whole model.
Source: Gong et al., ICML 2019 (progressive stacking); arXiv 2203.06211 (growth that preserves the
loss); arXiv 2511.04981 (growth from a single layer, late).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import TrainerCallback

from dewey_embed.model.backbone import Backbone, Layer
from dewey_embed.train.recipe import TrainingRecipe
from dewey_embed.train.schedule import Progress


def layers_at(depth_shares: Sequence[tuple[int, float]], done: float) -> int:
    """How many layers run when the share `done` of a run is over."""
    end = 0.0
    for layers, share in depth_shares:
        end += share
        if done < end:
            return layers
    return depth_shares[-1][0]


def silence_above(backbone: Backbone, first: int) -> None:
    """Nothing; the layers above the `first` ones then add nothing to the stream."""
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
