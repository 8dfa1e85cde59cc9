"""Targets on disk → batches for the student: packed rows, with the tokens of every chunk.

The order of samples is a permutation of shards, a few of which are open at a time and shuffled
together: random enough to train on, and no shard is read more than once in an epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from dewey_embed.errors import TargetsError
from dewey_embed.model.packing import Packed, pack
from dewey_embed.text.splitter import spans_from_characters
from dewey_embed.text.tokenizer import Tokenizer
from dewey_embed.train.targets import Part, Targets, TargetsFolder

OPEN_SHARDS = 16
"""Shards whose samples are shuffled together; more mix better and need more memory."""

NUM_HEAD = 1
"""CLS stands before the tokens of a text."""


class SampleSet(Dataset[Targets]):
    """The samples of one part of a targets folder, by number; the last shards read stay open.

    Raises:
        TargetsError: the part has no samples.

    """

    def __init__(self, folder: TargetsFolder, part: Part) -> None:
        self.folder = folder
        self.shards = [s for s in folder.shards if s.part == part and s.num_samples]
        if not self.shards:
            raise TargetsError(f"{folder.path}: no {part} samples; run dewey teach to its end")
        self.bounds = np.cumsum([0, *(shard.num_samples for shard in self.shards)])
        self._open: OrderedDict[int, list[Targets]] = OrderedDict()

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, number: int) -> Targets:
        shard = int(np.searchsorted(self.bounds, number, side="right")) - 1
        if shard not in self._open:
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
            self._open[shard] = self.folder.read(self.shards[shard])
        samples = self._open[shard]
        return samples[int(number - self.bounds[shard])]


class ShardShuffle(Sampler[int]):
    """The numbers of a sample set's samples, in an order that seed and epoch decide."""

    def __init__(self, samples: SampleSet, seed: int) -> None:
        self.samples, self.seed, self.epoch = samples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Nothing; the order is then that of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        bounds = self.samples.bounds
        shards = random.permutation(len(bounds) - 1)
        for group in range(0, len(shards), OPEN_SHARDS):
            numbers = np.concatenate(
                [np.arange(bounds[s], bounds[s + 1]) for s in shards[group : group + OPEN_SHARDS]]
            )
            yield from random.permutation(numbers).tolist()


@dataclass(frozen=True, slots=True)
class Rows:
    """Where a batch's vectors lie in its packed row, all int64.

    `starts`, `ends` (C,): every chunk's tokens; `part_starts`, `part_ends` (P,): every part's.
    """

    starts: Tensor
    ends: Tensor
    part_starts: Tensor
    part_ends: Tensor


def pack_samples(samples: Sequence[Targets], tokenizer: Tokenizer) -> tuple[Packed, Rows]:
    """The texts as one packed row, CLS and SEP around each, and where their chunks lie in it."""
    tokens = tokenizer.encode([one.sample.text for one in samples])
    head, tail = np.array([tokenizer.cls_token_id]), np.array([tokenizer.sep_token_id])
    packed = pack([np.concatenate((head, own.ids, tail)) for own in tokens])
    chunks, parts = [], []
    for one, own, origin in zip(samples, tokens, packed.starts, strict=True):
        spans = spans_from_characters(own, one.sample.spans, num_chars=len(one.sample.text))
        bounds = np.array([(span.token_start, span.token_end) for span in spans], np.int64)
        chunks.append(bounds.reshape(-1, 2) + origin + NUM_HEAD)
        parts.append(one.part_bounds + origin + NUM_HEAD)
    starts, ends = torch.from_numpy(np.concatenate(chunks)).unbind(1)
    part_starts, part_ends = torch.from_numpy(np.concatenate(parts)).unbind(1)
    return packed, Rows(starts, ends, part_starts, part_ends)


Answer = Callable[[Sequence[Targets]], Sequence[Targets]]
"""Asks the teacher for the targets of samples that have none."""


class Collator:
    """Samples → the tensors that `Student` takes, on the host."""

    def __init__(self, tokenizer: Tokenizer, answer: Answer | None = None) -> None:
        self._tokenizer, self._answer = tokenizer, answer

    def __call__(self, samples: Sequence[Targets]) -> dict[str, Any]:
        """One batch: `ids` (T,), `lengths` (B,), where vectors lie, and their targets (·, D)."""
        if self._answer is not None:
            samples = self._answer(samples)
        packed, rows = pack_samples(samples, self._tokenizer)
        return {
            "ids": packed.ids_T,
            "lengths": packed.lengths,
            "starts": rows.starts,
            "ends": rows.ends,
            "part_starts": rows.part_starts,
            "part_ends": rows.part_ends,
            "part_targets": torch.from_numpy(np.concatenate([one.parts for one in samples])),
            "cls_targets": torch.from_numpy(np.stack([one.whole for one in samples])),
            "chunk_targets": torch.from_numpy(np.concatenate([one.chunks for one in samples])),
        }
