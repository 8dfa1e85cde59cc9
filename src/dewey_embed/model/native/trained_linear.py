"""Linear layers whose products are int8 in training, forward and back, by our kernels.

Weights stay float32 and are rounded anew for every product; rows are rounded token by token, and
what is summed up over tokens column by column, 256 tokens at a time.
Source: arXiv 2304.13013 §2 (SwitchBack) for the products forward and to the inputs; it keeps those
of the weights' gradients in 16 bits, for they are sums over all tokens. The blocks are ours.

Shape suffixes: T packed tokens, I inputs, J outputs of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from dewey_embed.model.int8 import replace_linears
from dewey_embed.model.native.kernels import Kernels, kernels, widths_fit

if TYPE_CHECKING:
    from dewey_embed.model.backbone import Backbone


def train_in_int8(backbone: Backbone) -> bool:
    """Whether products of its layers are int8 where gradients are asked for, from now on.

    They are where attention has kernels for training, if all widths are multiples of 64.
    """
    if backbone.gradient_kernels is None or not widths_fit(backbone.config):
        return False
    replace_linears(backbone, TrainedLinear)
    return True


class TrainedLinear(nn.Linear):
    """The linear layer with these very weights; in int8 where gradients are asked for."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, rows_TI: Tensor) -> Tensor:
        """(T, J) of (T, I)."""
        if not torch.is_grad_enabled() or rows_TI.dtype != torch.bfloat16:
            return F.linear(rows_TI, self.weight, self.bias)
        out_TJ: Tensor = int8_linear(rows_TI, self.weight)
        return out_TJ if self.bias is None else out_TJ + self.bias.to(out_TJ.dtype)


@torch.library.custom_op("dewey::int8_linear", mutates_args=())
def int8_linear(rows_TI: Tensor, weight_JI: Tensor) -> Tensor:
    """(T, J) bfloat16 of bfloat16 rows and float32 weights."""
    return _kernels().linear_rounded(rows_TI.contiguous(), weight_JI, turned=False)


@int8_linear.register_fake
def _(rows_TI: Tensor, weight_JI: Tensor) -> Tensor:
    return rows_TI.new_empty((rows_TI.shape[0], weight_JI.shape[0]))


@torch.library.custom_op("dewey::int8_linear_gradients", mutates_args=())
def int8_linear_gradients(
    grads_TJ: Tensor, rows_TI: Tensor, weight_JI: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows, bfloat16, and of the weights, float32."""
    ours, grads_TJ = _kernels(), grads_TJ.contiguous()
    return (
        ours.linear_rounded(grads_TJ, weight_JI, turned=True),
        ours.weight_gradients(grads_TJ, rows_TI.contiguous()),
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
    found = kernels(torch.bfloat16, may_build=True)
    assert found is not None, "layers are made to train in int8 only where there are kernels"
    return found
