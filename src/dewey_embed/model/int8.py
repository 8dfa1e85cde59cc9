"""Weights of a backbone as int8, each row with a scale of its own: half the memory of bfloat16.

With our kernels products are int8 too, tokens rounded as they come, and faster; elsewhere weights
are bfloat16 again for the moment of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

if TYPE_CHECKING:
    from dewey_embed.model.backbone import Backbone, Layer

HIGHEST = 127


class Int8Linear(nn.Module):
    """A linear layer whose weights W (J, I) are `weight` (J, I) int8 times `scale` (J,) float32.

    The scale is the row's largest magnitude over 127, so that no weight is cut off.
    Source: arXiv 1712.05877 §2.1, symmetric and per output channel.
    """

    weight: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        exact = linear.weight.detach().float()
        scale = exact.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / HIGHEST
        weight = (exact / scale.unsqueeze(1)).round().to(torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        # What the kernels must take off again: they want a token's bytes 128 too high.
        self.register_buffer("shift", 128 * weight.sum(1, dtype=torch.int32))
        self.bias = linear.bias

    def forward(self, rows_TI: Tensor) -> Tensor:
        """(T, J) in the dtype of `rows_TI`."""
        weight_JI = (self.weight * self.scale.unsqueeze(1)).to(rows_TI.dtype)
        return F.linear(rows_TI, weight_JI, self.bias)


def replace_linears(backbone: Backbone, made: Callable[[nn.Linear], nn.Module]) -> None:
    """Nothing; every linear layer of the layers is then what was made of it."""
    for layer in cast("Iterable[Layer]", backbone.layers):
        for part, names in ((layer.attn, ("Wqkv", "Wo")), (layer.mlp, ("Wi", "Wo"))):
            for name in names:
                setattr(part, name, made(getattr(part, name)))


def to_int8(backbone: Backbone) -> None:
    """Nothing; the products of all layers are then by int8 weights. Embeddings and norms stay."""
    replace_linears(backbone, Int8Linear)


def is_int8(backbone: Backbone) -> bool:
    """Whether `to_int8` was done to it."""
    first = cast("Layer", backbone.layers[0])
    return isinstance(first.mlp.Wi, Int8Linear)
