"""A backbone's shape as Hugging Face's `config.json` has it, of either generation.

Early 2025 wrote `global_rope_theta`, `local_rope_theta` and `global_attn_every_n_layers`; since
transformers 5 it is `rope_parameters` and `layer_types`. Keys that do not concern Dewey are passed
over; those that ask for what it does not compute are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field

from dewey_embed.config import (
    MAX_LAYERS,
    BackboneConfig,
    Count,
    LayerType,
    Settings,
    layer_pattern,
)
from dewey_embed.errors import CheckpointError
from dewey_embed.printable import short_repr


def from_hugging_face(
    values: Mapping[str, Any], *, source: str, needs_special_ids: bool = True
) -> BackboneConfig:
    """The backbone that a `config.json` describes.

    Without `needs_special_ids` the ids of CLS and SEP may be missing, and are 0 then.

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
    given = {key: value for key, value in values.items() if value is not None}
    # Older configs name the same tokens bos and eos only.
    for key, older in (("cls_token_id", "bos_token_id"), ("sep_token_id", "eos_token_id")):
        if not needs_special_ids:
            given.setdefault(key, 0)
        elif older in given:
            given.setdefault(key, given[older])
    known = {key: given[key] for key in BackboneConfig.model_fields if key in given}
    known |= _rope_thetas(values, source=source)
    known.setdefault("max_position_embeddings", 8192)
    if "layer_types" not in known:
        layers = _Layers.parse(
            {key: given[key] for key in _Layers.model_fields if key in given}, source=source
        )
        known["layer_types"] = layer_pattern(
            layers.num_hidden_layers, layers.global_attn_every_n_layers
        )
    return BackboneConfig.parse(known, source=source)


class _Layers(Settings):
    """What an old config says of its layers: the first of every few attends globally."""

    num_hidden_layers: Annotated[Count, Field(le=MAX_LAYERS)]
    global_attn_every_n_layers: Count = 3


def to_hugging_face(backbone: BackboneConfig) -> dict[str, Any]:
    """A `config.json` that transformers 4 and 5 both read, with the keys of both."""
    return {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        **backbone.model_dump(mode="json"),
        "bos_token_id": backbone.cls_token_id,
        "eos_token_id": backbone.sep_token_id,
        "hidden_activation": "gelu",
        "global_attn_every_n_layers": _global_every(backbone),
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": backbone.theta(kind)}
            for kind in get_args(LayerType)
        },
    }


def _global_every(backbone: BackboneConfig) -> int:
    """The period that transformers 4 reads in place of `layer_types`; 3 where there is none."""
    for every in range(1, backbone.num_hidden_layers + 1):
        if layer_pattern(backbone.num_hidden_layers, every) == backbone.layer_types:
            return every
    return 3


def _rope_thetas(values: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """`global_rope_theta` and `local_rope_theta`, whichever generation of keys holds them.

    Where an old config has no local base, its layers all use ModernBERT's default of 10,000.
    """
    parameters, scaling = values.get("rope_parameters") or {}, values.get("rope_scaling")
    thetas = {}
    for key, kind, default in (
        ("global_rope_theta", "full_attention", 160_000.0),
        ("local_rope_theta", "sliding_attention", 10_000.0),
    ):
        nested = parameters.get(kind) if isinstance(parameters, dict) else parameters
        if not isinstance(nested, dict | None):
            raise CheckpointError(
                f"{source}: rope_parameters is {short_repr(parameters)}; expected an object with "
                "full_attention and sliding_attention; fetch the file again"
            )
        nested = nested or {}
        rope_type = nested.get("rope_type", "default")
        if rope_type != "default" or scaling:
            raise CheckpointError(
                f"{source}: rotary scaling {scaling or rope_type!r} is not supported; "
                "only plain rotary positions with their own theta are"
            )
        theta = nested.get("rope_theta", values.get(key))
        thetas[key] = default if theta is None else theta
    return thetas
