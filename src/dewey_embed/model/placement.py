"""Where a model computes, and in which numbers: device, dtype, int8 weights, compiled layers."""

from __future__ import annotations

from typing import Literal

import torch

from dewey_embed.errors import ConfigError
from dewey_embed.model.cores import limit_threads
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.forks import about_to_compute
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
        ConfigError: an unknown dtype, or a device that is unknown or not there.

    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; accepted: auto, {', '.join(DTYPES)}")
    place = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cpu":
        limit_threads()
        about_to_compute()
    model.to(device=place, dtype=default_dtype(place) if dtype == "auto" else DTYPES[dtype])
    if dtype == "int8":
        to_int8(model.backbone)
    if compile_layers:
        model.backbone.compile_layers()
    return model


def _device(name: str) -> torch.device:
    """The device of that name, if it is there."""
    try:
        place = torch.device(name)
        torch.empty(1, device=place)
        if place.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}); "
            'leave it out for CUDA where there is one and the CPU elsewhere, or say device="cpu"'
        ) from None
    return place


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        # Without AMX, oneDNN's bfloat16 products take twice float32's time on an Intel processor,
        # and half of it on an AMD one (docs/log.md).
        by_vectors = has.get("avx512_bf16") and "Intel" not in has.get("cpu_name", "")
        return torch.bfloat16 if has.get("amx_bf16") or by_vectors else torch.float32
    return torch.float32
