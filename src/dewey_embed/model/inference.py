"""Token sequences + spans → vectors: the forward passes of encoding, batch by batch.

A text longer than the model takes is read in overlapping windows. Here a window is one sequence,
and a span's vector is the mean over its pieces. This module knows tokens and spans, not text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dewey_embed.errors import TextTooLongError
from dewey_embed.model.device import sizes_of, use_threads
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.engine import prepare
from dewey_embed.model.packing import fill_batches, pack
from dewey_embed.model.pooling import RunningSums
from dewey_embed.model.windows import Pieces, assign_pieces, plan_windows
from dewey_embed.single_vectors import SINGLE_VECTORS
from dewey_embed.types import Floats, Rows, Tokens

HEAD_SLICE_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Request:
    """One text to embed: its tokens, its spans as token ranges (C,), its windows (W, 2).

    The spans do not include the complete text, whose mean is always computed. The first `skip` ids
    that the model reads are left out of the document's vector, where it is pooled from more than
    the text.
    """

    tokens: Tokens
    starts: Rows
    ends: Rows
    windows: Rows
    skip: int = 0


@dataclass(frozen=True, slots=True)
class KeptStates:
    """Running sums of a text's windows: any span of it can still be pooled."""

    windows: Rows
    sums: list[RunningSums]

    def means(self, starts: Rows, ends: Rows) -> Tensor:
        """(C, H) float32: means over token ranges of the text."""
        width = self.sums[0].hidden_TH.shape[1]
        total = torch.zeros((len(starts), width), dtype=torch.float64)
        pieces = assign_pieces(starts, ends, self.windows)
        for window, sums in enumerate(self.sums):
            own = pieces.window == window
            origin = self.windows[window, 0]
            rows = torch.from_numpy(pieces.row[own])
            starts_C, ends_C = (
                torch.from_numpy(bounds[own] - origin) for bounds in (pieces.start, pieces.end)
            )
            total.index_add_(0, rows, sums.sums(starts_C, ends_C))
        return (total / torch.from_numpy(ends - starts).unsqueeze(1)).float()


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text's unit vectors: `vector` (D,), `chunks` (C, D), float32; states if they were kept."""

    vector: Floats
    chunks: Floats
    states: KeptStates | None


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One window of one text, as the model reads it: CLS, prompt, tokens, SEP."""

    text: int
    window: int
    ids: Rows
    first: int  # where the window's own tokens begin, after CLS and the prompt
    end: int  # where they end, before SEP


def make_request(tokens: Tokens, starts: Rows, ends: Rows, *, room: int, skip: int = 0) -> Request:
    """A request whose windows hold at most `room` tokens of the text.

    Windows share an eighth of their length, or more where the longest span then fits into one of
    them; never more than half.
    """
    longest = int((ends - starts).max(initial=0))
    overlap = min(room // 2, max(room // 8, longest))
    windows = plan_windows(len(tokens), size=room, overlap=overlap)
    return Request(tokens, starts, ends, windows, skip)


@torch.inference_mode()
def embed(
    model: DeweyModel,
    requests: Sequence[Request],
    *,
    single_vector: str,
    batch_tokens: int,
    keep_states: bool = False,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> list[Embedded]:
    """One `Embedded` for each request, in their order.

    `on_tokens` gets the number of the texts' tokens in each batch when it is done. A batch that
    does not fit into a GPU's memory is tried again in halves.

    Raises:
        TextTooLongError: a single sequence does not fit into the GPU's memory.

    """
    use_threads()
    sequences = [
        s for text, request in enumerate(requests) for s in _sequences(model, text, request)
    ]
    pool = _Pool(model, requests)
    kept: dict[tuple[int, int], RunningSums] = {}
    sizes = [len(sequence.ids) for sequence in sequences]
    prepare(model.backbone, sum(sizes))
    waiting = fill_batches(sizes, batch_tokens)
    running: deque[_Reduced] = deque()
    while waiting:
        chosen = [sequences[i] for i in waiting[0]]
        try:
            packed = pack([s.ids for s in chosen], pool.device)
            hidden_TH = model(packed)
            running.append(pool.reduce(chosen, packed.starts, hidden_TH))
        except torch.OutOfMemoryError:
            waiting = _smaller(waiting, sizes, pool.device)
            continue
        del waiting[0]
        if keep_states:
            for sequence, start in zip(chosen, packed.starts, strict=True):
                own = hidden_TH[start + sequence.first : start + sequence.end]
                kept[sequence.text, sequence.window] = RunningSums(own.cpu().clone())
        ahead = sizes_of(pool.device).batches_ahead if waiting else 0
        while len(running) > ahead:
            on_tokens(pool.add(running.popleft()))
    return pool.finish(single_vector, kept)


def _sequences(model: DeweyModel, text: int, request: Request) -> list[_Sequence]:
    """The windows of a text with special tokens and prompt.

    A text without tokens gets no prompt, unless the document's vector is pooled from it, too.
    """
    tokens, (before, after) = request.tokens, model.config.special_ids
    prompted = len(tokens) or model.config.pooled_over != "text"
    prompt = tokens.prompt_ids if prompted else tokens.prompt_ids[:0]
    head = np.concatenate((before, prompt)).astype(np.int64)
    tail = np.array(after, np.int64)
    return [
        _Sequence(
            text,
            window,
            np.concatenate((head, tokens.ids[low:high], tail)),
            first=len(head),
            end=len(head) + int(high - low),
        )
        for window, (low, high) in enumerate(request.windows)
    ]


def _smaller(
    waiting: Sequence[Sequence[int]], sizes: Sequence[int], device: torch.device
) -> list[list[int]]:
    """New batches of half as many tokens as the first one, which did not fit."""
    first = waiting[0]
    if len(first) == 1:
        raise TextTooLongError(
            f"{sizes[first[0]]:,} tokens in one pass are more than the memory of {device} holds; "
            "load the model with a smaller max_tokens, and longer texts are read in windows, "
            'or with device="cpu"'
        )
    rest = [index for batch in waiting for index in batch]
    room = sum(sizes[index] for index in first) // 2
    return [[rest[i] for i in batch] for batch in fill_batches([sizes[i] for i in rest], room)]


@dataclass(frozen=True, slots=True)
class _Reduced:
    """A batch's results: CLS of its sequences, and sums over pieces of spans, by row."""

    texts: Tensor
    cls_BH: Tensor
    rows: Tensor
    sums_RH: Tensor
    num_tokens: int


