"""Muon whose orthogonal steps are computed in float32."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_optimizer import Muon
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import Tensor


class Float32Muon(Muon):
    """Muon for training in float32: its iteration is then not in bfloat16.

    Rounding to bfloat16 turns the smallest difference of a gradient into one of a hundredth of a
    step, so that two processes would not train what one does.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        return [
            zero_power_via_newton_schulz_5(
                update, num_steps=group["ns_steps"], weights=group["ns_coeffs"], dtype=torch.float32
            )
            for update in updates
        ]
