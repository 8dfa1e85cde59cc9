"""Backbone + head: pooled states → unit vectors. Knows tokens, not text.

The head is applied after pooling: a mean is linear, so the mean of the tokens' projections is the
projection of their mean, and C vectors are projected in place of T tokens (DESIGN.md, decision 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.config import DeweyConfig
from dewey_embed.model.backbone import Backbone
from dewey_embed.model.packing import Packed
from dewey_embed.types import SingleVector


class DeweyModel(nn.Module):
    """A backbone with its head (a plain linear layer, or none)."""

    def __init__(self, config: DeweyConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head: nn.Linear | None = None
        if config.vector_size is not None:
            width = config.backbone.hidden_size
            self.head = nn.Linear(width, config.vector_size, bias=config.head_bias)

    def forward(self, packed: Packed) -> Tensor:
        """Hidden states (T, H) float32 of a packed row."""
        states: Tensor = self.backbone(packed)
        return states

    def embed(self, pooled_CH: Tensor) -> Tensor:
        """(C, D) float32, unit length: the head over pooled states (C, H), in float32."""
        with torch.autocast(pooled_CH.device.type, enabled=False):
            pooled_CH = pooled_CH.float()
            if self.head is not None:
                bias = None if self.head.bias is None else self.head.bias.float()
                pooled_CH = F.linear(pooled_CH, self.head.weight.float(), bias)
            return F.normalize(pooled_CH, dim=-1)


def single_vectors(cls_BD: Tensor, mean_BD: Tensor, kind: SingleVector) -> Tensor:
    """(B, D) unit length: the one vector for a whole text, from its unit CLS and mean vectors.

    Source: arXiv 2503.20376 §2 and the released config's `single_vector_type`; `cls_add_mean` is
    read as the sum of the two unit vectors, for the paper gives no formula.
    """
    if kind == "cls":
        return cls_BD
    if kind == "mean":
        return mean_BD
    return F.normalize(cls_BD + mean_BD, dim=-1)
