"""Devices: which one, in which numbers it computes, what fits on it, and the CPU's threads."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from dewey_embed.errors import ConfigError, first_line

log = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.bfloat16,  # all but the layers' weights
}

CONTROL_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class DeviceSizes:
    """The amount of work a device gets at a time.

    | field             | meaning                                                                |
    |-------------------|------------------------------------------------------------------------|
    | `batch_tokens`    | tokens of one forward pass                                             |
    | `batches_ahead`   | batches queued before results are fetched, so that a GPU never waits   |
    | `boundaries`      | span boundaries pooled at a time: a core's cache, or enough for a GPU  |
    """

    batch_tokens: int
    batches_ahead: int
    boundaries: int


SIZES = {
    "cpu": DeviceSizes(batch_tokens=16_384, batches_ahead=0, boundaries=256),
    "cuda": DeviceSizes(batch_tokens=131_072, batches_ahead=1, boundaries=16_384),
}
OTHER_SIZES = DeviceSizes(batch_tokens=16_384, batches_ahead=0, boundaries=16_384)


def sizes_of(device: torch.device) -> DeviceSizes:
    """The sizes for a device."""
    return SIZES.get(device.type, OTHER_SIZES)


def find_device(name: str | None) -> torch.device:
    """The device of that name; without a name, CUDA where there is one, else the CPU.

    Raises:
        ConfigError: the device is unknown or not there.

    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = first_line(error).rstrip(".")
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}); "
            'leave it out for CUDA where there is one and the CPU elsewhere, or say device="cpu"'
        ) from None
    return device


def find_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; of `"auto"`, the device's fastest.

    Raises:
        ConfigError: the dtype is unknown.

    """
    if name == "auto":
        return default_dtype(device)
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is unknown; accepted: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def require_room(module: nn.Module, dtype: torch.dtype) -> None:
    """Refuse weights that float16 does not hold, if that is the dtype.

    Raises:
        ConfigError: there are such weights; names the tensor.

    """
    if dtype != torch.float16:  # all others reach as far as float32
        return
    limit = torch.finfo(dtype).max
    for name, weight in module.named_parameters():
        if (largest := float(weight.detach().abs().max())) > limit:
            raise ConfigError(
                f"dtype float16: tensor {name!r} holds {largest:,.6g}, and float16 ends at "
                f'{limit:,.0f}; load the model with dtype="bfloat16" or "float32"'
            )


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


def usable_cores(group: Path = CONTROL_GROUP) -> int:
    """Cores that this process may use: a container's share of them, not the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)
    bound = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, _granted_cores(group))))


def _granted_cores(group: Path) -> float:
    """Cores' worth of time by the control group, version 2 or 1; infinity without a limit."""
    try:
        if (both := group / "cpu.max").exists():
            quota, period = both.read_text(encoding="ascii").split()
        else:
            quota, period = (
                (group / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return int(quota) / int(period) if quota not in {"max", "-1"} else math.inf
    except (OSError, ValueError):
        return math.inf


def limit_threads(group: Path = CONTROL_GROUP) -> None:
    """Limit torch's threads to the usable cores, unless `OMP_NUM_THREADS` says how many.

    Threads beyond a container's share are stopped within a product, and all others wait for them.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = usable_cores(group)
        if torch.get_num_threads() > cores:
            torch.set_num_threads(cores)


_thread_owner: int | None = None
"""The process that used its threads last."""


def use_threads() -> None:
    """Record that this process uses its threads; in a child of a process that did, use one thread.

    OpenMP's pool is gone in a forked child, and its first parallel region hangs or crashes. On one
    thread there is no such region, so a child encodes on one: slower, and right.
    """
    global _thread_owner  # noqa: PLW0603 - a fact about the process
    own = os.getpid()
    if _thread_owner not in (None, own):
        torch.set_num_threads(1)
        log.warning(
            "this process was forked from one that had already computed, whose threads it does not "
            'have: computing on one thread; start processes with "spawn" to use all cores'
        )
    _thread_owner = own
