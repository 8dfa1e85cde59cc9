"""Sequences of different lengths → one row of tokens, with no padding anywhere.

A batch is one row of T tokens and `cu_seqlens`, the B + 1 places where its sequences begin and
end. This module knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dewey_embed.model.control import PassControl


@dataclass(frozen=True, slots=True)
class Packed:
    """B sequences in one row of T tokens.

    | field         | shape    | dtype | meaning                                      |
    |---------------|----------|-------|----------------------------------------------|
    | `ids_T`       | (T,)     | int64 | token ids                                    |
    | `positions_T` | (T,)     | int64 | place within the own sequence, from 0        |
    | `cu_seqlens`  | (B + 1,) | int32 | where each sequence starts; the last one's end |
    | `lengths`     | B        | int   | the same on the host, so that nothing waits for a device |

    `control` may pause or stop the pass over the row; `on_layer` is called after each layer.
    """

    ids_T: Tensor
    positions_T: Tensor
    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    control: PassControl | None = None
    on_layer: Callable[[], None] | None = None

    def check(self) -> None:
        """Return once the pass may go on.

        Raises:
            PassStoppedError: it was stopped.

        """
        if self.control is not None:
            self.control.check()

    def layer_done(self) -> None:
        """Say that another layer is done, where somebody asks."""
        if self.on_layer is not None:
            self.on_layer()

    @property
    def starts(self) -> NDArray[np.int64]:
        """(B,) int64: where each sequence starts in the row."""
        return np.concatenate(([0], np.cumsum(self.lengths)[:-1])).astype(np.int64)

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)


def pack(
    sequences: Sequence[NDArray[np.int64]],
    device: torch.device | str = "cpu",
    control: PassControl | None = None,
    on_layer: Callable[[], None] | None = None,
) -> Packed:
    """One row of all sequences' ids, in the given order; copied to a GPU without waiting for it.

    Raises:
        ValueError: there is no sequence, or one is empty.

    """
    lengths = tuple(len(sequence) for sequence in sequences)
    if not lengths or min(lengths) == 0:
        raise ValueError(f"packing needs sequences of at least one token, got lengths {lengths}")
    ids = torch.from_numpy(np.concatenate(sequences).astype(np.int64, copy=False))
    positions = torch.from_numpy(np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]))
    cu_seqlens = torch.from_numpy(np.cumsum((0, *lengths), dtype=np.int32))
    place = torch.device(device)
    return Packed(
        _copied(ids, place), _copied(positions, place), _copied(cu_seqlens, place), lengths,
        control, on_layer,
    )  # fmt: skip


def _copied(host: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; only pinned memory is copied while the GPU computes."""
    if device.type == "cuda":
        return host.pin_memory().to(device, non_blocking=True)
    return host.to(device)


def fill_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of sequences, batch by batch: longest first, at most `batch_tokens` tokens each.

    A sequence longer than `batch_tokens` is a batch of its own. Sorting by length groups
    sequences of similar cost; with the longest first, a lack of memory shows at the start.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or lengths[index] > room:
            batches.append([])
            room = batch_tokens
        batches[-1].append(index)
        room -= lengths[index]
    return batches
