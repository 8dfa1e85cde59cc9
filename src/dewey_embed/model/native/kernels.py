"""The compiled kernels as functions of tensors.

Shape suffixes: T packed tokens, P positions, N heads, D head width, H hidden width,
I intermediate width.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from dewey_embed.config import BackboneConfig
from dewey_embed.model.int8 import Int8Linear
from dewey_embed.model.native.build import (
    Library,
    build,
    find,
    find_compiler,
    library_for,
    log,
)

HEAD_WIDTH = 64
"""The one width of heads that the kernels are made for: that of every ModernBERT."""

WIDTH_STEP = 64
"""Other widths must be multiples of it."""

SPARE_ROWS = 16
"""The kernels look at keys so many at a time, and so up to that many past the last one."""

TOKENS_ROUNDED, OUTPUTS_ROUNDED = 256, 48
"""To whole numbers of so many the kernel for weights' gradients fills up tokens and outputs."""

SIGNATURES = {
    "dewey_attention": (*[c_void_p] * 5, *[c_int] * 3, *[c_void_p] * 2, c_int64, c_int),
    "dewey_linear": (*[c_void_p] * 4, c_int64, *[c_int] * 3),
    "dewey_add_norm": (*[c_void_p] * 5, c_int64, c_int, c_float, c_int),
    "dewey_geglu": (*[c_void_p] * 2, c_int64, c_int, c_int),
}
SIGNATURES_OF_HALVES = {
    "dewey_linear_int8": (*[c_void_p] * 6, c_int64, *[c_int] * 3),
    "dewey_attention_logs": (*[c_void_p] * 6, *[c_int] * 3, *[c_void_p] * 2, c_int64, c_int),
    "dewey_attention_gradients": (*[c_void_p] * 8, *[c_int] * 4),
    "dewey_round_weights": (*[c_void_p] * 4, *[c_int] * 4),
    "dewey_weight_gradients": (*[c_void_p] * 3, c_int64, *[c_int] * 2, *[c_void_p] * 4, c_int),
}
"""Beside them in the library for bfloat16."""


Linear = torch.nn.Linear | Int8Linear


