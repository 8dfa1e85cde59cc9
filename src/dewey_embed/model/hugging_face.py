"""A backbone's shape as Hugging Face's `config.json` has it, of either generation.

Early 2025 wrote `global_rope_theta`, `local_rope_theta` and `global_attn_every_n_layers`; since
transformers 5 it is `rope_parameters` and `layer_types`. Keys that do not concern Dewey are passed
over; those that ask for what it does not compute are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from dewey_embed.config import (
    MAX_LAYERS,
    BackboneConfig,
    Count,
    LayerType,
    describe,
    layer_pattern,
)
from dewey_embed.errors import CheckpointError, ConfigError
from dewey_embed.printable import short_repr


def from_hugging_face(values: Mapping[str, Any], *, source: str) -> BackboneConfig:
    """The backbone that a `config.json` describes.

    Raises:
        CheckpointError: another `model_type`, or an activation or rotary scaling that Dewey does
            not compute.
        ConfigError: a missing or impossible value.

    """
    if values.get("model_type") != "modernbert":
        raise CheckpointError(
            f"{source}: model_type is {values.get('model_type')!r}; "
            "only ModernBERT models ('modernbert') can be loaded"
        )
    if values.get("quantization_config"):
        raise CheckpointError(
            f"{source}: quantization_config: a quantised model; use the one it was made from"
        )
    activation = values.get("hidden_activation", "gelu")
    if activation != "gelu":
        raise CheckpointError(
            f"{source}: hidden_activation is {activation!r}; only 'gelu' is supported"
        )
    known = {key: values[key] for key in BackboneConfig.model_fields if values.get(key) is not None}
    known |= _rope_thetas(values, source=source)
    known.setdefault("max_position_embeddings", 8192)
    if "layer_types" not in known:
        known["layer_types"] = _pattern_of(values, source=source)
    # Older configs name the same tokens bos and eos only.
    for key, older in (("cls_token_id", "bos_token_id"), ("sep_token_id", "eos_token_id")):
        if key not in known and values.get(older) is not None:
            known[key] = values[older]
    return BackboneConfig.parse(known, source=source)


def to_hugging_face(backbone: BackboneConfig) -> dict[str, Any]:
    """A `config.json` that transformers 4 and 5 both read, with the keys of both."""
    values = backbone.model_dump(mode="json")
    theta = {
        "full_attention": backbone.global_rope_theta,
        "sliding_attention": backbone.local_rope_theta,
    }
    return {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        **values,
        "bos_token_id": backbone.cls_token_id,
        "eos_token_id": backbone.sep_token_id,
        "hidden_activation": "gelu",
        "global_attn_every_n_layers": _global_every(backbone),
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": base} for kind, base in theta.items()
        },
    }


def _global_every(backbone: BackboneConfig) -> int:
    """The period that transformers 4 reads in place of `layer_types`; 3 where there is none."""
    for every in range(1, backbone.num_hidden_layers + 1):
        if layer_pattern(backbone.num_hidden_layers, every) == backbone.layer_types:
            return every
    return 3


class _Layers(BaseModel):
    """What an old config says of its layers."""

    num_hidden_layers: Annotated[Count, Field(le=MAX_LAYERS)]
    global_attn_every_n_layers: Count | None = None


def _pattern_of(values: Mapping[str, Any], *, source: str) -> tuple[LayerType, ...]:
    """The kinds of layers by an old config's period, which is 3 where it names none.

    Raises:
        ConfigError: the number of layers or their period is missing or impossible.

    """
    try:
        found = _Layers.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error, _Layers)}") from None
    return layer_pattern(found.num_hidden_layers, found.global_attn_every_n_layers or 3)


def _rope_thetas(values: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """`global_rope_theta` and `local_rope_theta`, whichever generation of keys holds them.

    Where an old config has no local base, its layers all use ModernBERT's default of 10,000.

    Raises:
        CheckpointError: a rotary scaling that Dewey does not compute, or values of another shape.

    """
    parameters = values.get("rope_parameters") or {}
    thetas = {}
    if not isinstance(parameters, dict) or not all(
        isinstance(parameters.get(kind, {}), dict | None)
        for kind in ("full_attention", "sliding_attention")
    ):
        raise CheckpointError(
            f"{source}: rope_parameters is {short_repr(parameters)}; expected an object with "
            "full_attention and sliding_attention; fetch the file again"
        )
    for key, kind, default in (
        ("global_rope_theta", "full_attention", 160_000.0),
        ("local_rope_theta", "sliding_attention", 10_000.0),
    ):
        nested = parameters.get(kind) or {}
        rope_type = nested.get("rope_type", "default")
        scaling = values.get("rope_scaling")
        if rope_type != "default" or scaling:
            raise CheckpointError(
                f"{source}: rotary scaling {scaling or rope_type!r} is not supported; "
                "only plain rotary positions with their own theta are"
            )
        theta = nested.get("rope_theta", values.get(key))
        thetas[key] = default if theta is None else theta
    return thetas
