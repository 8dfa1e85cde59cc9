"""Settings, frozen and checked: a model's shape and head, and how documents are encoded.

Unknown keys are errors. `model/hugging_face.py` reads the shape from Hugging Face's `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, SupportsIndex

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dewey_embed.errors import ConfigError
from dewey_embed.printable import short_repr
from dewey_embed.single_vectors import SINGLE_VECTORS, SingleVector
from dewey_embed.types import Overflow, PooledOver, Precision, Splitter

LayerType = Literal["full_attention", "sliding_attention"]

GLOBAL_THETA_128K = 73_780_400.0
"""The base of the global layers' rotary positions at 131,072 positions.

Source: arXiv 2503.20376 §2 (the bound is Men et al. 2024, "Base of RoPE bounds context length").
"""

MAX_POSITIONS_128K = 131_072

PAPER_PROMPTS: Mapping[str, str] = {
    "query": "<|START_INSTRUCTION|>Answer the question<|END_INSTRUCTION|>",
    "document": "<|START_INSTRUCTION|>Candidate document<|END_INSTRUCTION|>",
}
"""The paper's instruction form. Source: arXiv 2503.20376, model card."""


class Settings(BaseModel):
    """Base of all settings: frozen, without unknown keys, with errors of one kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, source: str) -> Self:
        """Settings from plain values; `source` names where they came from.

        Raises:
            ConfigError: a key is unknown or has a bad value; names each, and what is accepted.

        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{source}: {describe(error, cls)}") from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """All of pydantic's findings on one line, with the accepted keys for an unknown one."""
    parts = []
    for item in error.errors():
        where = ".".join(str(step) for step in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {where!r}; accepted: {', '.join(model.model_fields)}")
        else:
            parts.append(f"{where}: {fault(item)}" if where else fault(item))
    return "; ".join(parts)


def fault(item: Any) -> str:
    """One of pydantic's findings, with the value."""
    if item["type"] == "missing":
        return "missing; it has no default"
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
        if not item["loc"]:
            return message  # of a check of several values, which names them itself
    else:
        message = item["msg"].replace("Input should be", "must be").split(", unable to")[0]
        message = message[:1].lower() + message[1:]
    return f"{message} (got {short_repr(item['input'])})"


Count = Annotated[int, Field(strict=True, gt=0, le=2**31)]
"""A number of things; the bound keeps a damaged config from filling the memory."""

TokenId = Annotated[int, Field(strict=True, ge=0, le=2**31)]
Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


MAX_LAYERS = 1024


class BackboneConfig(Settings):
    """The shape of a ModernBERT, under Hugging Face's names.

    `layer_types` holds one entry a layer; `local_attention` is the full width of a sliding
    layer's window, half of it on each side.
    """

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Annotated[Count, Field(le=MAX_LAYERS)]
    num_attention_heads: Count
    intermediate_size: Count
    layer_types: tuple[LayerType, ...]
    max_position_embeddings: Count
    global_rope_theta: Positive
    local_rope_theta: Positive
    local_attention: Annotated[Count, Field(multiple_of=2)] = 128
    norm_eps: Positive = 1e-5
    norm_bias: Flag = False
    attention_bias: Flag = False
    mlp_bias: Flag = False
    pad_token_id: int | None = None
    cls_token_id: TokenId
    sep_token_id: TokenId

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be an even multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types has {len(self.layer_types)} entries "
                f"for num_hidden_layers {self.num_hidden_layers}"
            )
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def theta(self, layer_type: LayerType) -> float:
        """Base of the rotary positions of one kind of layer."""
        return self.global_rope_theta if layer_type == "full_attention" else self.local_rope_theta


def layer_pattern(num_layers: int, every: int) -> tuple[LayerType, ...]:
    """Kinds of layers where the first, and every `every`-th after it, attends globally."""
    return tuple(
        "sliding_attention" if layer % every else "full_attention" for layer in range(num_layers)
    )


MIN_TOKENS = 4
"""The fewest tokens of one pass: special tokens, and two of a text, so that windows can overlap."""

