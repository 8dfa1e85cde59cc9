"""Texts and their tokens → spans to embed, within the number of tokens that the model takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dewey_embed.config import MIN_TOKENS, DeweyConfig, EncodeOptions
from dewey_embed.errors import ConfigError, InputError, TextTooLongError
from dewey_embed.model.dewey import DeweyModel
from dewey_embed.model.inference import KeptStates, Request
from dewey_embed.printable import first_few, short_repr
from dewey_embed.quantization import truncate
from dewey_embed.text.splitter import spans_from_characters, split
from dewey_embed.text.tokenizer import TitleIds, Tokenizer
from dewey_embed.titles import untitled
from dewey_embed.types import (
    CharSpans,
    Document,
    Floats,
    Landmark,
    Overflow,
    Rows,
    Span,
    Tokens,
    WindowCuts,
)

TITLE_TOKENS = 64
"""Most tokens of a title that are read above a text, and above each of its windows; it has at most
a quarter of a window, too."""

MOST_NAMED = 3
"""Positions of texts that a warning names; the others are counted."""


class Texts(NamedTuple):
    """Texts, the landmarks of each, and whether there was one alone."""

    texts: list[str]
    landmarks: list[Sequence[Landmark]]
    single: bool


def texts_of(texts: str | Document | Iterable[str | Document]) -> Texts:
    """The texts as a list, with what is known of each.

    Raises:
        TypeError: an item is not a text; names its position.

    """
    if isinstance(texts, str):
        return Texts([texts], [()], True)
    if isinstance(texts, Document):
        return Texts([texts.text], [texts.landmarks], True)
    if _is_no_list(texts):
        raise TypeError(
            f"texts is a {type(texts).__name__}; pass a list of strings: of a dict "
            "list(texts.values()), of a table one column, of bytes their decoded text"
        )
    if not isinstance(texts, Iterable):
        raise TypeError(f"texts is {type(texts).__name__}; pass a string or a list of strings")
    given = list(texts)
    many = [text.text if isinstance(text, Document) else text for text in given]
    for position, text in enumerate(many):
        if not isinstance(text, str):
            raise TypeError(
                f"texts[{position}] is {type(text).__name__}, not str; decode or convert it first"
            )
    return Texts(
        many, [text.landmarks if isinstance(text, Document) else () for text in given], False
    )


def _is_no_list(given: object) -> bool:
    """Whether it is a dict, a set, bytes or a table, which can be iterated over, too."""
    return isinstance(given, Mapping | Set | bytes | bytearray) or hasattr(given, "columns")


def ranges_of(
    spans: CharSpans | Sequence[CharSpans] | None, num_texts: int, *, single: bool, splitter: object
) -> Sequence[CharSpans | None]:
    """The ranges of each text, or None for each where a splitter cuts them.

    Raises:
        ConfigError: there are ranges for another number of texts, or a splitter beside them.
        TypeError: spans is not a list of ranges, or of lists of them where there are several texts.

    """
    if spans is None:
        return [None] * num_texts
    if splitter != "tokens":
        raise ConfigError("splitter and spans are both given: spans are embedded as they are")
    each_text = "" if single else " for each text"
    try:
        ranges = [
            each if isinstance(each, np.ndarray) else list(each)
            for each in ([spans] if single else spans)
        ]
    except TypeError:
        raise TypeError(
            f"spans is {short_repr(spans)}; pass a list of (char_start, char_end) pairs{each_text}"
        ) from None
    if len(ranges) != num_texts:
        raise ConfigError(f"spans has ranges for {len(ranges)} texts, but there are {num_texts}")
    if not single and any(len(each) and isinstance(each[0], Integral) for each in ranges):
        raise TypeError(
            f"spans is {short_repr(spans)}, one list of ranges for a list of texts; pass a list of "
            "ranges for each text"
        )
    return cast(Sequence[CharSpans], ranges)


def titles_of(titles: str | Iterable[str] | None, num_texts: int, *, single: bool) -> Sequence[str]:
    """The title of each text, "" for none.

    Raises:
        ConfigError: there are titles for another number of texts.
        TypeError: a title is not a string, or there is one for several texts.

    """
    if titles is None:
        return [""] * num_texts
    if not single and (
        isinstance(titles, str) or _is_no_list(titles) or not isinstance(titles, Iterable)
    ):
        raise TypeError(
            f'titles is {type(titles).__name__}; pass a string for each text, "" where it has none'
        )
    given: list[object] = [titles] if single else list(titles)
    for position, title in enumerate(given):
        if not isinstance(title, str):
            name = "titles" if single else f"titles[{position}]"
            raise TypeError(
                f'{name} is {short_repr(title)}, not str; pass a string, "" where there is none'
            )
    if len(given) != num_texts:
        raise ConfigError(f"titles has {len(given)} titles, but there are {num_texts} texts")
    return cast(list[str], given)


@dataclass(frozen=True, slots=True)
class FittedText:
    """What the model reads of a text: all of it, in windows of `room` tokens, or its beginning.

    `num_tokens` are those of the complete text.
    """

    text: str
    tokens: Tokens
    room: int
    num_tokens: int
    overflow: Literal["windows", "truncate"] | None


@dataclass(frozen=True, slots=True)
class ChunkedText:
    """A text with its spans (C,), and the granularity (C,) that each belongs to."""

    fitted: FittedText
    spans: list[Span]
    granularity: NDArray[np.int32]
    request: Request


def fit_texts(
    tokenizer: Tokenizer,
    config: DeweyConfig,
    texts: Sequence[str],
    *,
    prompt: str,
    overflow: Overflow,
    window: int | None = None,
    titles: Sequence[str] = (),
    depth: int = 1,
) -> list[FittedText]:
    """The texts with their tokens, as far as the model reads them; warns of blank ones.

    The model reads at most `window` tokens at once, special ones, the prompt and the text's title
    among them; the default is `config.window`. A warning names the line that called the function
    `depth` calls above this one.

    Raises:
        ConfigError: `window` is less than the smallest of windows, or more than the model takes.
        TextTooLongError: a text does not fit and `overflow` is `"error"`, or the prompt leaves
            no room for any text.
        InputError: a text has no token at all to make a vector of.

    """
    if window is None:
        window = config.window
    elif not MIN_TOKENS <= window <= config.max_tokens:
        raise ConfigError(
            f"window is {window}; the model reads from {MIN_TOKENS} to {config.max_tokens:,} "
            "tokens at once"
        )
    if any(titles) and tokenizer.marks_titles:  # a text has one title
        pairs = zip(texts, titles, strict=True)
        read = [untitled(text) if title.strip() else text for text, title in pairs]
    else:
        read = list(texts)
    tokens = tokenizer.encode(read, prompt=prompt)
    if any(titles):
        around = sum(map(len, config.special_ids)) + len(tokens[0].prompt_ids)
        room = max(0, window - around)
        above = tokenizer.encode_titles(titles, min(TITLE_TOKENS, room // 4))
        tokens = _under_titles(tokens, above, stacklevel=depth + 3)
    if blank := [position for position, each in enumerate(tokens) if not len(each)]:
        own = config.pooled_over == "text"
        warnings.warn(
            f"{len(blank)} of {len(texts)} texts hold no token ({_positions(blank)}): their "
            f"vectors come from {'CLS' if own else 'special tokens and the prompt'} alone, "
            "without chunks",
            stacklevel=depth + 2,
        )
    fitted = []
    for position, text in enumerate(texts):
        with _naming_text(position):
            fitted.append(_fit(text, tokens[position], config, overflow, window))
    return fitted


def _under_titles(
    tokens: Sequence[Tokens], titles: Sequence[TitleIds], *, stacklevel: int
) -> list[Tokens]:
    """Each text with its title after the prompt: read in every window, and in no span.

    A warning counts titles that are cut.
    """
    if cut := [position for position, title in enumerate(titles) if title.is_cut]:
        most = max(len(title.ids) for title in titles)
        warnings.warn(
            f"{len(cut):,} of {len(titles):,} titles are longer than the {most} tokens that are "
            f"read above their texts ({_positions(cut)}): their ends are not read; give shorter "
            f"ones{'' if most == TITLE_TOKENS else ', or a larger window'}",
            stacklevel=stacklevel,
        )
    return [
        replace(own, prompt_ids=np.concatenate((own.prompt_ids, title.ids)))
        for own, title in zip(tokens, titles, strict=True)
    ]


def _positions(positions: Sequence[int]) -> str:
    """The first few positions, and how many more there are.

    >>> _positions([0]), _positions([0, 2, 5, 9])
    ('position 0', 'positions 0, 2, 5 and 1 more')
    """
    named = first_few([str(each) for each in positions], MOST_NAMED)
    return f"position{'s' if len(positions) > 1 else ''} {named}"


def _fit(
    text: str, tokens: Tokens, config: DeweyConfig, overflow: Overflow, window: int
) -> FittedText:
    """A text within the model's limit, which counts special tokens and the prompt, too."""
    num_special = sum(map(len, config.special_ids))
    around = num_special + len(tokens.prompt_ids)
    room = config.max_tokens - around
    window_room = window - around
    if room < 2:
        raise TextTooLongError(
            f"the prompt has {len(tokens.prompt_ids)} tokens and the model takes "
            f"{config.max_tokens}, {num_special} special ones among them: no room is left for a "
            "text; use a shorter prompt, or load the model with more max_tokens"
        )
    if window_room < 2:
        raise ConfigError(
            f"window is {window} and the prompt has {len(tokens.prompt_ids)} tokens, beside "
            f"{num_special} special ones: no room is left for a text; use a larger window"
        )
    num_tokens = len(tokens)
    if num_tokens + num_special == 0:
        raise InputError(
            "holds no token, and the model's tokenizer puts no special token around it: there is "
            "nothing to make a vector of; leave it out"
        )
    if num_tokens <= room:
        return FittedText(text, tokens, min(room, window_room), num_tokens, None)
    if overflow == "error":
        raise TextTooLongError(
            f"a text has {num_tokens:,} tokens, the limit is {room:,}; "
            'pass overflow="windows" to read all of it in overlapping windows, '
            'or overflow="truncate" to leave its end out'
        )
    if overflow == "truncate":
        offsets = tokens.offsets[:room]
        text = text[: offsets[-1, 1]]
        tokens = Tokens(ids=tokens.ids[:room], offsets=offsets, prompt_ids=tokens.prompt_ids)
    return FittedText(text, tokens, min(room, window_room), num_tokens, overflow)


