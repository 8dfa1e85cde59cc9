"""Engines: how attention and products of a backbone run, chosen for every row of tokens.

| engine                            | device | products in       | gradients | attention        |
|-----------------------------------|--------|-------------------|-----------|------------------|
| C++ kernels                       | CPU    | bfloat16, float32 | no        | C++              |
| PyTorch, attention by C++ kernels | CPU    | bfloat16          | yes       | C++              |
| PyTorch, FlashAttention           | CUDA   | bfloat16, float16 | either    | `varlen_attn`    |
| PyTorch                           | any    | any               | either    | blocks and tiles |

The first engine that fits runs. On a processor with a unit for products of tiles (AMX), large
products and full attention are PyTorch's within the C++ kernels, too. Layers may be int8 besides:
`int8.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dewey_embed.model.backbone import Backbone, product_dtype
from dewey_embed.model.int8 import TrainedLinear, is_int8, replace_linears
from dewey_embed.model.native.kernels import HEAD_WIDTH, Kernels, can_build, kernels, widths_fit
from dewey_embed.model.native.layers import KernelAttention, run_layers
from dewey_embed.model.packing import Packed

WORTH_BUILDING = 2e11
"""Tokens · weights from which kernels are built for a model: some 20,000 tokens of the mini, which
take plain PyTorch about as long as the compiler takes, once."""


def hidden_states(backbone: Backbone, packed: Packed) -> Tensor:
    """(T, H) float32: the normed states after the last layer, by the fastest engine.

    Raises:
        ValueError: a sequence is longer than the model's positions.

    """
    engine, native = choose_engine(backbone)
    return engine.run(backbone, packed, native)


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run a backbone, and where it fits; `None` is any device, dtype or gradients.

    `find_kernels` are the kernels that it runs on: it fits only where there are any.
    """

    name: str
    run: Callable[[Backbone, Packed, Any], Tensor]
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    gradients: bool | None = None
    find_kernels: Callable[[Backbone], Kernels | None] | None = None

    def fits(self, backbone: Backbone) -> bool:
        """Whether it can run the backbone as it is now, kernels aside."""
        weight = backbone.final_norm.weight
        return (
            self.device in (None, weight.device.type)
            and (self.dtypes is None or product_dtype(weight) in self.dtypes)
            and self.gradients in (None, torch.is_grad_enabled())
        )


def choose_engine(backbone: Backbone) -> tuple[Engine, Kernels | None]:
    """The first engine that fits, with its kernels."""
    for engine in ENGINES:
        if engine.fits(backbone):
            if engine.find_kernels is None:
                return engine, None
            if (native := engine.find_kernels(backbone)) is not None:
                return engine, native
    raise AssertionError("the last engine runs anything")


def inference_kernels(backbone: Backbone, *, may_build: bool = False) -> Kernels | None:
    """The kernels if they can run this backbone now, without gradients; else None."""
    dtype = backbone.final_norm.weight.dtype
    return kernels(dtype, may_build=may_build) if _kernels_fit(backbone) else None


def _kernels_fit(backbone: Backbone) -> bool:
    """Whether kernels are made for this backbone as it is now, built or not."""
    dtype = backbone.final_norm.weight.dtype
    return (
        INFERENCE.fits(backbone)
        and not torch.is_autocast_enabled("cpu")
        and not (dtype == torch.float32 and is_int8(backbone))
        and widths_fit(backbone.config)
    )


def training_kernels(backbone: Backbone) -> Kernels | None:
    """The kernels, built if need be, where they train the backbone faster than torch; else None.

    Where a processor has a unit for products of tiles, torch uses it; the kernels do not.
    """
    if not backbone.own_training or backbone.config.head_size != HEAD_WIDTH:
        return None
    native = kernels(torch.bfloat16, may_build=True)
    return None if native is None or native.has_tiles else native


def train_with_kernels(backbone: Backbone) -> bool:
    """Train attention by kernels from now on, and return whether there are any."""
    backbone.own_training = True
    return training_kernels(backbone) is not None


def train_in_int8(backbone: Backbone) -> bool:
    """Train with the layers' products in int8 from now on, and return whether that is possible.

    It is where attention has kernels for training, if all widths are multiples of 64.
    """
    if training_kernels(backbone) is None or not widths_fit(backbone.config):
        return False
    replace_linears(backbone, TrainedLinear)
    return True


def prepare(backbone: Backbone, num_tokens: int) -> None:
    """Count the tokens that a backbone is about to encode; build kernels once they are worth it."""
    backbone.num_tokens += num_tokens
    work = backbone.num_tokens * backbone.layer_weights
    inference_kernels(backbone, may_build=work >= WORTH_BUILDING)


@torch.inference_mode()
def build_kernels(backbone: Backbone) -> None:
    """Build the kernels that encode with a backbone now, if there are any; other threads go on."""
    inference_kernels(backbone, may_build=True)


def engine_name(backbone: Backbone) -> str:
    """The engine that encodes with a backbone on this machine, in words for people."""
    with torch.inference_mode():
        dtype = backbone.final_norm.weight.dtype
        if inference_kernels(backbone) is not None:
            return f"C++ kernels ({dtype})".replace("torch.", "")
        if _kernels_fit(backbone) and can_build(dtype):
            return "PyTorch, and C++ kernels once there is work worth compiling them"
        return choose_engine(backbone)[0].name


def _run_kernels(backbone: Backbone, packed: Packed, native: Kernels) -> Tensor:
    states_TH = backbone.embed(packed)
    run_layers(backbone, packed, states_TH, native)
    return backbone.normed(states_TH)


INFERENCE = Engine(
    "C++ kernels", _run_kernels, "cpu", (torch.bfloat16, torch.float32),
    gradients=False, find_kernels=inference_kernels,
)  # fmt: skip
ENGINES = (
    INFERENCE,
    Engine(
        "PyTorch, attention by C++ kernels",
        lambda backbone, packed, native: backbone(
            packed, KernelAttention(native, backbone.config, packed)
        ),
        "cpu", (torch.bfloat16,), gradients=True, find_kernels=training_kernels,
    ),
    Engine(
        "PyTorch, FlashAttention",
        lambda backbone, packed, _: backbone(packed, backbone.row_attention(packed, flash=True)),
        "cuda", (torch.bfloat16, torch.float16),
    ),
    Engine("PyTorch", lambda backbone, packed, _: backbone(packed)),
)  # fmt: skip
