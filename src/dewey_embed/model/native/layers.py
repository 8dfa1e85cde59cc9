"""The layers of a backbone by the C++ kernels, and attention with gradients by them.

Shape suffixes as in `backbone.py`: T packed tokens, H hidden width, N heads, D head width,
I intermediate width; P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dewey_embed.config import BackboneConfig, LayerType
from dewey_embed.model.attention import full_attention, rotary_tables, rotate
from dewey_embed.model.backbone import SLICE_TOKENS, Backbone, Layer
from dewey_embed.model.int8 import Int8Linear
from dewey_embed.model.native.kernels import AttentionMetadata, Kernels
from dewey_embed.model.packing import Packed

Metadata = dict[LayerType, AttentionMetadata]


def attention_metadata(config: BackboneConfig, packed: Packed) -> Metadata:
    """The positions of a row's tokens and the distance they see, for each kind of layer."""
    rotary = rotary_tables(config, torch.arange(packed.max_length), torch.float32)
    return {
        kind: AttentionMetadata(
            cos_PD, sin_PD, packed.cu_seqlens,
            -1 if kind == "full_attention" else config.local_attention // 2,
        )
        for kind, (cos_PD, sin_PD) in rotary.items()
    }  # fmt: skip


def run_layers(backbone: Backbone, packed: Packed, states_TH: Tensor, kernels: Kernels) -> None:
    """Run all layers on the stream `states_TH`, float32, in place; without gradients."""
    run = _Run(kernels, backbone.config, packed)
    for layer in cast(Iterable[Layer], backbone.layers):
        run.project(layer, states_TH)
        run.attend(layer.layer_type)
        run.finish(layer, states_TH)
        packed.layer_done()


class _Run:
    """The memory of one pass over a packed row, allocated once for all layers."""

    def __init__(self, kernels: Kernels, config: BackboneConfig, packed: Packed) -> None:
        self.kernels, self.packed = kernels, packed
        self.metadata = attention_metadata(config, packed)
        width, heads = config.hidden_size, config.num_attention_heads
        num_tokens, dtype = len(packed.ids_T), kernels.dtype
        self.qkv_T3ND = torch.empty((num_tokens, 3, heads, config.head_size), dtype=dtype)
        self.heads_TND = torch.empty((num_tokens, heads, config.head_size), dtype=dtype)
        size = min(num_tokens, SLICE_TOKENS)
        self.normed = torch.empty((size, width), dtype=dtype)
        self.added = torch.empty((size, width), dtype=dtype)
        self.wide = torch.empty((size, 2 * config.intermediate_size), dtype=dtype)
        self.narrow = torch.empty((size, config.intermediate_size), dtype=dtype)

    def project(self, layer: Layer, states_TH: Tensor) -> None:
        """Write the queries, keys and values of the normed stream."""
        for states, qkv in _slices(states_TH, self.qkv_T3ND.flatten(1)):
            self.packed.check()
            normed = self.normed[: len(states)]
            self.kernels.add_norm(states, None, layer.attn_norm, normed)
            self._multiply(layer.attn.Wqkv, normed, qkv)

    def attend(self, kind: LayerType) -> None:
        """Write the heads' outputs."""
        metadata = self.metadata[kind]
        if kind == "full_attention" and self.kernels.has_tiles:
            for qkv, positions in _slices(self.qkv_T3ND, self.packed.positions_T):
                cos, sin = metadata.cos_PD[positions], metadata.sin_PD[positions]
                qkv[:, 0], qkv[:, 1], _ = rotate(qkv, cos, sin)
            q_TND, k_TND, v_TND = self.qkv_T3ND.unbind(1)
            self.heads_TND = full_attention(q_TND, k_TND, v_TND, self.packed)
        else:
            self.kernels.attention(
                self.qkv_T3ND, self.heads_TND, metadata, control=self.packed.control
            )

    def finish(self, layer: Layer, states_TH: Tensor) -> None:
        """Add the outputs of attention and the MLP to the stream."""
        for states, heads in _slices(states_TH, self.heads_TND.flatten(1)):
            self.packed.check()
            rows = slice(len(states))
            self._multiply(layer.attn.Wo, heads, self.added[rows])
            self.kernels.add_norm(states, self.added[rows], layer.mlp_norm, self.normed[rows])
            self._multiply(layer.mlp.Wi, self.normed[rows], self.wide[rows])
            self.kernels.geglu(self.wide[rows], self.narrow[rows])
            self._multiply(layer.mlp.Wo, self.narrow[rows], self.added[rows])
            self.kernels.add_norm(states, self.added[rows], None, None)

    def _multiply(self, linear: nn.Linear | Int8Linear, rows: Tensor, out: Tensor) -> None:
        """Write the linear layer of `rows` to `out`."""
        weight, bias = linear.weight, linear.bias
        if isinstance(linear, Int8Linear):
            self.kernels.linear_int8(rows, (weight, linear.scale, linear.shift), bias, out)
        elif not self.kernels.has_tiles:
            self.kernels.linear(rows, weight, bias, out)
        elif bias is None:
            torch.mm(rows, weight.t(), out=out)
        else:
            torch.addmm(bias, rows, weight.t(), out=out)


def _slices(*rows: Tensor) -> Iterable[tuple[Tensor, ...]]:
    return zip(*(each.split(SLICE_TOKENS) for each in rows), strict=True)


class KernelAttention:
    """Attention over one packed row with gradients, in bfloat16: `backbone.OwnAttention`."""

    def __init__(self, kernels: Kernels, config: BackboneConfig, packed: Packed) -> None:
        self._kernels = kernels
        self._metadata = attention_metadata(config, packed)

    def __call__(self, qkv_T3ND: Tensor, kind: LayerType) -> Tensor:
        """(T, N, D) bfloat16: the heads' outputs, differentiable."""
        apply: Callable[..., Tensor] = _Attention.apply
        return apply(qkv_T3ND, self._metadata[kind], self._kernels)


class _Attention(torch.autograd.Function):
    """Keeps its input, its output, and one number for each token and head."""

    @staticmethod
    def forward(
        ctx: Any, qkv_T3ND: Tensor, metadata: AttentionMetadata, kernels: Kernels
    ) -> Tensor:
        qkv_T3ND = qkv_T3ND.contiguous()
        num_tokens, _, num_heads, width = qkv_T3ND.shape
        out_TND = qkv_T3ND.new_empty((num_tokens, num_heads, width))
        log_sum_exp_NT = torch.empty((num_heads, num_tokens), dtype=torch.float32)
        kernels.attention(qkv_T3ND, out_TND, metadata, log_sum_exp_NT)
        ctx.save_for_backward(qkv_T3ND, out_TND, log_sum_exp_NT)
        ctx.attention_metadata, ctx.kernels = metadata, kernels
        return out_TND

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv_T3ND, out_TND, log_sum_exp_NT = ctx.saved_tensors
        gradient_T3ND = ctx.kernels.attention_gradients(
            qkv_T3ND, out_TND, log_sum_exp_NT, gradients[0].contiguous(), ctx.attention_metadata
        )
        return gradient_T3ND, None, None