def chunk_texts(
    texts: Sequence[FittedText],
    options: EncodeOptions,
    ranges: Sequence[CharSpans | None],
    landmarks: Sequence[Sequence[Landmark]],
    window_cuts: WindowCuts = "even",
) -> list[ChunkedText]:
    """The texts with their spans: one for each of their ranges, or else the splitter's.

    Raises:
        ConfigError: the splitter is unknown, or the way to cut windows.
        SpanError: a range of characters lies outside its text, or what is left of it.

    """
    if window_cuts not in get_args(WindowCuts):
        raise ConfigError(
            f"window_cuts {window_cuts!r} is unknown; accepted: {', '.join(get_args(WindowCuts))}"
        )
    chunked = []
    for position, fitted in enumerate(texts):
        with _naming_text(position):
            one = _chunk(fitted, options, ranges[position], landmarks[position], window_cuts)
            chunked.append(one)
    return chunked


def _chunk(
    fitted: FittedText,
    options: EncodeOptions,
    ranges: CharSpans | None,
    landmarks: Sequence[Landmark],
    window_cuts: WindowCuts,
) -> ChunkedText:
    text, tokens = fitted.text, fitted.tokens
    # Not the longest span there is: one sentence that grows would move all windows.
    longest = max(options.chunk_tokens) if window_cuts == "content" else None
    if ranges is not None:
        levels = [spans_from_characters(tokens, ranges, num_chars=len(text))]
    else:
        levels = [
            split(
                text,
                tokens,
                splitter=options.splitter,
                chunk_tokens=size,
                chunk_overlap=overlap,
                landmarks=landmarks,
            )
            for size, overlap in zip(options.chunk_tokens, options.chunk_overlap, strict=True)
        ]
    spans = [span for level in levels for span in level]
    request = Request(tokens, *_bounds(spans), fitted.room, longest)
    counts = [len(level) for level in levels]
    granularity = np.repeat(np.arange(len(levels), dtype=np.int32), counts)
    return ChunkedText(fitted, spans, granularity, request)


def document_request(fitted: FittedText) -> Request:
    """The request for a text's own vector, without chunks."""
    return Request(fitted.tokens, *_bounds([]), fitted.room)


@torch.inference_mode()
def pool_spans(
    model: DeweyModel,
    fitted: FittedText,
    kept: KeptStates,
    truncate_dim: int | None,
    char_spans: CharSpans,
) -> Floats:
    """Unit vectors (len(char_spans), D) float32 of ranges of a text's characters."""
    spans = spans_from_characters(fitted.tokens, char_spans, num_chars=len(fitted.text))
    means = kept.means(*_bounds(spans)).to(next(model.parameters()).device)
    return truncate(model.embed(means).cpu().numpy(), truncate_dim)


@contextmanager
def _naming_text(position: int) -> Iterator[None]:
    """Name a text by its position in the errors that its content raises within the block."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"text {position}: {error}") from None


def _bounds(spans: Sequence[Span]) -> tuple[Rows, Rows]:
    """Starts and ends (C,) of spans, in tokens."""
    bounds = np.array([(s.token_start, s.token_end) for s in spans], np.int64).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1]
