"""Targets on disk → batches for the student: packed rows, with the tokens of every chunk.

The order of samples is a permutation of shards, a few of which are open at a time and shuffled
together: random enough to train on, and no shard is read more than once in an epoch.
"""

from __future__ import annotations

import hashlib
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
from dewey_embed.train.samples import Sample
from dewey_embed.train.targets import ShardRows, Split, Targets, TargetsFolder
from dewey_embed.train.teacher_requests import TeacherRequest
from dewey_embed.types import Rows, Tokens

OPEN_SHARDS = 16
"""Shards whose samples are shuffled together; more mix better and need more memory."""

NUM_HEAD = 1
"""CLS stands before the tokens of a text."""


class SampleSet(Dataset[Targets]):
    """The samples of one split of a targets folder, by number; the last shards read stay open.

    Raises:
        TargetsError: the split has no samples.

    """

    def __init__(self, folder: TargetsFolder, split: Split) -> None:
        self.folder = folder
        self.shards = [s for s in folder.shards if s.part == split and s.num_samples]
        if not self.shards:
            raise TargetsError(f"{folder.path}: no {split} samples; run dewey teach to its end")
        self.bounds = np.cumsum([0, *(shard.num_samples for shard in self.shards)])
        self._open: OrderedDict[int, ShardRows] = OrderedDict()

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
        """Take the order of this epoch."""
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
class BatchSpans:
    """Where a batch's vectors lie in its packed row, all int64.

    `starts`, `ends` (C,): every chunk's tokens; `segment_starts`, `segment_ends`
    (P,): every segment's; `question_starts`, `question_ends` (Q,): every question's.
    """

    starts: Tensor
    ends: Tensor
    segment_starts: Tensor
    segment_ends: Tensor
    question_starts: Tensor
    question_ends: Tensor


def pack_samples(
    samples: Sequence[Sample],
    tokens: Sequence[Tokens],
    segment_bounds: Sequence[Rows],
    tokenizer: Tokenizer,
) -> tuple[Packed, BatchSpans]:
    """The texts as one packed row, CLS and SEP around each, and where their chunks lie in it.

    `tokens` are the samples', `segment_bounds` (P, 2) the segments of each in them. The samples'
    questions come after all texts.
    """
    head, tail = np.array([tokenizer.cls_token_id]), np.array([tokenizer.sep_token_id])
    asked = tokenizer.encode([one.text for sample in samples for one in sample.questions])
    packed = pack([np.concatenate((head, own.ids, tail)) for own in (*tokens, *asked)])
    chunks, segments = [], []
    for sample, own, inner, origin in zip(
        samples, tokens, segment_bounds, packed.starts[: len(samples)], strict=True
    ):
        spans = spans_from_characters(own, sample.spans, num_chars=len(sample.text))
        bounds = np.array([(span.token_start, span.token_end) for span in spans], np.int64)
        chunks.append(bounds.reshape(-1, 2) + origin + NUM_HEAD)
        segments.append(inner + origin + NUM_HEAD)
    starts, ends = torch.from_numpy(np.concatenate(chunks)).unbind(1)
    segment_starts, segment_ends = torch.from_numpy(np.concatenate(segments)).unbind(1)
    first = torch.tensor(packed.starts[len(samples) :], dtype=torch.int64) + NUM_HEAD
    sizes = torch.tensor([len(own) for own in asked], dtype=torch.int64)
    return packed, BatchSpans(starts, ends, segment_starts, segment_ends, first, first + sizes)


def places(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Where all chunks (C, 4) and questions' answers (Q, 4) stand, int64.

    A place is the number of a text, that of a sample, and the first and last characters in it.
    Numbers are made of names, so that they mean the same in every process.
    """
    chunks, answers = list[list[int]](), list[list[int]]()
    for sample in samples:
        where = [_number(sample.id.partition("-")[0]), _number(sample.id)]
        chunks += [[*where, *span] for span in sample.spans]
        answers += [[*where, one.start, one.end] for one in sample.questions]
    of_chunks, of_answers = (
        torch.tensor(each, dtype=torch.int64).reshape(-1, 4) for each in (chunks, answers)
    )
    return of_chunks, of_answers


def _number(name: str) -> int:
    """A number below 2⁶³ that stands for a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


MakeRequest = Callable[[Sequence[Sample], Sequence[Tokens]], TeacherRequest]
"""Samples without targets, and their tokens → the request to the teacher."""

AddTargets = Callable[[dict[str, Any]], dict[str, Any]]
"""A batch with a request → the batch with its targets."""


class Collator:
    """Samples → the tensors that `Student` takes, on the host; any process may do it.

    With `make_request` the batch has no targets, but the request to the teacher under `request`.
    """

    def __init__(self, tokenizer: Tokenizer, make_request: MakeRequest | None = None) -> None:
        self._tokenizer, self._make_request = tokenizer, make_request

    def __call__(self, samples: Sequence[Targets]) -> dict[str, Any]:
        """One batch: `ids` (T,), `lengths` (B + Q,), where vectors lie, and their targets."""
        texts = [one.sample for one in samples]
        tokens = self._tokenizer.encode([text.text for text in texts])
        bounds = [one.segment_bounds for one in samples]
        if self._make_request is None:
            targets: dict[str, Any] = {
                "segment_targets": torch.from_numpy(
                    np.concatenate([one.segments for one in samples])
                ),
                "cls_targets": torch.from_numpy(np.stack([one.document for one in samples])),
                "chunk_targets": torch.from_numpy(np.concatenate([one.chunks for one in samples])),
            }
        else:
            request = self._make_request(texts, tokens)
            targets = {"request": request}
            bounds = request.segments.bounds if request.segments is not None else bounds
        packed, rows = pack_samples(texts, tokens, bounds, self._tokenizer)
        chunk_places, answer_places = places(texts)
        return {
            "ids": packed.ids_T,
            "lengths": packed.lengths,
            "starts": rows.starts,
            "ends": rows.ends,
            "segment_starts": rows.segment_starts,
            "segment_ends": rows.segment_ends,
            "question_starts": rows.question_starts,
            "question_ends": rows.question_ends,
            "chunk_places": chunk_places,
            "answer_places": answer_places,
            **targets,
        }
