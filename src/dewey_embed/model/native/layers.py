"""The layers of a backbone by our kernels.

Shape suffixes as in `backbone.py`: T packed tokens, H hidden width, N heads, D head width,
I intermediate width; P positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dewey_embed.config import BackboneConfig, LayerType
from dewey_embed.model.attention import full_attention, rotate
from dewey_embed.model.int8 import Int8Linear, is_int8
from dewey_embed.model.native.kernels import (
    HEAD_WIDTH,
    Kernels,
    Linear,
    can_build,
    kernels,
    widths_fit,
)
from dewey_embed.model.packing import Packed

if TYPE_CHECKING:
    from dewey_embed.model.backbone import Backbone, Layer

Angles = dict[LayerType, tuple[Tensor, Tensor]]
"""Cosines and sines (P, D/2) float32 of every position's angles, for each kind of layer."""

SLICE_TOKENS = 512
"""Tokens that pass at a time through what is done token by token: they stay in cache."""

WORTH_BUILDING = 2e11
"""Tokens · weights asked of a model from which kernels are built for it: some 20,000 tokens of the
mini, which take plain PyTorch about as long as the compiler takes, once."""


def prepare(backbone: Backbone, num_tokens: int) -> None:
    """Nothing; once all that was asked of a model is worth it, kernels are built if they can be."""
    backbone.tokens_asked += num_tokens
    work = backbone.tokens_asked * backbone.layer_weights
    kernels_of(backbone, may_build=work >= WORTH_BUILDING)


def kernels_of(backbone: Backbone, *, may_build: bool = False) -> Kernels | None:
    """The kernels if they can run this backbone now, without gradients; else None."""
    dtype = backbone.final_norm.weight.dtype
    return kernels(dtype, may_build=may_build) if fits(backbone) else None


def fits(backbone: Backbone) -> bool:
    """Whether kernels are made for this backbone where it is: no gradients, one dtype for all."""
    weight = backbone.final_norm.weight
    return (
        weight.device.type == "cpu"
        and not (weight.dtype == torch.float32 and is_int8(backbone))
        and widths_fit(backbone.config)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def engine_name(backbone: Backbone) -> str:
    """What encodes with a backbone on this machine, in words for people."""
    with torch.inference_mode():
        dtype = backbone.final_norm.weight.dtype
        if kernels_of(backbone) is not None:
            return f"C++ kernels ({dtype})".replace("torch.", "")
        if fits(backbone) and can_build(dtype):
            return "PyTorch, and C++ kernels once there is work worth compiling them"
    return "PyTorch"


class NativeRun:
    """One pass of a packed row through layers; the row's memory is asked for once."""

    def __init__(
        self, kernels: Kernels, config: BackboneConfig, packed: Packed, angles: Angles
    ) -> None:
        self.kernels, self.packed, self.angles = kernels, packed, angles
        self.window = config.local_attention // 2
        width, heads = config.hidden_size, config.num_attention_heads
        num_tokens, dtype = len(packed.ids_T), kernels.dtype
        self.qkv_T3ND = torch.empty((num_tokens, 3, heads, HEAD_WIDTH), dtype=dtype)
        self.mixed_TND = torch.empty((num_tokens, heads, HEAD_WIDTH), dtype=dtype)
        size = min(num_tokens, SLICE_TOKENS)
        self.normed = torch.empty((size, width), dtype=dtype)
        self.added = torch.empty((size, width), dtype=dtype)
        self.wide = torch.empty((size, 2 * config.intermediate_size), dtype=dtype)
        self.narrow = torch.empty((size, config.intermediate_size), dtype=dtype)

    def layers(self, layers: Iterable[Layer], states_TH: Tensor) -> None:
        """Nothing; `states_TH`, float32, is then the stream after all of the layers."""
        for layer in layers:
            self._project(layer, states_TH)
            self._attend(layer.layer_type)
            self._finish(layer, states_TH)

    def _project(self, layer: Layer, states_TH: Tensor) -> None:
        """Queries, keys and values of the normed stream."""
        qkv_TH = self.qkv_T3ND.flatten(1)
        for states, qkv in zip(*_slices(states_TH, qkv_TH), strict=True):
            normed = self.normed[: len(states)]
            self.kernels.add_norm(states, None, layer.attn_norm, normed)
            self._multiply(layer.attn.Wqkv, normed, qkv)

    def _attend(self, kind: LayerType) -> None:
        """What every token takes from those it sees."""
        full, (cos_PD, sin_PD) = kind == "full_attention", self.angles[kind]
        if full and self.kernels.has_tiles:
            for qkv, places in zip(*_slices(self.qkv_T3ND, self.packed.positions_T), strict=True):
                qkv[:, 0], qkv[:, 1], _ = rotate(qkv, cos_PD[places], sin_PD[places])
            q_TND, k_TND, v_TND = self.qkv_T3ND.unbind(1)
            self.mixed_TND = full_attention(q_TND, k_TND, v_TND, self.packed.lengths)
            return
        self.kernels.attention(
            self.qkv_T3ND, self.mixed_TND, cos_PD, sin_PD,
            starts=self.packed.cu_seqlens, window=-1 if full else self.window,
        )  # fmt: skip

    def _finish(self, layer: Layer, states_TH: Tensor) -> None:
        """The stream with what attention and the MLP add to it."""
        for states, mixed in zip(*_slices(states_TH, self.mixed_TND.flatten(1)), strict=True):
            some = slice(len(states))
            self._multiply(layer.attn.Wo, mixed, self.added[some])
            self.kernels.add_norm(states, self.added[some], layer.mlp_norm, self.normed[some])
            self._multiply(layer.mlp.Wi, self.normed[some], self.wide[some])
            self.kernels.geglu(self.wide[some], self.narrow[some])
            self._multiply(layer.mlp.Wo, self.narrow[some], self.added[some])
            self.kernels.add_norm(states, self.added[some], None, None)

    def _multiply(self, linear: Linear, rows: Tensor, out: Tensor) -> None:
        """Nothing; `out` is then the linear layer of `rows`."""
        if not self.kernels.has_tiles or isinstance(linear, Int8Linear):
            self.kernels.linear(rows, linear, out)
        elif linear.bias is None:
            torch.mm(rows, linear.weight.t(), out=out)
        else:
            torch.addmm(linear.bias, rows, linear.weight.t(), out=out)


def _slices(*rows: Tensor) -> list[tuple[Tensor, ...]]:
    return [each.split(SLICE_TOKENS) for each in rows]
