"""A text and its tokens → the spans to embed, and what to do when it is too long for the model.

The one place where texts meet windows: training and encoding both cut their documents here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import TypeIs

from dewey_embed.config import EncodeOptions
from dewey_embed.errors import ConfigError, InputError, TextTooLongError
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.inference import KeptStates, Request, make_request
from dewey_embed.quantization import truncate
from dewey_embed.text.splitter import Splitter, spans_from_characters, split
from dewey_embed.types import Overflow, Span, Tokens

CharSpans = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Chunked:
    """A text cut into spans (C), with the granularity (C,) that each was cut for."""

    spans: list[Span]
    granularity: NDArray[np.int32]
    request: Request
    num_chars: int  # of what is left of the text where it was truncated
    num_tokens: int
    overflow: Literal["windows", "truncate"] | None


class TextStates:
    """What `DocumentVectors.pool` calls: character ranges of one text → unit vectors."""

    def __init__(
        self, model: DeweyModel, chunked: Chunked, kept: KeptStates, truncate_dim: int | None
    ) -> None:
        self.model, self.kept, self.truncate_dim = model, kept, truncate_dim
        self.tokens, self.num_chars = chunked.request.tokens, chunked.num_chars

    @torch.inference_mode()
    def pool(self, char_spans: CharSpans) -> NDArray[np.float32]:
        """(len(char_spans), D) float32, unit length."""
        spans = spans_from_characters(self.tokens, char_spans, num_chars=self.num_chars)
        starts, ends = _bounds(spans)
        device = next(self.model.parameters()).device
        vectors = self.model.embed(self.kept.means(starts, ends).to(device))
        return truncate(vectors.cpu().numpy(), self.truncate_dim)


def chunk_documents(
    texts: Sequence[str],
    tokens: Sequence[Tokens],
    splitter: Splitter | Sequence[CharSpans],
    options: EncodeOptions,
    *,
    max_tokens: int,
    num_special: int,
    skip: int = 0,
) -> list[Chunked]:
    """Every text cut as the options say, with one splitter, or its own ranges for each text.

    `skip` is as in `Request`.

    Raises:
        ConfigError: there are ranges for another number of texts.
        TextTooLongError, SpanError: as `chunk_document` says, with the text's position.

    """
    cutters: Sequence[Splitter | CharSpans]
    cutters = [splitter] * len(texts) if is_splitter(splitter) else splitter
    if len(cutters) != len(texts):
        raise ConfigError(
            f"splitter has ranges for {len(cutters)} texts, but there are {len(texts)}"
        )
    sizes = list(zip(options.chunk_tokens, options.chunk_overlap, strict=True))
    chunked = []
    for position, text in enumerate(texts):
        try:
            chunked.append(
                chunk_document(
                    text,
                    tokens[position],
                    splitter=cutters[position],
                    sizes=sizes,
                    max_tokens=max_tokens,
                    num_special=num_special,
                    overflow=options.overflow,
                    skip=skip,
                )
            )
        except InputError as error:
            raise type(error)(f"text {position}: {error}") from None
    return chunked


def is_splitter(value: Splitter | Sequence[Any]) -> TypeIs[Splitter]:
    """Whether `value` cuts any text, rather than being ranges of certain ones."""
    return isinstance(value, str) or callable(value)


def chunk_document(
    text: str,
    tokens: Tokens,
    *,
    splitter: Splitter | CharSpans,
    sizes: Sequence[tuple[int, int]],
    max_tokens: int,
    num_special: int,
    overflow: Overflow,
    skip: int,
) -> Chunked:
    """The spans of one text at each of `sizes` (chunk tokens, overlap), ready to be embedded.

    `max_tokens` counts all that the model reads: CLS, the prompt, the text, SEP, `num_special` of
    them special tokens. Ranges of characters in place of a `splitter` are taken as they are, once.

    Raises:
        TextTooLongError: the text does not fit and `overflow` is `"error"`, or the prompt leaves
            no room for any text.
        SpanError: a range of characters lies outside the text, or what is left of it.

    """
    num_tokens = len(tokens)
    room = max_tokens - num_special - len(tokens.prompt_ids)
    if room < 2:
        raise TextTooLongError(
            f"the prompt has {len(tokens.prompt_ids)} tokens and the model takes {max_tokens}, "
            f"{num_special} special ones among them: no room is left for a text; use a shorter "
            "prompt, or load the model with more max_tokens"
        )
    if num_tokens + num_special == 0:
        raise InputError(
            "holds no token, and the model's tokenizer puts no special token around it: there is "
            "nothing to make a vector of; leave it out"
        )
    happened: Literal["windows", "truncate"] | None = None
    if num_tokens > room:
        if overflow == "error":
            raise TextTooLongError(
                f"a text has {num_tokens:,} tokens, the limit is {room:,}; "
                'pass overflow="windows" to read all of it in overlapping windows, '
                'or overflow="truncate" to leave its end out'
            )
        happened = overflow
    if happened == "truncate":
        text, tokens = _truncate(text, tokens, room)
    spans, granularity = _cut(text, tokens, splitter, sizes)
    starts, ends = _bounds(spans)
    request = make_request(tokens, starts, ends, room=room, skip=skip)
    return Chunked(spans, granularity, request, len(text), num_tokens, happened)


def _bounds(spans: Sequence[Span]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends (C,) of spans, in tokens."""
    bounds = np.array([(s.token_start, s.token_end) for s in spans], np.int64).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1]


def _truncate(text: str, tokens: Tokens, room: int) -> tuple[str, Tokens]:
    """The text up to its `room`-th token, and those tokens."""
    offsets = tokens.offsets[:room]
    kept = Tokens(ids=tokens.ids[:room], offsets=offsets, prompt_ids=tokens.prompt_ids)
    return text[: offsets[-1, 1]], kept


def _cut(
    text: str,
    tokens: Tokens,
    splitter: Splitter | CharSpans,
    sizes: Sequence[tuple[int, int]],
) -> tuple[list[Span], NDArray[np.int32]]:
    """All spans, granularity after granularity, and the number of each one's granularity."""
    if not is_splitter(splitter):
        levels = [spans_from_characters(tokens, splitter, num_chars=len(text))]
    else:
        levels = [
            split(
                text,
                tokens,
                splitter=splitter,
                chunk_tokens=size,
                chunk_overlap=overlap,
            )
            for size, overlap in sizes
        ]
    spans = [span for level in levels for span in level]
    counts = [len(level) for level in levels]
    return spans, np.repeat(np.arange(len(levels), dtype=np.int32), counts)
