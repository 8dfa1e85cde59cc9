"""The compiled kernels as functions of tensors.

Shape suffixes: T packed tokens, P positions, N heads, D head width, H hidden width,
I intermediate width.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dewey_embed.config import BackboneConfig
from dewey_embed.model.control import PassControl
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
"""All other widths must be multiples of it."""

SPARE_ROWS = 16
"""The kernels read keys 16 at a time, and so up to 16 past the last one."""

TOKENS_PER_SCALE, OUTPUT_STEP = 256, 48
"""The kernel for weights' gradients pads tokens and outputs to multiples of these."""

SIGNATURES = {
    "dewey_attention": (
        *[c_void_p] * 5,
        *[c_int] * 3,
        *[c_void_p] * 2,
        c_int64,
        c_void_p,
        c_int,
    ),
    "dewey_linear": (*[c_void_p] * 4, c_int64, *[c_int] * 3),
    "dewey_add_norm": (*[c_void_p] * 5, c_int64, c_int, c_float, c_int),
    "dewey_geglu": (*[c_void_p] * 2, c_int64, c_int, c_int),
}
BFLOAT16_SIGNATURES = {
    "dewey_linear_int8": (*[c_void_p] * 6, c_int64, *[c_int] * 3),
    "dewey_attention_log_sum_exp": (*[c_void_p] * 6, *[c_int] * 3, *[c_void_p] * 2, c_int64, c_int),
    "dewey_attention_gradients": (*[c_void_p] * 8, *[c_int] * 4),
    "dewey_quantize_weights": (*[c_void_p] * 4, *[c_int] * 4),
    "dewey_weight_gradients": (*[c_void_p] * 3, c_int64, *[c_int] * 2, *[c_void_p] * 4, c_int),
}
"""Only in the library for bfloat16."""


class AttentionMetadata(NamedTuple):
    """The positions of a packed row's tokens, and the distance they see.

    `cos_PD`, `sin_PD`: float32 (P, D/2), by which queries and keys are rotated. `starts`: int32,
    where sequences begin, and the last one's end. `window`: tokens seen to each side, -1 for all.
    """

    cos_PD: Tensor
    sin_PD: Tensor
    starts: Tensor
    window: int


Int8Weights = tuple[Tensor, Tensor, Tensor]
"""Weights (J, I) int8; of each row its scale, and 128 times its sum."""


