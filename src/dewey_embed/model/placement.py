"""Where a model computes, and in which numbers: device, dtype, int8 weights, compiled layers."""

from __future__ import annotations

from typing import Literal

import torch

from dewey_embed.errors import ConfigError
from dewey_embed.model.cores import limit_threads
from dewey_embed.model.dewey import DeweyModel, default_dtype
from dewey_embed.model.int8 import to_int8

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.bfloat16,  # all but the weights of layers
}


def placed(
    model: DeweyModel, *, device: str | None, dtype: Dtype, compile_layers: bool
) -> DeweyModel:
    """The model, ready to encode: on `device`, CUDA where there is one unless given, in `dtype`.

    On a CPU this process then uses no more threads than it has cores.

    Raises:
        ConfigError: an unknown dtype.

    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; accepted: auto, {', '.join(DTYPES)}")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cpu":
        limit_threads()
    model.to(device=place, dtype=default_dtype(place) if dtype == "auto" else DTYPES[dtype])
    if dtype == "int8":
        to_int8(model.backbone)
    if compile_layers:
        model.backbone.compile_layers()
    return model
