"""Attention with gradients by our kernels, for training in bfloat16 on a CPU.

Shape suffixes: T packed tokens, P positions, N heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dewey_embed.config import BackboneConfig, LayerType
from dewey_embed.model.native.kernels import HEAD_WIDTH, Kernels, kernels
from dewey_embed.model.packing import Packed


def gradient_kernels(config: BackboneConfig) -> Kernels | None:
    """The kernels, built if need be, where they train a backbone faster than torch; else None.

    Where a processor has a unit for products of tiles, torch uses that; ours do not.
    """
    if config.head_size != HEAD_WIDTH:
        return None
    found = kernels(torch.bfloat16, may_build=True)
    return None if found is None or found.has_tiles else found


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a row's tokens are and how far they see: `Kernels.attention`'s keywords."""

    cos_PD: Tensor
    sin_PD: Tensor
    starts: Tensor
    window: int


class TrainedAttention:
    """The attention of one packed row, for every layer of one kind or the other.

    `angles` are the cosines and sines (P, D/2), float32, of every position for each kind of layer.
    """

    def __init__(
        self,
        kernels: Kernels,
        config: BackboneConfig,
        packed: Packed,
        angles: Mapping[LayerType, tuple[Tensor, Tensor]],
    ) -> None:
        self._kernels = kernels
        self._sights = {
            kind: Sight(
                cos_PD, sin_PD, packed.cu_seqlens,
                -1 if kind == "full_attention" else config.local_attention // 2,
            )
            for kind, (cos_PD, sin_PD) in angles.items()
        }  # fmt: skip

    def __call__(self, qkv_T3ND: Tensor, kind: LayerType) -> Tensor:
        """(T, N, D) bfloat16: what every token takes from those it sees; can be differentiated."""
        apply: Callable[..., Tensor] = _Attention.apply
        return apply(qkv_T3ND, self._sights[kind], self._kernels)


class _Attention(torch.autograd.Function):
    """Keeps what it was given, what came out, and one number for each token and head."""

    @staticmethod
    def forward(ctx: Any, qkv_T3ND: Tensor, sight: Sight, kernels: Kernels) -> Tensor:
        qkv_T3ND = qkv_T3ND.contiguous()
        num_tokens, _, num_heads, width = qkv_T3ND.shape
        out_TND = qkv_T3ND.new_empty((num_tokens, num_heads, width))
        logs_NT = torch.empty((num_heads, num_tokens), dtype=torch.float32)
        kernels.attention(
            qkv_T3ND, out_TND, sight.cos_PD, sight.sin_PD,
            starts=sight.starts, window=sight.window, logs_NT=logs_NT,
        )  # fmt: skip
        ctx.save_for_backward(qkv_T3ND, out_TND, logs_NT)
        ctx.sight, ctx.kernels = sight, kernels
        return out_TND

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv_T3ND, out_TND, logs_NT = ctx.saved_tensors
        sight: Sight = ctx.sight
        gradient_T3ND = ctx.kernels.attention_gradients(
            qkv_T3ND, out_TND, logs_NT, gradients[0].contiguous(),
            angles=(sight.cos_PD, sight.sin_PD), starts=sight.starts, window=sight.window,
        )  # fmt: skip
        return gradient_T3ND, None, None