class _Pool:
    """Sums of hidden states, gathered over the batches: for each text its CLS, mean and spans.

    Row `base[text]` belongs to the complete text, the rows after it to its spans. Where the
    document's vector is pooled from more than its text, the rows after `base[-1]` hold, text by
    text, the sums over special tokens and prompt, of all windows.
    """

    def __init__(self, model: DeweyModel, requests: Sequence[Request]) -> None:
        self.model, self.requests = model, requests
        self.device = next(model.parameters()).device
        self.around = model.config.pooled_over != "text"
        width = model.config.backbone.hidden_size
        self.base = np.cumsum([0, *(len(request.starts) + 1 for request in requests)])
        num_rows = int(self.base[-1]) + (len(requests) if self.around else 0)
        self.sums_RH = torch.zeros((num_rows, width), dtype=torch.float32)
        self.cls_BH = torch.zeros((len(requests), width), dtype=torch.float32)
        self.num_around = np.zeros(len(requests), np.int64)
        self.dropped = [self._dropped(request) for request in requests]
        self.pieces = [
            _pieces(request, dropped)
            for request, dropped in zip(requests, self.dropped, strict=True)
        ]

    def _dropped(self, request: Request) -> int:
        """The number of the text's own tokens that `skip` leaves out."""
        if not request.skip:
            return 0
        first = len(self.model.config.special_ids[0]) + len(request.tokens.prompt_ids)
        return min(max(request.skip - first, 0), len(request.tokens))

    def reduce(self, sequences: Sequence[_Sequence], starts: Rows, hidden_TH: Tensor) -> _Reduced:
        """The results of a batch, on its device; its sequences begin at `starts`."""
        rows, lows, highs = [], [], []
        heads = starts.copy()
        for place, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
            request, pieces = self.requests[sequence.text], self.pieces[sequence.text]
            own = pieces.window == sequence.window
            shift = start + sequence.first - request.windows[sequence.window, 0]
            rows.append(pieces.row[own] + self.base[sequence.text])
            lows.append(pieces.start[own] + shift)
            highs.append(pieces.end[own] + shift)
            if request.skip < len(sequence.ids):
                heads[place] += request.skip
            if self.around:
                bounds = np.array(
                    [(min(request.skip, sequence.first), sequence.first),
                     (min(max(request.skip, sequence.end), len(sequence.ids)), len(sequence.ids))]
                )  # fmt: skip
                rows.append(np.full(2, self.base[-1] + sequence.text))
                lows.append(bounds[:, 0] + start)
                highs.append(bounds[:, 1] + start)
                self.num_around[sequence.text] += int(np.diff(bounds).sum())
        first = torch.from_numpy(heads).to(hidden_TH.device, non_blocking=True)
        sums = RunningSums(hidden_TH).sums(_joined(lows), _joined(highs))
        return _Reduced(
            texts=torch.tensor([s.text for s in sequences]),
            cls_BH=hidden_TH[first].float(),
            rows=_joined(rows),
            sums_RH=sums.float(),
            num_tokens=sum(s.end - s.first for s in sequences),
        )

    def add(self, batch: _Reduced) -> int:
        """Add a batch's results; return the number of the texts' tokens in it."""
        self.cls_BH.index_add_(0, batch.texts, batch.cls_BH.cpu())
        self.sums_RH.index_add_(0, batch.rows, batch.sums_RH.cpu())
        return batch.num_tokens

    def finish(
        self, single_vector: str, kept: dict[tuple[int, int], RunningSums]
    ) -> list[Embedded]:
        """The vectors, once every batch has been added."""
        num_windows = torch.tensor([len(request.windows) for request in self.requests])
        sizes_R = torch.from_numpy(self._sizes())
        text_rows = torch.from_numpy(self.base[:-1])
        num_rows = int(self.base[-1])
        sums_RH = self.sums_RH[:num_rows]
        has_tokens = torch.tensor([len(request.tokens) > 0 for request in self.requests])
        if self.around:
            # A text in windows has its special tokens and its prompt once, as their mean.
            sums_RH[text_rows] += self.sums_RH[num_rows:] / num_windows.unsqueeze(1)
            sizes_R[text_rows] += torch.from_numpy(self.num_around) / num_windows
            has_tokens = torch.ones_like(has_tokens)  # as there: an empty mean is zero
        # Normalising undoes any scale, but a bias does not: divide sums into means.
        sums_RH /= sizes_R.clamp(min=1).unsqueeze(1)
        rows_RD = self._embed(sums_RH)
        cls_BD = self._embed(self.cls_BH / num_windows.unsqueeze(1))
        mean_BD = torch.where(has_tokens.unsqueeze(1), rows_RD[self.base[:-1]], cls_BD)
        vectors = SINGLE_VECTORS[single_vector].combine(cls_BD, mean_BD).numpy()
        chunks = rows_RD.numpy()
        return [
            Embedded(
                vectors[text],
                chunks[self.base[text] + 1 : self.base[text + 1]],
                KeptStates(request.windows, [kept[text, w] for w in range(len(request.windows))])
                if kept
                else None,
            )
            for text, request in enumerate(self.requests)
        ]

    def _sizes(self) -> Floats:
        """(R,) tokens of each row."""
        sizes = [
            np.concatenate(([len(request.tokens) - dropped], request.ends - request.starts))
            for request, dropped in zip(self.requests, self.dropped, strict=True)
        ]
        return np.concatenate(sizes).astype(np.float32)

    def _embed(self, pooled: Tensor) -> Tensor:
        """The head over any number of rows, a slice at a time, back on the host."""
        slices = pooled.split(HEAD_SLICE_ROWS)
        return torch.cat([self.model.embed(rows.to(self.device)).cpu() for rows in slices])


def _pieces(request: Request, dropped: int) -> Pieces:
    """Pieces of the text without its first `dropped` tokens (row 0), and of its spans.

    A text without tokens has no piece.
    """
    pieces = assign_pieces(
        np.concatenate((np.array([dropped], np.int64), request.starts)),
        np.concatenate((np.array([len(request.tokens)], np.int64), request.ends)),
        request.windows,
    )
    return Pieces(*(values[pieces.start < pieces.end] for values in pieces))


def _joined(arrays: Sequence[Rows]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))