Activation = Literal["identity", "tanh", "relu", "gelu", "silu", "sigmoid"]


class Dense(Settings):
    """A linear layer with an activation, over pooled states."""

    kind: Literal["dense"] = "dense"
    in_features: Count
    out_features: Count
    bias: Flag = True
    activation: Activation = "identity"


class Normalize(Settings):
    """A step that scales vectors to unit length."""

    kind: Literal["normalize"] = "normalize"


Step = Annotated[Dense | Normalize, Field(discriminator="kind")]


class DeweyConfig(Settings):
    """How a backbone becomes an embedder: its head, its single vector, its prompts.

    `vector_size` is `None` without a head: vectors then have the width of the last of `steps`, or
    of the backbone. `steps` run on pooled states before the head.
    `max_tokens` counts everything the backbone sees: special tokens, the prompt, the text.
    `before_ids` and `after_ids` are the special tokens around a text; `None` stands for CLS, SEP.
    """

    backbone: BackboneConfig
    vector_size: Count | None = None
    head_bias: Flag = False
    single_vector: SingleVector = "cls"
    prompts: dict[str, str] = Field(default_factory=lambda: {"query": "", "document": ""})
    max_tokens: Annotated[Count, Field(ge=MIN_TOKENS)]
    steps: tuple[Step, ...] = ()
    pooled_over: PooledOver = "text"
    before_ids: tuple[TokenId, ...] | None = None
    after_ids: tuple[TokenId, ...] | None = None
    default_prompt_name: str | None = None
    truncate_dim: Count | None = None

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        width = self.backbone.hidden_size
        for step in self.steps:
            if isinstance(step, Dense):
                if step.in_features != width:
                    raise ValueError(f"a dense step takes {step.in_features} of {width} dimensions")
                width = step.out_features
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ValueError(
                f"default_prompt_name {self.default_prompt_name!r} is none of the prompts "
                f"{sorted(self.prompts)}"
            )
        return self

    def override(self, *, single_vector: SingleVector | None, max_tokens: int | None) -> Self:
        """The settings with those of the caller, where they are given.

        Raises:
            ConfigError: an unknown `single_vector`, or more tokens than the model has positions.

        """
        limit = self.backbone.max_position_embeddings
        if max_tokens is not None and max_tokens > limit:
            raise ConfigError(f"max_tokens is {max_tokens}, the model has {limit} positions")
        given = {"single_vector": single_vector, "max_tokens": max_tokens}
        changes = {key: value for key, value in given.items() if value is not None}
        return self.parse({**dict(self), **changes}, source="Dewey.load")

    def with_special_ids(self, before: Sequence[int], after: Sequence[int]) -> Self:
        """The settings with these special tokens around a text, those of a tokenizer's template."""
        if len(before) == len(after) == 1:
            ids = {"cls_token_id": before[0], "sep_token_id": after[0]}
            changes: dict[str, Any] = {"backbone": self.backbone.model_copy(update=ids)}
        else:
            changes = {"before_ids": tuple(before), "after_ids": tuple(after)}
        return self.model_copy(update=changes)

    @property
    def window(self) -> int:
        """The most tokens that are read at once unless one says otherwise."""
        return min(self.max_tokens, SINGLE_VECTORS[self.single_vector].window or self.max_tokens)

    @property
    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of the special tokens before a text and of those after it."""
        before, after = self.before_ids, self.after_ids
        return (
            (self.backbone.cls_token_id,) if before is None else before,
            (self.backbone.sep_token_id,) if after is None else after,
        )

    @property
    def pooled_dim(self) -> int:
        """Width of pooled states after all steps, which the head receives."""
        dense = [step.out_features for step in self.steps if isinstance(step, Dense)]
        return dense[-1] if dense else self.backbone.hidden_size

    @property
    def embedding_dim(self) -> int:
        """Width of the model's vectors."""
        return self.vector_size or self.pooled_dim

    def kept_dimensions(self, truncate_dim: int | None) -> int | None:
        """Number of dimensions to keep: the caller's or else the model's own; None for all.

        Raises:
            ConfigError: `truncate_dim` is not an integer, or not within the model's width.

        """
        if truncate_dim is None:
            own = self.truncate_dim
            return own if own is not None and own < self.embedding_dim else None
        if type(truncate_dim) is not int or not 0 < truncate_dim <= self.embedding_dim:
            raise ConfigError(
                f"truncate_dim is {truncate_dim!r}; give a number from 1 to {self.embedding_dim}, "
                "the dimensions of this model's vectors"
            )
        return truncate_dim

    def unused(self) -> set[str]:
        """Names of the settings of later versions that this model leaves at their defaults.

        They are left out where settings are written or hashed, so that older models keep their
        files and fingerprints.
        """
        return {
            name for name in LATER if getattr(self, name) == type(self).model_fields[name].default
        }