class Kernels:
    """All steps of a layer, on contiguous CPU tensors of one dtype, and attention's gradients."""

    def __init__(self, library: Library, path: Path) -> None:
        self.dtype = library.dtype
        self.library = ctypes.CDLL(str(path))
        is_bfloat16 = self.dtype == torch.bfloat16
        signatures = SIGNATURES | (BFLOAT16_SIGNATURES if is_bfloat16 else {})
        for name, types in signatures.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = types, None
        # Such a processor computes large products several times as fast, by torch.
        self.has_tiles = is_bfloat16 and bool(torch.cpu.get_capabilities().get("amx_bf16"))

    def attention(
        self, qkv_T3ND: Tensor, out_TND: Tensor, metadata: AttentionMetadata,
        log_sum_exp_NT: Tensor | None = None, control: PassControl | None = None,
    ) -> None:  # fmt: skip
        """Write the attention output of unrotated queries, keys and values to `out_TND`.

        `log_sum_exp_NT`, float32, only in bfloat16: for `attention_gradients`. Where a `control`
        stops the pass, the output is unfinished.
        """
        num_tokens, _, num_heads, width = qkv_T3ND.shape
        cos_PD, sin_PD, starts, window = metadata
        rows = num_tokens + len(starts) - 1 + SPARE_ROWS
        rows += rows % 2
        keys, values = qkv_T3ND.new_empty((2, num_heads, rows, width))
        sequences = (cos_PD, sin_PD, starts, len(starts) - 1, num_heads, window, keys, values, rows)
        if log_sum_exp_NT is None:
            address = None if control is None else control.address
            self._run("dewey_attention", qkv_T3ND, out_TND, *sequences, address)
        else:
            outputs = (out_TND, log_sum_exp_NT)
            self._run("dewey_attention_log_sum_exp", qkv_T3ND, *outputs, *sequences)

    def attention_gradients(
        self, qkv_T3ND: Tensor, out_TND: Tensor, log_sum_exp_NT: Tensor, out_grad_TND: Tensor,
        metadata: AttentionMetadata,
    ) -> Tensor:  # fmt: skip
        """(T, 3, N, D): the gradient of `qkv_T3ND` from that of its attention output.

        Only in bfloat16, all but `log_sum_exp_NT` and the angles, which are float32.
        """
        cos_PD, sin_PD, starts, window = metadata
        gradient_T3ND = torch.empty_like(qkv_T3ND)
        self._run(
            "dewey_attention_gradients", qkv_T3ND, out_TND, log_sum_exp_NT, out_grad_TND,
            gradient_T3ND, cos_PD, sin_PD, starts, len(starts) - 1, qkv_T3ND.shape[2], window,
        )  # fmt: skip
        return gradient_T3ND

    def linear_quantized(self, rows_TI: Tensor, weight: Tensor, *, transposed: bool) -> Tensor:
        """(T, J): `rows_TI` times `weight` (J, I), or (I, J) if `transposed`, both made int8.

        `weight` is float32, the rows and the product bfloat16.
        """
        outer, inner = weight.shape
        shape = (inner, outer) if transposed else (outer, inner)
        quantized = torch.empty(shape, dtype=torch.int8)
        scales, shifts = torch.empty(shape[0]), torch.empty(shape[0], dtype=torch.int32)
        self._run(
            "dewey_quantize_weights", weight, quantized, scales, shifts, outer, inner, transposed
        )
        out_TJ = rows_TI.new_empty((len(rows_TI), shape[0]))
        self.linear_int8(rows_TI, (quantized, scales, shifts), None, out_TJ)
        return out_TJ

    def weight_gradients(self, grads_TJ: Tensor, rows_TI: Tensor) -> Tensor:
        """(J, I) float32: the gradient of a layer's weights, both bfloat16 factors in int8."""
        (num_tokens, outer), inner = grads_TJ.shape, rows_TI.shape[1]
        padded = -(-num_tokens // TOKENS_PER_SCALE) * TOKENS_PER_SCALE
        wide = -(-outer // OUTPUT_STEP) * OUTPUT_STEP
        quantized = [torch.empty(padded * width, dtype=torch.int8) for width in (wide, inner)]
        scales = torch.empty(padded // TOKENS_PER_SCALE * (wide + inner))
        shifts = torch.empty_like(scales, dtype=torch.int32)
        out_JI = torch.empty((outer, inner))
        self._run(
            "dewey_weight_gradients", grads_TJ, rows_TI, out_JI, num_tokens, outer, inner,
            *quantized, scales, shifts,
        )  # fmt: skip
        return out_JI

    def linear(
        self, rows_TI: Tensor, weight_JI: Tensor, bias_J: Tensor | None, out_TJ: Tensor
    ) -> None:
        """Write the linear layer of `rows_TI` to `out_TJ`."""
        shape = (*rows_TI.shape, len(weight_JI))
        self._run("dewey_linear", rows_TI, weight_JI, bias_J, out_TJ, *shape)

    def linear_int8(
        self, rows_TI: Tensor, weights: Int8Weights, bias_J: Tensor | None, out_TJ: Tensor
    ) -> None:
        """Write the linear layer of `rows_TI` to `out_TJ`, by int8 weights."""
        shape = (*rows_TI.shape, len(weights[0]))
        self._run("dewey_linear_int8", rows_TI, *weights, bias_J, out_TJ, *shape)

    def add_norm(
        self, states_TH: Tensor, added_TH: Tensor | None, norm: torch.nn.LayerNorm | None,
        out_TH: Tensor | None,
    ) -> None:  # fmt: skip
        """Add `added_TH` to `states_TH`, float32, and write the norm of the sum to `out_TH`.

        Without a norm, `out_TH` is the sum itself, in its dtype.
        """
        weight, bias, epsilon = (norm.weight, norm.bias, norm.eps) if norm else (None, None, 0.0)
        self._run(
            "dewey_add_norm", states_TH, added_TH, weight, bias, out_TH, *states_TH.shape, epsilon
        )

    def geglu(self, wide_TI: Tensor, out_TI: Tensor) -> None:
        """Write gelu(first half of `wide_TI`) · second half to `out_TI`."""
        self._run("dewey_geglu", wide_TI, out_TI, *out_TI.shape)

    def _run(self, name: str, *arguments: Tensor | float | None) -> None:
        """Call a function of the library: with tensors' addresses, on all threads."""
        assert all(not isinstance(each, Tensor) or each.is_contiguous() for each in arguments)
        addresses = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
        getattr(self.library, name)(*addresses, torch.get_num_threads())


def widths_fit(config: BackboneConfig) -> bool:
    """Whether the kernels can run all steps of backbones of this shape."""
    widths = config.hidden_size, config.intermediate_size
    return config.head_size == HEAD_WIDTH and all(width % WIDTH_STEP == 0 for width in widths)


def kernels(dtype: torch.dtype, *, may_build: bool = False) -> Kernels | None:
    """The kernels of a dtype where this processor can run them and they are there; else None."""
    library = _wanted(dtype)
    return None if library is None else load(library, may_build=may_build)


def can_build(dtype: torch.dtype) -> bool:
    """Whether kernels might be compiled here."""
    return _wanted(dtype) is not None and find_compiler() is not None


def _wanted(dtype: torch.dtype) -> Library | None:
    return None if os.environ.get("DEWEY_NATIVE") == "0" else library_for(dtype)


_loaded: dict[Library, Kernels | None] = {}
"""Libraries that this process has loaded or failed to load: neither is tried again."""


_building = threading.Lock()


def load(library: Library, *, may_build: bool = False) -> Kernels | None:
    """The kernels of a library that is built, or may be; None, and a debug message, if it fails.

    While one thread builds them, others go on without.
    """
    if library not in _loaded:
        path = find(library)
        if path is None and may_build and _building.acquire(blocking=False):
            try:
                path = build(library)
            finally:
                _building.release()
        if path is None:
            return None
        try:
            _loaded[library] = Kernels(library, path)
        except (OSError, AttributeError) as error:
            log.debug("kernels not loaded, encoding in plain PyTorch: %s", error)
            _loaded[library] = None
    return _loaded[library]
