"""Token sequences + spans → vectors: the forward passes of encoding, batch by batch.

A text longer than the model takes is read in overlapping windows. Here a window is one sequence,
and a span's vector is the mean over its pieces. This module knows tokens and spans, not text.

Shape suffixes: B texts, C spans of a text, R rows (every text's own, its spans' and its
stretches'), T tokens, W windows, V several vectors of a text, H hidden width, D vector width.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dewey_embed.config import DeweyConfig
from dewey_embed.errors import TextTooLongError
from dewey_embed.model.control import PassControl
from dewey_embed.model.device import sizes_of, use_threads
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.engine import prepare
from dewey_embed.model.finite import first_fault, wider
from dewey_embed.model.packing import fill_batches, pack
from dewey_embed.model.pooling import RunningSums
from dewey_embed.model.windows import assign_pieces, owned_ranges, place_windows, plan_windows
from dewey_embed.single_vectors import SINGLE_VECTORS, SingleVectorKind
from dewey_embed.topics import stretches_of
from dewey_embed.types import Floats, Rows, Tokens, WindowStates

LONG_ROW = 16_384
"""Tokens of a row that takes seconds on a CPU."""

HEAD_SLICE_ROWS = 16_384


@dataclass(frozen=True)
class Request:
    """One text to embed: its tokens, and its spans as token ranges [starts, ends) (C,).

    The model reads at most `room` of its tokens at once. With `longest`, the most tokens of a span,
    windows are placed by the text's content. `known` are the states (S·H,) of windows by number
    that are not read again, as `WindowStates` has them; spans within them get no vectors.
    """

    tokens: Tokens
    starts: Rows
    ends: Rows
    room: int
    longest: int | None = None
    known: Mapping[int, Floats] = field(default_factory=dict)

    @cached_property
    def windows(self) -> Rows:
        """(W, 2): the token ranges that the model reads.

        They share an eighth of their length, or more where the longest span then fits into one of
        them; never more than half.
        """
        if self.longest is not None:
            overlap = min(self.room // 2, max(self.room // 8, self.longest))
            return place_windows(self.tokens.ids, size=self.room, overlap=overlap)
        longest = int((self.ends - self.starts).max(initial=0))
        overlap = min(self.room // 2, max(self.room // 8, longest))
        return plan_windows(len(self.tokens), size=self.room, overlap=overlap)

    @property
    def num_read(self) -> int:
        """Tokens of the text that the model reads, those in two windows twice."""
        sizes = np.diff(self.windows)[:, 0]
        return int(sizes.sum()) - sum(int(sizes[window]) for window in self.known)

    @property
    def keeps_states(self) -> bool:
        """Whether the states of windows are kept: where an edit would leave some as they are."""
        return self.longest is not None and len(self.windows) > 1


@dataclass(frozen=True, slots=True)
class KeptStates:
    """Running sums of a text's windows: any span of it can still be pooled."""

    windows: Rows
    sums: list[RunningSums]

    def means(self, starts: Rows, ends: Rows) -> Tensor:
        """(C, H) float32: means over token ranges of the text."""
        width = self.sums[0].hidden_TH.shape[1]
        total_CH = torch.zeros((len(starts), width), dtype=torch.float64)
        pieces = assign_pieces(starts, ends, self.windows)
        for window, sums in enumerate(self.sums):
            own = pieces.window == window
            first, last = (
                torch.from_numpy(bounds[own] - self.windows[window, 0])
                for bounds in (pieces.start, pieces.end)
            )
            total_CH.index_add_(0, torch.from_numpy(pieces.row[own]), sums.sums(first, last))
        return (total_CH / torch.from_numpy(ends - starts).unsqueeze(1)).float()


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text's unit vectors: `vector` (D,), `chunks` (C, D), float32; states if they were kept.

    `norms` (C,) are the lengths of the chunks' vectors before they were scaled to unit length.
    `vectors` (V, D) are those of a kind of single vector that has several. `windows` are there
    where the request keeps them. `fault` says what is wrong with them, where they are not finite or
    the text's own is zero.
    """

    vector: Floats
    chunks: Floats
    norms: Floats
    vectors: Floats | None
    windows: WindowStates | None
    states: KeptStates | None
    fault: str | None = None


@torch.inference_mode()
def embed(
    model: DeweyModel,
    requests: Sequence[Request],
    *,
    single_vector: str,
    batch_tokens: int,
    skip: int = 0,
    keep_states: bool = False,
    on_tokens: Callable[[int], None] = lambda _: None,
    control: PassControl | None = None,
) -> list[Embedded]:
    """One `Embedded` for each request, in their order.

    Where documents' vectors are pooled from more than their texts, the first `skip` ids that the
    model reads are left out of them. `on_tokens` gets the number of the texts' tokens in each batch
    when it is done, and of a long one in parts. A batch that does not fit into a GPU's memory is
    tried again in halves. Texts without sound vectors are read again alone, for a mate's values may
    have got into them. Another thread may pause or stop the passes by their `control`.

    Raises:
        PassStoppedError: the control stopped them.
        TextTooLongError: a single sequence does not fit into the GPU's memory.

    """
    run = partial(
        _passes, single_vector=single_vector, batch_tokens=batch_tokens, skip=skip,
        keep_states=keep_states, control=control,
    )  # fmt: skip
    return [
        each if _is_sound(each, request) else _alone(run, model, request)
        for each, request in zip(run(model, requests, on_tokens), requests, strict=True)
    ]


def _is_sound(embedded: Embedded, request: Request) -> bool:
    """Whether vectors are finite, and that of a text with tokens is not zero."""
    vector, chunks = embedded.vector, embedded.chunks
    is_finite = np.isfinite(vector).all() and np.isfinite(chunks).all()
    return bool(is_finite and (vector.any() or not len(request.tokens)))


def _alone(run: Callable[..., list[Embedded]], model: DeweyModel, request: Request) -> Embedded:
    """What a text gives alone; where float16 overflows, in a dtype that reaches further."""
    [own] = run(model, [request])
    if _is_sound(own, request):
        return own
    if next(model.parameters()).dtype == torch.float16:
        model = wider(model, partial(_fault, model, request))
        [own] = run(model, [request])
    return own if _is_sound(own, request) else replace(own, fault=_fault(model, request))


def _fault(model: DeweyModel, request: Request) -> str:
    """Why the model gives a text no sound vectors."""
    head, tail = _around(model.config, request.tokens)
    sequences = []
    for low, high in request.windows:
        ids = np.concatenate((head, request.tokens.ids[low:high], tail))
        places = np.full(len(ids), -1)
        places[len(head) : len(head) + high - low] = request.tokens.offsets[low:high, 0]
        sequences.append((ids, places))
    return first_fault(model, sequences)


def _passes(
    model: DeweyModel,
    requests: Sequence[Request],
    on_tokens: Callable[[int], None] = lambda _: None,
    *,
    single_vector: str,
    batch_tokens: int,
    skip: int,
    keep_states: bool,
    control: PassControl | None,
) -> list[Embedded]:
    """What each text gives, together with its batch mates."""
    use_threads()
    device = next(model.parameters()).device
    sums = _Sums(model, requests, skip, SINGLE_VECTORS[single_vector])
    sizes = [len(sequence.ids) for sequence in sums.sequences]
    prepare(model.backbone, sum(sizes))
    waiting = fill_batches(sizes, batch_tokens)
    running: deque[tuple[list[_Sequence], Tensor, Tensor, _Told]] = deque()
    num_layers = len(model.backbone.layers[: model.backbone.depth])
    if device.type != "cpu":  # which lags behind its host
        num_layers = 0
    kept: dict[int, RunningSums] = {}
    while waiting:
        batch = [sums.sequences[index] for index in waiting[0]]
        told = _Told(on_tokens, sum(each.end - each.first for each in batch), num_layers)
        try:
            packed = pack([sequence.ids for sequence in batch], device, control, told.layer_done)
            packed.check()
            hidden_TH = model(packed)
            packed.check()
            running.append((batch, *_reduce(batch, packed.starts, hidden_TH), told))
        except torch.OutOfMemoryError:
            waiting = _smaller(waiting, sizes, device)
            continue
        if keep_states:
            for index, sequence, start in zip(waiting[0], batch, packed.starts, strict=True):
                own_TH = hidden_TH[start + sequence.first : start + sequence.end]
                kept[index] = RunningSums(own_TH.cpu().clone())
        del waiting[0]
        ahead = sizes_of(device).batches_ahead if waiting else 0
        while len(running) > ahead:
            done, cls_BH, sums_RH, told = running.popleft()
            sums.add(done, cls_BH, sums_RH)
            told.all_done()
    states = iter([kept[index] for index in sorted(kept)])
    return [
        Embedded(
            *vectors,
            KeptStates(each.windows, [next(states) for _ in each.windows]) if kept else None,
        )
        for each, vectors in zip(requests, sums.vectors(), strict=True)
    ]


class _Told:
    """Tells how many of a batch's tokens are done: of a long row layer by layer, else at its end.

    One pass over 131,072 tokens takes minutes on a CPU.
    """

    def __init__(self, on_tokens: Callable[[int], None], num_tokens: int, num_layers: int) -> None:
        self._on_tokens, self._num_tokens = on_tokens, num_tokens
        self._num_layers = num_layers if num_tokens >= LONG_ROW else 0
        self._layers = self._tokens = 0

    def layer_done(self) -> None:
        """Tell the share of the layers that are done."""
        self._layers += 1
        if self._layers < self._num_layers:
            self._tell(self._num_tokens * self._layers // self._num_layers)

    def all_done(self) -> None:
        """Tell the rest."""
        self._tell(self._num_tokens)

    def _tell(self, reached: int) -> None:
        self._on_tokens(reached - self._tokens)
        self._tokens = reached


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
class _Sequence:
    """Window `number` of one text, as the model reads it: special tokens, prompt, tokens, SEP.

    Of its ids [first, end) are the text's own, and `cls` stands for the document. The states of
    its ids [starts, ends) are added to the sums in `rows`.
    """

    text: int
    number: int
    ids: Rows
    first: int
    end: int
    cls: int
    rows: Rows
    starts: Rows
    ends: Rows


def _sequences(
    config: DeweyConfig,
    request: Request,
    text: int,
    *,
    ranges: Rows,
    skip: int,
    row: int,
    row_around: int | None,
) -> Iterator[_Sequence]:
    """A text's windows; `row` is that of the complete text, those of its `ranges` come after it.

    Where the document's vector is pooled from special tokens and prompt, too, their sums have the
    row `row_around`.
    """
    tokens = request.tokens
    head, tail = _around(config, tokens)
    first = len(head)
    skipped = min(max(skip - first, 0), len(tokens))
    pieces = assign_pieces(
        np.concatenate(([skipped], ranges[:, 0])),
        np.concatenate(([len(tokens)], ranges[:, 1])),
        request.windows,
    )
    for window, (low, high) in enumerate(request.windows):
        ids = np.concatenate((head, tokens.ids[low:high], tail))
        end = first + int(high - low)
        own = (pieces.window == window) & (pieces.start < pieces.end)
        rows, starts, ends = pieces.row[own] + row, pieces.start[own], pieces.end[own]
        starts, ends = starts + (first - low), ends + (first - low)
        if row_around is not None:
            rows = np.concatenate((rows, [row_around] * 2))
            starts = np.concatenate((starts, [min(skip, first), min(max(skip, end), len(ids))]))
            ends = np.concatenate((ends, [first, len(ids)]))
        cls = skip if skip < len(ids) else 0
        yield _Sequence(text, window, ids, first, end, cls, rows, starts, ends)


def window_keys(config: DeweyConfig, request: Request, skip: int) -> list[bytes]:
    """For each window 16 bytes of a hash of all that its states depend on, beside the model."""
    head, tail = _around(config, request.tokens)
    keys = []
    for (low, high), (start, end) in zip(
        request.windows, owned_ranges(request.windows), strict=True
    ):
        places = struct.pack("<4q", len(head), skip, start - low, end - low)
        ids = np.concatenate((head, request.tokens.ids[low:high], tail)).astype("<i8")
        keys.append(hashlib.blake2b(places + ids.tobytes(), digest_size=16).digest())
    return keys


def num_states(config: DeweyConfig) -> int:
    """S·H, the numbers that `WindowStates` has of one window."""
    kind, around = SINGLE_VECTORS[config.single_vector], config.pooled_over != "text"
    return (1 + kind.reads_cls + around) * config.backbone.hidden_size


def _around(config: DeweyConfig, tokens: Tokens) -> tuple[Rows, Rows]:
    """What is read before and after each window of a text: special tokens and prompt.

    A text without tokens gets no prompt, unless the document's vector is pooled from it.
    """
    before, after = config.special_ids
    prompt = tokens.prompt_ids if len(tokens) or config.pooled_over != "text" else ()
    return np.array([*before, *prompt], np.int64), np.array(after, np.int64)


def _reduce(batch: Sequence[_Sequence], begins: Rows, hidden_TH: Tensor) -> tuple[Tensor, Tensor]:
    """CLS of a batch's sequences, and the sums for all their rows, on the states' device."""
    placed = list(zip(batch, begins, strict=True))
    cls = torch.from_numpy(np.array([begin + sequence.cls for sequence, begin in placed]))
    starts, ends = (
        torch.from_numpy(np.concatenate(bounds))
        for bounds in (
            [sequence.starts + begin for sequence, begin in placed],
            [sequence.ends + begin for sequence, begin in placed],
        )
    )
    cls_BH = hidden_TH[cls.to(hidden_TH.device, non_blocking=True)].float()
    return cls_BH, RunningSums(hidden_TH).sums(starts, ends).float()


class _Sums:
    """Sums of hidden states, gathered over the batches: for each text its CLS, mean and spans.

    Row `first_rows[text]` belongs to the complete text, the rows after it to its spans and, where
    the `kind` of single vector needs them, to its stretches. Where the document's vector is pooled
    from more than its text, the rows after all those hold, text by text, the sums over special
    tokens and prompt, of all windows.
    """

    def __init__(
        self, model: DeweyModel, requests: Sequence[Request], skip: int, kind: SingleVectorKind
    ) -> None:
        self.model, self.requests, self.kind, self.skip = model, requests, kind, skip
        self.around = model.config.pooled_over != "text"
        ranges = [_ranges(request, kind) for request in requests]
        self.first_rows = np.cumsum([0, *(len(own) + 1 for own in ranges)])
        self.num_rows, num_texts = int(self.first_rows[-1]), len(requests)
        windows = [
            sequence
            for text, request in enumerate(requests)
            for sequence in _sequences(
                model.config,
                request,
                text,
                ranges=ranges[text],
                skip=skip,
                row=int(self.first_rows[text]),
                row_around=self.num_rows + text if self.around else None,
            )
        ]
        width = model.config.backbone.hidden_size
        self.sums_RH = torch.zeros(self.num_rows + num_texts * self.around, width)
        self.sizes_R = torch.zeros(len(self.sums_RH))
        self.cls_BH = torch.zeros(num_texts, width)
        self.states: list[dict[int, Tensor]] = [{} for _ in requests]
        self.sequences = []
        for each in windows:
            if (known := requests[each.text].known.get(each.number)) is None:
                self.sequences.append(each)
            else:
                self._take(each, torch.tensor(known).view(-1, width))

    def _take(self, sequence: _Sequence, states_SH: Tensor) -> None:
        """Add the states of a window that is not read."""
        text = sequence.text
        sums = {int(self.first_rows[text]): states_SH[0]}
        if self.kind.reads_cls:
            self.cls_BH[text] += states_SH[1]
        if self.around:
            sums[self.num_rows + text] = states_SH[-1]
        for row, sum_H in sums.items():
            own = sequence.rows == row
            self.sums_RH[row] += sum_H
            self.sizes_R[row] += float((sequence.ends - sequence.starts)[own].sum())
        self.states[text][sequence.number] = states_SH

    def _note(self, sequence: _Sequence, cls_H: Tensor, sums_RH: Tensor) -> None:
        """Keep the states that `_take` takes."""
        text = sequence.text
        rows = torch.from_numpy(sequence.rows)
        own = [sums_RH[rows == self.first_rows[text]].sum(0)]
        if self.kind.reads_cls:
            own.append(cls_H)
        if self.around:
            own.append(sums_RH[rows == self.num_rows + text].sum(0))
        self.states[text][sequence.number] = torch.stack(own)

    def add(self, batch: Sequence[_Sequence], cls_BH: Tensor, sums_RH: Tensor) -> None:
        """Add a batch's results."""
        rows, sizes = (
            torch.from_numpy(np.concatenate(values))
            for values in ([s.rows for s in batch], [s.ends - s.starts for s in batch])
        )
        cls_BH, sums_RH = cls_BH.cpu(), sums_RH.cpu()
        for own, cls_H, own_RH in zip(
            batch, cls_BH, sums_RH.split([len(s.rows) for s in batch]), strict=True
        ):
            if self.requests[own.text].keeps_states:
                self._note(own, cls_H, own_RH)
        self.cls_BH.index_add_(0, torch.tensor([s.text for s in batch]), cls_BH)
        self.sums_RH.index_add_(0, rows, sums_RH)
        self.sizes_R.index_add_(0, rows, sizes.float())

    def vectors(
        self,
    ) -> Iterator[tuple[Floats, Floats, Floats, Floats | None, WindowStates | None]]:
        """Each text's vector (D,), its spans' (C, D), their norms (C,), its several vectors (V, D).

        Last come its windows, where they are kept. Norms are the vectors' lengths before they were
        unit. The sums become means in place.
        """
        num_windows = torch.tensor([len(request.windows) for request in self.requests])
        texts = torch.from_numpy(self.first_rows[:-1])
        sums_RH, sizes_R = self.sums_RH[: self.num_rows], self.sizes_R[: self.num_rows]
        if self.around:
            # A text in windows has its special tokens and its prompt once, as their mean.
            sums_RH[texts] += self.sums_RH[self.num_rows :] / num_windows.unsqueeze(1)
            sizes_R[texts] += self.sizes_R[self.num_rows :] / num_windows
        # Normalising undoes any scale, but a bias does not: divide sums into means.
        sums_RH /= sizes_R.clamp(min=1).unsqueeze(1)
        projected_RD = self._project(sums_RH)
        norms_R = projected_RD.norm(dim=1).numpy()
        rows_RD = functional.normalize(projected_RD, dim=-1)
        cls_BD = functional.normalize(self._project(self.cls_BH / num_windows.unsqueeze(1)), dim=-1)
        mean_BD = rows_RD[texts]
        if not self.around:  # in Sentence Transformers, too, an empty mean is zero
            blank = sizes_R[texts] == 0
            mean_BD[blank] = cls_BD[blank]
        documents_BD = self.kind.combine(cls_BD, mean_BD).numpy()
        for text, request in enumerate(self.requests):
            first, last = self.first_rows[text] + 1, self.first_rows[text + 1]
            end = first + len(request.starts)
            own, chunks, stretches = documents_BD[text], rows_RD[first:end], rows_RD[end:last]
            several = self.kind.several and self.kind.several(stretches.numpy(), own)
            windows = self._windows(text) if request.keeps_states else None
            yield own, chunks.numpy(), norms_R[first:end], several, windows

    def _windows(self, text: int) -> WindowStates:
        """What each window of a text gave to its document's vector."""
        request, states = self.requests[text], self.states[text]
        keys = window_keys(self.model.config, request, self.skip)
        ordered = torch.stack([states[number] for number in range(len(keys))])
        return WindowStates(request.windows, keys, ordered.flatten(1).numpy())

    def _project(self, pooled: Tensor) -> Tensor:
        """The head over any number of rows, a slice at a time, back on the host."""
        slices, place = pooled.split(HEAD_SLICE_ROWS), next(self.model.parameters()).device
        return torch.cat([self.model.project(rows.to(place)).cpu() for rows in slices])


def _ranges(request: Request, kind: SingleVectorKind) -> Rows:
    """Token ranges of a text's spans (C, 2) and, where the kind needs them, of its stretches."""
    spans = np.stack([request.starts, request.ends], axis=1)
    if kind.several is None:
        return spans
    return np.concatenate([spans, stretches_of(len(request.tokens))])