LATER = ("steps", "pooled_over", "before_ids", "after_ids", "default_prompt_name", "truncate_dim")


CHUNK_TOKENS = 128
"""Default number of tokens of a chunk. Small chunks find more: docs/log.md."""


MAX_CHUNK_TOKENS = 2**24
"""More than any model reads: a chunk of this size is the complete document."""


class EncodeOptions(Settings):
    """How documents are cut and encoded; part of an index's identity.

    `chunk_tokens` may name several granularities; `chunk_overlap` is in tokens, one for all or
    one each. Whether a splitter of this name exists is checked where texts are cut.
    """

    chunk_tokens: tuple[int, ...] = (CHUNK_TOKENS,)
    chunk_overlap: tuple[int, ...] = (CHUNK_TOKENS // 4,)
    splitter: Splitter = "tokens"
    overflow: Overflow = "windows"
    precision: Precision = "float32"

    @classmethod
    def of(
        cls,
        chunk_tokens: int | Sequence[int],
        chunk_overlap: int | Sequence[int] | None,
        **others: Any,
    ) -> Self:
        """The options from one size or several; a missing overlap is a quarter of the size.

        Raises:
            ConfigError: naming the option, the value and what is accepted.

        """
        sizes = _integers("chunk_tokens", chunk_tokens)
        if chunk_overlap is None:
            overlaps = tuple(size // 4 for size in sizes)
        elif isinstance(chunk_overlap, int):
            overlaps = (chunk_overlap,) * len(sizes)
        else:
            overlaps = _integers("chunk_overlap", chunk_overlap)
        values = {"chunk_tokens": sizes, "chunk_overlap": overlaps, **others}
        return cls.parse(values, source="encode options")

    @field_validator("splitter", mode="before")
    @classmethod
    def _name_or_function(cls, splitter: Any) -> Any:
        if not isinstance(splitter, str) and not callable(splitter):
            raise ValueError(
                "must be a splitter's name or a function; pass ranges of characters as spans="
            )
        return splitter

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if not self.chunk_tokens:
            raise ValueError("chunk_tokens names no size")
        if len(self.chunk_overlap) != len(self.chunk_tokens):
            raise ValueError(
                f"chunk_overlap has {len(self.chunk_overlap)} values "
                f"for {len(self.chunk_tokens)} chunk_tokens"
            )
        for size, overlap in zip(self.chunk_tokens, self.chunk_overlap, strict=True):
            if not 1 <= size <= MAX_CHUNK_TOKENS or not 0 <= overlap < size:
                raise ValueError(
                    f"chunk_tokens {size} with chunk_overlap {overlap}: "
                    f"need 1 <= chunk_tokens <= {MAX_CHUNK_TOKENS:,} and "
                    "0 <= chunk_overlap < chunk_tokens"
                )
        return self


def _integers(name: str, given: int | Sequence[int]) -> tuple[int, ...]:
    """One or several integers, as a tuple."""
    many = given if isinstance(given, list | tuple) else (given,)
    if any(isinstance(each, bool) or not isinstance(each, SupportsIndex) for each in many):
        raise ConfigError(f"{name} is {given!r}; need a whole number, or several of them")
    return tuple(int(each) for each in many)
