"""Hidden states + spans → pooled states: means of any spans as differences of running sums.

Training and encoding both pool with this code. Shape suffixes: T tokens of a packed
row, C spans, H hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dewey_embed.model.device import sizes_of

BLOCK_TOKENS = 16
"""A running sum is kept for every 16th token; the tokens between are added when a span is pooled.

More sums cost memory, fewer cost time: with every 64th, chunks took five to eight times as long.
"""

SLICE_TOKENS = 8192
"""Tokens made float32 at a time, so that summing a long row needs little memory."""


class RunningSums:
    """Sums of hidden states over any range of tokens, without touching the tokens between.

    Sums within a block are float32, sums of blocks float64: subtracting two running sums at
    131,072 tokens is as exact as a direct mean in float32. The states stay in
    their own dtype and are not copied. Every operation can be differentiated.
    """

    def __init__(self, hidden_TH: Tensor) -> None:
        self.hidden_TH = hidden_TH
        num_tokens, width = hidden_TH.shape
        in_blocks = num_tokens - num_tokens % BLOCK_TOKENS
        blocks = [
            part.view(-1, BLOCK_TOKENS, width).sum(1, dtype=torch.float32)
            for part in hidden_TH[:in_blocks].split(SLICE_TOKENS)
        ]
        zero = hidden_TH.new_zeros((1, width), dtype=torch.float64)
        self.before_block = torch.cat((zero, torch.cat(blocks).double().cumsum(0)))

    def sums(self, starts_C: Tensor, ends_C: Tensor) -> Tensor:
        """(C, H) float64: sums of the states of tokens [start, end) for each pair.

        The pairs may be on the host while the states are on a GPU: nothing then waits for it.
        """
        places = torch.cat((starts_C, ends_C))
        device = self.hidden_TH.device
        if places.is_cuda:  # counting unique places would wait for the GPU
            inverse = torch.arange(len(places), device=device)
        else:
            places, inverse = torch.unique(places, return_inverse=True)
        places, inverse = (x.to(device, non_blocking=True) for x in (places, inverse))
        step = sizes_of(device).boundaries
        before = torch.cat([self._before(part) for part in places.split(step)])
        end: Tensor = before[inverse[len(starts_C) :]]
        return end - before[inverse[: len(starts_C)]]

    def means(self, starts_C: Tensor, ends_C: Tensor) -> Tensor:
        """(C, H) float32: means of the states of tokens [start, end) for each pair."""
        counts_C = (ends_C - starts_C).to(self.hidden_TH.device)
        return (self.sums(starts_C, ends_C) / counts_C.unsqueeze(1)).float()

    def _before(self, places: Tensor) -> Tensor:
        """(P, H) float64: the sum of all states before each place."""
        block = places // BLOCK_TOKENS
        rest = torch.arange(BLOCK_TOKENS, device=places.device)
        tokens = (block.unsqueeze(1) * BLOCK_TOKENS + rest).clamp(max=len(self.hidden_TH) - 1)
        inside = rest < (places % BLOCK_TOKENS).unsqueeze(1)
        states = self.hidden_TH[tokens].float() * inside.unsqueeze(2)
        return self.before_block[block] + states.sum(1).double()
