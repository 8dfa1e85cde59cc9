"""What a student of a recipe's shape costs: parameters, FLOPs of a token, memory in training.

Closed forms, so that no model is made. L layers, H hidden width, I intermediate width, N heads,
V vocabulary, D width of the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dewey_embed.config import BackboneConfig
from dewey_embed.model.folder import SETTINGS_FILE, locate_model, read_json
from dewey_embed.model.hugging_face import from_hugging_face
from dewey_embed.train.recipe import Recipe

BACKBONES: Mapping[str, tuple[int, int, int, int]] = {
    "answerdotai/ModernBERT-base": (22, 768, 12, 1152),
    "answerdotai/ModernBERT-large": (28, 1024, 16, 2624),
}
"""Layers, hidden size, heads, intermediate size. Source: the checkpoints' config.json."""

BACKBONE_VOCABULARY = 50368

STATE_BYTES = 16
"""A parameter in training: weight, gradient and the optimiser's two moments, all float32."""

UNLIKELY = 4.0
"""Standard deviations above the mean that memory is planned for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A backbone and its head; `vector_size` is None where there is no head."""

    backbone: BackboneConfig
    vector_size: int | None

    def of_first(self, layers: int) -> Shape:
        """The same with so many layers, the first ones."""
        types = self.backbone.layer_types[:layers]
        backbone = self.backbone.model_copy(
            update={"num_hidden_layers": layers, "layer_types": types}
        )
        return replace(self, backbone=backbone)

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.vector_size or self.backbone.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """V·H, the table's."""
        return self.backbone.vocab_size * self.backbone.hidden_size

    @property
    def other_parameters(self) -> int:
        """L·(4H² + 3HI) in products, (2L + 1)·H in norms, H·D in the head, and biases."""
        shape = self.backbone
        hidden, layers = shape.hidden_size, shape.num_hidden_layers
        norms = (2 * layers + 1) * hidden * (1 + shape.norm_bias)
        biases = 4 * hidden * shape.attention_bias
        biases += (2 * shape.intermediate_size + hidden) * shape.mlp_bias
        head = hidden * (self.vector_size or 0)
        return layers * (self._layer_products + biases) + norms + head

    @property
    def _layer_products(self) -> int:
        """4H² + 3HI: H·3H and H·H of attention, H·2I and I·H of the MLP."""
        hidden = self.backbone.hidden_size
        return 4 * hidden**2 + 3 * hidden * self.backbone.intermediate_size

    def flops_per_token(self, length: int) -> int:
        """FLOPs forward of one token of a sequence: 2·L·(4H² + 3HI) + Σ over layers of 4·H·seen.

        `seen` is the sequence's length in a global layer and at most `local_attention` + 1 in a
        local one, for queries·keys and weights·values, 2·H each. The head is left out: it is
        applied to one row a chunk. Source: arXiv 2001.08361 §2.1, attention both ways here.
        """
        shape = self.backbone
        window = min(length, shape.local_attention + 1)
        seen = sum(length if kind == "full_attention" else window for kind in shape.layer_types)
        return 2 * shape.num_hidden_layers * self._layer_products + 4 * shape.hidden_size * seen

    def mean_flops_per_token(self, crops: Sequence[tuple[int, float]]) -> float:
        """The same in the mean over all tokens of crops, which are (length, how many)."""
        flops = sum(count * length * self.flops_per_token(length) for length, count in crops)
        return flops / sum(count * length for length, count in crops)

    def activation_bytes(self, length: int, *, checkpointing: bool, on_cpu: bool = False) -> int:
        """Bytes that one token of a sequence keeps for the backward pass, in bfloat16.

        A layer keeps 20·H + 8·I: two float32 states (8·H), and in bfloat16 two normed states,
        queries, keys, values and their mix (12·H), both halves of the MLP's input, the gate after
        GELU, and their product (8·I). With checkpointing it keeps its input, 4·H. Both ways one
        layer is worked on at a time, which takes its 20·H + 8·I once more, and again for their
        gradients where it is checkpointed; 8·H are at the ends.

        FlashAttention keeps no scores, and neither do our kernels. Attention on a CPU without them
        does: in a local layer 2·N for each of 3/2 windows of keys, and copies of these, 8·H; in a
        global layer 2·N·length, up to `PLAIN_UP_TO_TOKENS`. Both are as counted in autograd's
        saved tensors; `on_cpu` adds them, for who plans may train without kernels.
        """
        shape = self.backbone
        hidden, heads = shape.hidden_size, shape.num_attention_heads
        plain = 20 * hidden + 8 * shape.intermediate_size
        kinds = {"full_attention": plain, "sliding_attention": plain}
        if on_cpu:
            from dewey_embed.model.attention import PLAIN_UP_TO_TOKENS

            kinds["sliding_attention"] += 3 * heads * shape.local_attention + 8 * hidden
            kinds["full_attention"] += 2 * heads * length * (length <= PLAIN_UP_TO_TOKENS)
        layer = max(kinds[kind] for kind in shape.layer_types)
        ends = 8 * hidden
        if checkpointing:
            return 4 * hidden * shape.num_hidden_layers + 2 * layer + ends
        return sum(kinds[kind] for kind in shape.layer_types) + layer + ends

    def peak_memory(
        self,
        samples: int,
        crops: Sequence[tuple[int, float]],
        *,
        checkpointing: bool,
        on_cpu: bool,
    ) -> int:
        """Bytes of training on one device: its samples' activations, and what it holds anyway.

        That is 16 a parameter and, in mixed precision, a bfloat16 copy of each layer's products.
        Samples are drawn from crops, (length, how many), and their activations taken to be at
        most four standard deviations above the mean: more comes once in some 30,000 batches.
        """
        lengths, counts = (np.array(column, float) for column in zip(*crops, strict=True))
        kept = lengths * [
            self.activation_bytes(int(length), checkpointing=checkpointing, on_cpu=on_cpu)
            for length in lengths
        ]
        mean = float(np.average(kept, weights=counts))
        deviation = math.sqrt(np.average((kept - mean) ** 2, weights=counts))
        drawn = samples * mean + UNLIKELY * math.sqrt(samples) * deviation
        largest = float(kept.max())
        activations = round(min(max(drawn, largest), samples * largest))
        parameters = self.embedding_parameters + self.other_parameters
        copies = 2 * self.backbone.num_hidden_layers * self._layer_products
        return STATE_BYTES * parameters + copies + activations