class Kernels:
    """All that layers do, on contiguous CPU tensors of one dtype, and attention's gradients."""

    def __init__(self, library: Library, path: Path) -> None:
        self.dtype = library.dtype
        self.library = ctypes.CDLL(str(path))
        halves = self.dtype == torch.bfloat16
        signatures = SIGNATURES | (SIGNATURES_OF_HALVES if halves else {})
        for name, types in signatures.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = types, None
        # Large products then run on a unit of their own, several times as fast as vectors: torch's.
        self.has_tiles = halves and bool(torch.cpu.get_capabilities().get("amx_bf16"))

    def attention(
        self, qkv_T3ND: Tensor, out_TND: Tensor, cos_PD: Tensor, sin_PD: Tensor, *,
        starts: Tensor, window: int, logs_NT: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Nothing; `out_TND` then holds what every token takes from those it sees.

        `cos_PD`, `sin_PD`: float32 (P, D/2), by which queries and keys are turned. `starts`: int32,
        where sequences begin, and the last one's end. `window`: tokens seen to each side, or -1.
        `logs_NT`, float32, only in bfloat16: what `attention_gradients` needs of this pass.
        """
        num_tokens, _, num_heads, width = qkv_T3ND.shape
        rows = num_tokens + len(starts) - 1 + SPARE_ROWS
        rows += rows % 2
        keys, values = qkv_T3ND.new_empty((2, num_heads, rows, width))
        run, given = self.library.dewey_attention, [qkv_T3ND, out_TND]
        if logs_NT is not None:
            run, given = self.library.dewey_attention_logs, [*given, logs_NT]
        run(
            *_places(*given, cos_PD, sin_PD, starts), len(starts) - 1, num_heads,
            window, *_places(keys, values), rows, torch.get_num_threads(),
        )  # fmt: skip

    def attention_gradients(
        self, qkv_T3ND: Tensor, out_TND: Tensor, logs_NT: Tensor, out_grad_TND: Tensor, *,
        angles: tuple[Tensor, Tensor], starts: Tensor, window: int,
    ) -> Tensor:  # fmt: skip
        """(T, 3, N, D): the gradient of `qkv_T3ND` from that of what `attention` made of it.

        Only in bfloat16, all but `logs_NT` and `angles` (cosines and sines), which are float32.
        """
        gradient_T3ND = torch.empty_like(qkv_T3ND)
        self.library.dewey_attention_gradients(
            *_places(qkv_T3ND, out_TND, logs_NT, out_grad_TND, gradient_T3ND, *angles, starts),
            len(starts) - 1, qkv_T3ND.shape[2], window, torch.get_num_threads(),
        )  # fmt: skip
        return gradient_T3ND

    def linear_rounded(self, rows_TI: Tensor, weight: Tensor, *, turned: bool) -> Tensor:
        """(T, J): `rows_TI` times `weight` (J, I), or (I, J) if `turned`, both rounded to int8.

        `weight` is float32, rows and what comes back bfloat16.
        """
        outer, inner = weight.shape
        shape = (inner, outer) if turned else (outer, inner)
        rounded = torch.empty(shape, dtype=torch.int8)
        scales = torch.empty(shape[0])
        shifts = torch.empty(shape[0], dtype=torch.int32)
        threads = torch.get_num_threads()
        self.library.dewey_round_weights(
            *_places(weight, rounded, scales, shifts), outer, inner, turned, threads
        )
        out_TJ = rows_TI.new_empty((len(rows_TI), shape[0]))
        self.library.dewey_linear_int8(
            *_places(rows_TI, rounded, scales, shifts, None, out_TJ),
            *rows_TI.shape, shape[0], threads,
        )  # fmt: skip
        return out_TJ

    def weight_gradients(self, grads_TJ: Tensor, rows_TI: Tensor) -> Tensor:
        """(J, I) float32: the gradient of a layer's weights, both bfloat16 factors in int8."""
        (num_tokens, outer), inner = grads_TJ.shape, rows_TI.shape[1]
        padded = -(-num_tokens // TOKENS_ROUNDED) * TOKENS_ROUNDED
        wide = -(-outer // OUTPUTS_ROUNDED) * OUTPUTS_ROUNDED
        words = [torch.empty(padded * width, dtype=torch.int8) for width in (wide, inner)]
        scales = torch.empty(padded // TOKENS_ROUNDED * (wide + inner))
        shifts = torch.empty_like(scales, dtype=torch.int32)
        out_JI = torch.empty((outer, inner))
        self.library.dewey_weight_gradients(
            *_places(grads_TJ, rows_TI, out_JI), num_tokens, outer, inner,
            *_places(*words, scales, shifts), torch.get_num_threads(),
        )  # fmt: skip
        return out_JI

    def linear(self, rows_TI: Tensor, layer: Linear, out_TJ: Tensor) -> None:
        """Nothing; `out_TJ` is then the linear layer of `rows_TI`, whatever its weights are."""
        if isinstance(layer, Int8Linear):
            run = self.library.dewey_linear_int8
            places = _places(rows_TI, layer.weight, layer.scale, layer.shift, layer.bias, out_TJ)
        else:
            run = self.library.dewey_linear
            places = _places(rows_TI, layer.weight, layer.bias, out_TJ)
        run(*places, *rows_TI.shape, layer.out_features, torch.get_num_threads())

    def add_norm(
        self, states_TH: Tensor, added_TH: Tensor | None, norm: torch.nn.LayerNorm | None,
        out_TH: Tensor | None,
    ) -> None:  # fmt: skip
        """Nothing; `added_TH` is then added to `states_TH` (float32), `out_TH` the norm of them.

        Without a norm `out_TH` is the states themselves, in its dtype.
        """
        weight, bias, epsilon = (norm.weight, norm.bias, norm.eps) if norm else (None, None, 0.0)
        self.library.dewey_add_norm(
            *_places(states_TH, added_TH, weight, bias, out_TH), *states_TH.shape,
            epsilon, torch.get_num_threads(),
        )  # fmt: skip

    def geglu(self, wide_TI: Tensor, out_TI: Tensor) -> None:
        """Nothing; `out_TI` is then gelu(first half of `wide_TI`) · second half."""
        self.library.dewey_geglu(*_places(wide_TI, out_TI), *out_TI.shape, torch.get_num_threads())


def widths_fit(config: BackboneConfig) -> bool:
    """Whether all that the kernels do can be done for backbones of this shape."""
    widths = config.hidden_size, config.intermediate_size
    return config.head_size == HEAD_WIDTH and all(width % WIDTH_STEP == 0 for width in widths)


def kernels(dtype: torch.dtype, *, may_build: bool = False) -> Kernels | None:
    """The kernels of a dtype where this processor can run them and they are there; else None."""
    library = _wanted(dtype)
    if library is None:
        return None
    if may_build and library not in _loaded and find(library) is None:
        build(library)
    return load(library)


def can_build(dtype: torch.dtype) -> bool:
    """Whether kernels could be compiled here, as far as can be told without trying."""
    return _wanted(dtype) is not None and find_compiler() is not None


_loaded: dict[Library, Kernels | None] = {}
"""What this process has loaded, or found to be no library: it stays so, whatever the files do."""


def load(library: Library) -> Kernels | None:
    """The kernels of a library that is built; None, and a debug message, if it is none."""
    if library not in _loaded and (path := find(library)) is not None:
        _loaded[library] = _load(library, path)
    return _loaded.get(library)


def _load(library: Library, path: Path) -> Kernels | None:
    try:
        return Kernels(library, path)
    except (OSError, AttributeError) as error:
        log.debug("kernels not loaded, encoding in plain PyTorch: %s", error)
        return None


def _wanted(dtype: torch.dtype) -> Library | None:
    return None if os.environ.get("DEWEY_NATIVE") == "0" else library_for(dtype)


def _places(*tensors: Tensor | None) -> list[int | None]:
    """Where tensors lie in memory."""
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]
