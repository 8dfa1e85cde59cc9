"""ModernBERT of any size over a packed row, in plain PyTorch.

Embedding norm, pre-norm layers (the first attention norm absent), fused qkv, rotary positions
with separate bases for global and local layers, GeGLU, a final norm; no dropout, for the paper
trains without. Weight names are those of Hugging Face's `ModernBertModel`, so that checkpoints go
both ways. Source: arXiv 2412.13663 (ModernBERT) §2.1; arXiv 2503.20376 §2 for the long context.

In bfloat16 the products are bfloat16 and the residual stream is float32: rounding it after every
layer is most of what half precision costs in accuracy, and keeping it costs next to nothing.

Shape suffixes: T packed tokens, H hidden width, N heads, D head width, I intermediate width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import MethodType

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dewey_embed.config import GLOBAL_THETA_128K, MAX_POSITIONS_128K, BackboneConfig, LayerType
from dewey_embed.model.attention import RowAttention, rotate, sliced
from dewey_embed.model.packing import Packed

SLICE_TOKENS = 512
"""Tokens that pass at a time through the steps that are done token by token on a CPU."""

OwnAttention = Callable[[Tensor, LayerType], Tensor]
"""Attention that rotates by itself: queries, keys and values (T, 3, N, D) → (T, N, D)."""


class Norm(nn.LayerNorm):
    """LayerNorm of float32 states, returned in the dtype of the weights (or another)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)

    def forward(self, states_TH: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(T, H) of (T, H)."""
        bias = None if self.bias is None else self.bias.float()
        normed = F.layer_norm(
            states_TH.float(), self.normalized_shape, self.weight.float(), bias, self.eps
        )
        return normed.to(dtype or product_dtype(self.weight))


class Embeddings(nn.Module):
    """Token vectors, normed. There are no position embeddings: positions are rotations."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        table = torch.empty(config.vocab_size, config.hidden_size)
        # Drawing nothing, on the meta device, torch would import its compiler: a second's worth.
        if not table.is_meta:
            nn.init.normal_(table)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.norm = Norm(config)

    def forward(self, ids_T: Tensor) -> Tensor:
        """(T, H) float32 of (T,) ids."""
        normed: Tensor = self.norm(self.tok_embeddings(ids_T), torch.float32)
        return normed


class Attention(nn.Module):
    """Self-attention within each sequence of the row, over all of it or within a window.

    Its two projections stand apart, for they go through the row in slices.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        width = config.hidden_size
        self.Wqkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.Wo = nn.Linear(width, width, bias=config.attention_bias)

    def project(self, states_TH: Tensor) -> Tensor:
        """(T, 3, N, D): queries, keys and values."""
        qkv_T3ND: Tensor = self.Wqkv(states_TH).unflatten(-1, (3, self.num_heads, -1))
        return qkv_T3ND

    def forward(self, heads_TND: Tensor) -> Tensor:
        """(T, H): the heads' outputs (T, N, D), projected together."""
        out: Tensor = self.Wo(heads_TND.flatten(1))
        return out


class MLP(nn.Module):
    """GeGLU: gelu(a) · b of one projection, projected back. Source: arXiv 2002.05202."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, states_TH: Tensor) -> Tensor:
        """(T, H) of (T, H)."""
        gate_TI, value_TI = self.Wi(states_TH).chunk(2, dim=-1)
        out: Tensor = self.Wo(F.gelu(gate_TI) * value_TI)
        return out


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        self.layer_type = config.layer_types[index]
        # The embedding norm already stands before the first attention.
        self.attn_norm = None if index == 0 else Norm(config)
        self.attn = Attention(config)
        self.mlp_norm = Norm(config)
        self.mlp = MLP(config)

    def forward(self, states_TH: Tensor, attention: RowAttention | OwnAttention) -> Tensor:
        """(T, H) float32 of (T, H) float32: the residual stream after this layer."""
        if not isinstance(attention, RowAttention):
            heads_TND = attention(self.projected(states_TH), self.layer_type)
            return self.after_attention(states_TH, heads_TND)
        # Slices on a CPU stay in cache from one operation to the next; and a row of 131,072
        # tokens never holds all its wide states at once.
        size = SLICE_TOKENS if sliced(states_TH) else len(states_TH)
        inputs = (states_TH, *attention.rotary[self.layer_type])
        projected = [
            self.before_attention(*rows)
            for rows in zip(*(x.split(size) for x in inputs), strict=True)
        ]
        q_TND, k_TND, v_TND = (torch.cat(slices) for slices in zip(*projected, strict=True))
        del projected
        heads_TND = attention(q_TND, k_TND, v_TND, self.layer_type)
        slices = zip(states_TH.split(size), heads_TND.split(size), strict=True)
        return torch.cat([self.after_attention(states, heads) for states, heads in slices])

    def before_attention(self, states_TH: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (T, N, D) of the stream, the first two rotated."""
        # Of the class: torch 2.11 loses the layer where one compiled method calls another.
        return rotate(Layer.projected(self, states_TH), cos, sin)

    def projected(self, states_TH: Tensor) -> Tensor:
        """(T, 3, N, D): queries, keys and values of the stream, not rotated yet."""
        if self.attn_norm is None:
            normed_TH = states_TH.to(product_dtype(self.mlp_norm.weight))
        else:
            normed_TH = self.attn_norm(states_TH)
        return self.attn.project(normed_TH)

    def after_attention(self, states_TH: Tensor, heads_TND: Tensor) -> Tensor:
        """(T, H) float32: the stream with the outputs of attention and the MLP added."""
        states_TH = states_TH + self.attn(heads_TND)
        after: Tensor = states_TH + self.mlp(self.mlp_norm(states_TH))
        return after


class Backbone(nn.Module):
    """A ModernBERT: `Packed` in, hidden states (T, H) float32 out.

    Called by itself it runs on any device; `engine.hidden_states` runs it by the fastest way.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.final_norm = Norm(config)
        self.depth = config.num_hidden_layers  # layers that run: fewer early in training
        self.recompute = False  # gradient checkpointing: layers run again for their gradients
        self.own_training = False  # whether engines may train it by code of their own
        self.num_tokens = 0  # encoded so far: code that is compiled first must be worth it

    @cached_property
    def layer_weights(self) -> int:
        """The number of weights that every token is multiplied by, about."""
        return sum(each.numel() for each in (*self.layers.parameters(), *self.layers.buffers()))

    def compile_layers(self) -> None:
        """Compile the token-by-token steps of the layers when they first run.

        One program serves all layers and rows of any length; attention stays as it is.
        """
        for name in ("projected", "before_attention", "after_attention"):
            compiled = torch.compile(getattr(Layer, name), dynamic=True)
            for layer in self.layers:
                setattr(layer, name, MethodType(compiled, layer))

    def forward(
        self, packed: Packed, attention: RowAttention | OwnAttention | None = None
    ) -> Tensor:
        """(T, H) float32: the normed states after the last layer.

        Raises:
            ValueError: a sequence is longer than the model's positions.

        """
        states_TH = self.embed(packed)
        attention = attention or self.row_attention(packed)
        for layer in self.layers[: self.depth]:
            packed.check()
            if self.recompute and torch.is_grad_enabled():
                states_TH = checkpoint(layer, states_TH, attention, use_reentrant=False)
            else:
                states_TH = layer(states_TH, attention)
            packed.layer_done()
        return self.normed(states_TH)

    def row_attention(self, packed: Packed, *, flash: bool = False) -> RowAttention:
        """Attention over a packed row in PyTorch, by FlashAttention if `flash`."""
        weight = self.final_norm.weight
        return RowAttention(packed, self.config, weight.dtype, product_dtype(weight), flash=flash)

    def embed(self, packed: Packed) -> Tensor:
        """(T, H) float32: the stream before the first layer.

        Raises:
            ValueError: a sequence is longer than the model's positions.

        """
        limit = self.config.max_position_embeddings
        if packed.max_length > limit:
            raise ValueError(
                f"a sequence has {packed.max_length} tokens, the model {limit} positions; "
                "encode it in windows, or extend the model with extend_context()"
            )
        states_TH: Tensor = self.embeddings(packed.ids_T)
        return states_TH

    def normed(self, states_TH: Tensor) -> Tensor:
        """(T, H) float32: the hidden states of the stream after the last layer."""
        final: Tensor = self.final_norm(states_TH, torch.float32)
        return final


def product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which a weight is multiplied: its own, or that of mixed precision."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def extend_context(
    config: BackboneConfig,
    max_positions: int = MAX_POSITIONS_128K,
    global_rope_theta: float = GLOBAL_THETA_128K,
) -> BackboneConfig:
    """The same backbone with room for `max_positions` tokens; its weights need no change.

    Only the base of the global layers' rotary positions moves; local layers see 128 tokens at any
    length. An extended checkpoint needs training before it is good at long range.
    Source: arXiv 2503.20376 §2: θ = 73,780,400 at 131,072 positions.
    """
    return config.model_copy(
        update={"max_position_embeddings": max_positions, "global_rope_theta": global_rope_theta}
    )
