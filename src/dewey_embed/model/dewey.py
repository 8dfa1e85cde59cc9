"""Backbone + head: pooled states → unit vectors. Knows tokens, not text.

The head is applied after pooling: a mean is linear, so the mean of the tokens' projections is the
projection of their mean, and C vectors are projected in place of T tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.config import Activation, Dense, DeweyConfig
from dewey_embed.model.backbone import Backbone
from dewey_embed.model.device import (
    Dtype,
    find_device,
    find_dtype,
    limit_threads,
    require_room,
    use_threads,
)
from dewey_embed.model.engine import hidden_states
from dewey_embed.model.int8 import to_int8
from dewey_embed.model.packing import Packed
from dewey_embed.types import Floats

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class DenseStep(nn.Linear):
    """A linear layer with an activation, in float32 for weights of any dtype."""

    def __init__(self, config: Dense) -> None:
        super().__init__(config.in_features, config.out_features, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, pooled: Tensor) -> Tensor:
        """(C, out_features) float32 of (C, in_features) float32."""
        out: Tensor = self.activation(_linear(self, pooled))
        return out


class NormalizeStep(nn.Module):
    """To unit length."""

    def forward(self, pooled: Tensor) -> Tensor:
        """(C, D) of (C, D)."""
        return F.normalize(pooled, dim=-1)


class DeweyModel(nn.Module):
    """A backbone with the steps on its pooled states and its head (a plain linear layer, or none).

    Dewey's own models have no steps; Sentence Transformers folders may. `teacher_axes` (T, D) says
    where a vector's D axes lie among the teacher's T; None where they are the teacher's own.
    """

    def __init__(self, config: DeweyConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.steps = nn.ModuleList(
            DenseStep(step) if isinstance(step, Dense) else NormalizeStep() for step in config.steps
        )
        self.head: nn.Linear | None = None
        if config.vector_size is not None:
            self.head = nn.Linear(config.pooled_dim, config.vector_size, bias=config.head_bias)
        self.teacher_axes: Floats | None = None

    def forward(self, packed: Packed) -> Tensor:
        """Hidden states (T, H) float32 of a packed row."""
        return hidden_states(self.backbone, packed)

    def embed(self, pooled_CH: Tensor) -> Tensor:
        """(C, D) float32, unit length: steps and head over pooled states (C, H), in float32."""
        return F.normalize(self.project(pooled_CH), dim=-1)

    def project(self, pooled_CH: Tensor) -> Tensor:
        """(C, D) float32: what `embed` makes of pooled states before it is scaled to unit length.

        Without steps and bias it is linear: of a sum of states it is the sum of what they give.
        """
        with torch.autocast(pooled_CH.device.type, enabled=False):
            pooled = pooled_CH.float()
            for step in self.steps:
                pooled = step(pooled)
            if self.head is not None:
                pooled = _linear(self.head, pooled)
            return pooled


def placed(
    model: DeweyModel, *, device: str | None, dtype: Dtype, compile_layers: bool
) -> DeweyModel:
    """The model, moved to its device and dtype: by default CUDA where there is one.

    On a CPU it also limits this process to as many threads as it has cores.

    Raises:
        ConfigError: the dtype is unknown or does not hold the weights, or the device is unknown or
            not there.

    """
    place = find_device(device)
    number = find_dtype(dtype, place)
    if place.type == "cpu":
        limit_threads()
        use_threads()
    require_room(model, number)
    for part in (model.backbone, model.steps):
        part.to(device=place, dtype=number)
    if (head := model.head) is not None:
        # Its products are in float32 anyway: stored so, it stays so, and a rotation is exact.
        stored = head.weight.dtype
        head.to(device=place, dtype=stored if stored is torch.float32 else number)
    if dtype == "int8":
        to_int8(model.backbone)
    if compile_layers:
        model.backbone.compile_layers()
    return model


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    """The layer of float32 rows, in float32."""
    bias = None if layer.bias is None else layer.bias.float()
    return F.linear(rows, layer.weight.float(), bias)
