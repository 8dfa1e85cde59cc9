"""What training runs on: devices, their peak speed and memory, and how much of it runs reach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from dewey_embed.errors import ConfigError

GIB = 2**30

DEVICES: Mapping[str, tuple[float, int]] = {
    # Dense bfloat16 TFLOP/s and GiB. Source: NVIDIA's datasheets, half of what they print "with
    # sparsity": HGX B200, H200 SXM, H100 SXM, A100, L40S, L4; RTX 4090: Ada white paper.
    "B200": (2250.0, 180),
    "H200": (989.5, 141),
    "H100": (989.5, 80),
    "A100-80GB": (312.0, 80),
    "A100-40GB": (312.0, 40),
    "L40S": (362.05, 48),
    "L4": (121.0, 24),
    "RTX4090": (165.2, 24),
    # Measured 2026-11, AMD Zen 4 AVX512-BF16, two cores.
    "cpu": (0.42, 24),
}


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Fractions of a device's peak that a student in training and a teacher reach.

    `update_s` is what a step takes besides, in seconds a parameter: gradients clipped, moments and
    weights moved, which is done in memory at the pace of memory.
    """

    student: float
    teacher: float
    origin: str
    update_s: float = 0.0


CPU_UPDATE_S = 9.6e-9
"""Of two cores. Measured 2026-11 with recipes/mini.toml in int8: steps of 6,690 tokens took 42
microseconds a token with one layer, 149 with six; by that 83 with three, where 80 were measured."""

ON_CPU = Efficiency(0.70, 0.60, "measured on two cores", CPU_UPDATE_S)
"""Measured 2026-11, AMD Zen 4 AVX512-BF16, two cores, with kernels for attention: recipes/mini.toml
for 20 minutes, all layers, 4,226 tokens a second. 0.58 for a student without them."""

ON_CPU_IN_INT8 = Efficiency(1.12, 0.60, "measured on two cores", CPU_UPDATE_S)
"""The same in int8, 6,245 tokens a second; the peak is that of bfloat16."""

ON_GPU = Efficiency(0.40, 0.50, "assumed, not measured")

NARROW_ON_GPU = Efficiency(0.041, 0.50, "the first measured on one H200, the second assumed")
"""Measured 2026-11 with recipes/mini_gpu.toml, 384 wide: 642,000 tokens a second, all in. So narrow
a student keeps a GPU waiting for memory and for its next piece of work, not for products."""

NARROW_UP_TO = 512
"""Hidden size up to which that is taken to hold."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Devices of one kind; `peak_flops` (a second, dense bfloat16) and bytes are of one device."""

    name: str
    count: int
    peak_flops: float
    memory_bytes: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The devices that "8xH100", "L4" or "cpu" names.

        Raises:
            ConfigError: no such device, or none of it.

        """
        match = re.fullmatch(r"(?:(\d+)\s*[x×]\s*)?(\S+)", text.strip(), re.IGNORECASE)
        names = {name.lower(): name for name in DEVICES}
        if match is None or match[2].lower() not in names:
            raise ConfigError(
                f"hardware {text!r}: unknown; write 8xH100 or cpu; accepted: {', '.join(DEVICES)}"
            )
        if (count := int(match[1] or 1)) < 1:
            raise ConfigError(f"hardware {text!r}: needs at least one device")
        name = names[match[2].lower()]
        teraflops, gibibytes = DEVICES[name]
        return cls(name, count, teraflops * 1e12, gibibytes * GIB)

    def efficiency(self, hidden_size: int, precision: str = "bfloat16") -> Efficiency:
        """The fractions of peak that a student of this width and its teacher reach.

        On a CPU a student in int8 (`training.precision`) may reach more than all of it.
        """
        if self.name == "cpu":
            return ON_CPU_IN_INT8 if precision == "int8" else ON_CPU
        return NARROW_ON_GPU if hidden_size <= NARROW_UP_TO else ON_GPU
