"""Linear layers with products in int8: weights stored in int8, and layers trained in int8.

`Int8Linear` takes half the memory of bfloat16. With C++ kernels its products are int8 too, tokens
quantized as they come, and faster; elsewhere its weights are bfloat16 again for the moment of a
product. `TrainedLinear` keeps float32 weights and quantizes them for every product; rows are
quantized token by token, and what is summed over tokens column by column, 256 tokens at a time.
Source: arXiv 2304.13013 §2 (SwitchBack) for the products forward and to the inputs; it keeps those
of the weights' gradients in 16 bits, for they are sums over all tokens. The blocks are ours.

Shape suffixes: T packed tokens, I inputs, J outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.model.backbone import Backbone, Layer
from dewey_embed.model.native.kernels import Kernels, kernels

INT8_MAX = 127


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
        scale = exact.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / INT8_MAX
        weight = (exact / scale.unsqueeze(1)).round().to(torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        # The kernels subtract it again, for they need a token's bytes to be 128 too high.
        self.register_buffer("shift", 128 * weight.sum(1, dtype=torch.int32))
        self.bias = linear.bias

    def forward(self, rows_TI: Tensor) -> Tensor:
        """(T, J) in the dtype of `rows_TI`."""
        weight_JI = (self.weight * self.scale.unsqueeze(1)).to(rows_TI.dtype)
        return F.linear(rows_TI, weight_JI, self.bias)


class TrainedLinear(nn.Linear):
    """A linear layer that shares another's weights, with products in int8 under gradients."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, rows_TI: Tensor) -> Tensor:
        """(T, J) of (T, I)."""
        if not torch.is_grad_enabled() or rows_TI.dtype != torch.bfloat16:
            return F.linear(rows_TI, self.weight, self.bias)
        out_TJ: Tensor = int8_linear(rows_TI, self.weight)
        return out_TJ if self.bias is None else out_TJ + self.bias.to(out_TJ.dtype)


def replace_linears(backbone: Backbone, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Replace every linear layer of the backbone's layers by the one made of it."""
    for layer in cast("Iterable[Layer]", backbone.layers):
        for block, names in ((layer.attn, ("Wqkv", "Wo")), (layer.mlp, ("Wi", "Wo"))):
            for name in names:
                setattr(block, name, make(getattr(block, name)))


def to_int8(backbone: Backbone) -> None:
    """Store the layers' weights in int8; embeddings and norms stay as they are."""
    replace_linears(backbone, Int8Linear)


def is_int8(backbone: Backbone) -> bool:
    """Whether `to_int8` was called on the backbone."""
    first = cast("Layer", backbone.layers[0])
    return isinstance(first.mlp.Wi, Int8Linear)


@torch.library.custom_op("dewey::int8_linear", mutates_args=())
def int8_linear(rows_TI: Tensor, weight_JI: Tensor) -> Tensor:
    """(T, J) bfloat16 of bfloat16 rows and float32 weights."""
    return _kernels().linear_quantized(rows_TI.contiguous(), weight_JI, transposed=False)


@int8_linear.register_fake
def _(rows_TI: Tensor, weight_JI: Tensor) -> Tensor:
    return rows_TI.new_empty((rows_TI.shape[0], weight_JI.shape[0]))


@torch.library.custom_op("dewey::int8_linear_gradients", mutates_args=())
def int8_linear_gradients(
    grads_TJ: Tensor, rows_TI: Tensor, weight_JI: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows, bfloat16, and of the weights, float32."""
    native, grads_TJ = _kernels(), grads_TJ.contiguous()
    return (
        native.linear_quantized(grads_TJ, weight_JI, transposed=True),
        native.weight_gradients(grads_TJ, rows_TI.contiguous()),
    )


@int8_linear_gradients.register_fake
def _(grads_TJ: Tensor, rows_TI: Tensor, weight_JI: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows_TI), torch.empty_like(weight_JI)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grads_TJ: Tensor) -> tuple[Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor] = int8_linear_gradients(grads_TJ, *ctx.saved_tensors)
    return gradients


int8_linear.register_autograd(_gradients, setup_context=_keep)


def _kernels() -> Kernels:
    native = kernels(torch.bfloat16, may_build=True)
    assert native is not None, "layers are made to train in int8 only where there are kernels"
    return native