def student_shape(recipe: Recipe) -> Shape:
    """The shape that `[model]` gives, or the checkpoint of `[base]`.

    Raises:
        CheckpointError: the base checkpoint cannot be found, or is no ModernBERT.

    """
    if recipe.model is not None:
        config = recipe.model.to_config(cls_token_id=0, sep_token_id=0, pad_token_id=0)
        return Shape(config.backbone, config.vector_size)
    assert recipe.base is not None
    values = _checkpoint_values(recipe.base.checkpoint)
    backbone = from_hugging_face(values, source=recipe.base.checkpoint)
    return Shape(backbone, recipe.base.vector_size or values.get("vector_size"))


def _checkpoint_values(checkpoint: str) -> dict[str, Any]:
    """The checkpoint's `config.json`, with `dewey.json` where it is one of ours."""
    if checkpoint not in BACKBONES or Path(checkpoint).is_dir():
        _, folder = locate_model(checkpoint)
        values: dict[str, Any] = read_json(folder / "config.json")
        values |= read_json(folder / SETTINGS_FILE, missing_ok=True)
        return values
    layers, hidden, heads, intermediate = BACKBONES[checkpoint]
    return {
        "model_type": "modernbert",
        "vocab_size": BACKBONE_VOCABULARY,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "cls_token_id": 50281,
        "sep_token_id": 50282,
    }
