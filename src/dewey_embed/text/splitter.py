"""Tokens → spans: fixed windows, paragraphs and lines, whole words, or the caller's own ranges.

Everything is counted in the document's own tokens: a splitter chooses *units* that stay whole
(characters, words, paragraphs), given by their bounds (U + 1,) from 0 to T, and fills chunks with
them. So sizes are exact, and characters are read off the tokens' offsets at the end. A new splitter
is a function and a row of `SPLITTERS`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from dewey_embed.errors import ConfigError, SpanError
from dewey_embed.text.characters import code_points, white_space
from dewey_embed.text.sentences import sentence_starts, unit_starts
from dewey_embed.types import Landmark, Span, Splitter, Tokens

_Numbers = NDArray[np.int64]
Chunks = tuple[_Numbers, _Numbers]
"""Starts and ends of chunks, in tokens."""


class _Text(NamedTuple):
    """What a splitter knows of a text."""

    text: str
    tokens: Tokens
    landmarks: Sequence[Landmark]


def split(
    text: str,
    tokens: Tokens,
    *,
    splitter: Splitter = "tokens",
    chunk_tokens: int,
    chunk_overlap: int = 0,
    landmarks: Sequence[Landmark] = (),
) -> list[Span]:
    """The spans of a text, in order; none for a text without tokens.

    `tokens` are the text's own. A splitter by name covers every token, keeps each span within
    `chunk_tokens` tokens and the overlap of neighbours within `chunk_overlap`, and never makes a
    span that lies inside another:

    - `"tokens"`: windows of `chunk_tokens` every `chunk_tokens - chunk_overlap`; where several
      tokens share a character (the bytes of an emoji) a window ends before it, not within;
    - `"sentences"`: as many whole sentences as fit, overlapping in whole sentences;
    - `"sentence"`: each sentence alone, without overlap;
    - `"words"`: as many whole words as fit, overlapping in whole words;
    - `"recursive"`: paragraphs, else lines, else words, together as long as they fit in
      `chunk_tokens - chunk_overlap`; each then starts up to `chunk_overlap` tokens earlier, at a
      word.

    With the text's `landmarks` a sentence also begins at a heading and after it, at a slide, a
    sheet, a notebook's cell and a row of a table.

    A sentence with more than `chunk_tokens` tokens is cut between words; a word or character, too,
    between tokens. The ranges of a function are used as they come, each as in
    `spans_from_characters`; sizes are its own.

    Raises:
        ConfigError: an unknown splitter, or sizes that leave nothing to advance by.
        SpanError: a function's range that is empty, reversed, outside, or without tokens.

    """
    if chunk_tokens < 1 or not 0 <= chunk_overlap < chunk_tokens:
        raise ConfigError(
            f"chunk_tokens {chunk_tokens} with chunk_overlap {chunk_overlap}: "
            "need chunk_tokens >= 1 and 0 <= chunk_overlap < chunk_tokens"
        )
    if callable(splitter):
        ranges = list(splitter(text)) if len(tokens) else []
        return spans_from_characters(tokens, ranges, num_chars=len(text))
    cut = SPLITTERS[known_splitter(splitter)]
    if not len(tokens):
        return []
    return _spans(tokens, *cut(_Text(text, tokens, landmarks), chunk_tokens, chunk_overlap))


def known_splitter(name: str) -> str:
    """The name of a splitter.

    Raises:
        ConfigError: it is unknown; lists all.

    """
    if name not in SPLITTERS:
        raise ConfigError(
            f"splitter is {name!r}; use {', '.join(map(repr, SPLITTERS))}, "
            "or in Python a function from a text to its character ranges"
        )
    return name


def spans_from_characters(
    tokens: Tokens, char_spans: Sequence[tuple[int, int]], *, num_chars: int
) -> list[Span]:
    """One span for each character range, in the same order: every token that the range touches.

    A span's characters are those of its tokens, so they may reach a little past the range where
    it cuts a token, and leave out white space at its ends. Ranges may overlap and come in any
    order. `num_chars` is the length of the text.

    Raises:
        SpanError: a range is empty, reversed, outside the text, or holds no token.
        TypeError: a range is not a pair of integers.

    """
    if not len(char_spans):
        return []
    ranges = _as_pairs(char_spans)
    bad = (ranges[:, 0] < 0) | (ranges[:, 0] >= ranges[:, 1]) | (ranges[:, 1] > num_chars)
    if bad.any():
        row = int(np.argmax(bad))
        start, end = map(int, char_spans[row])  # as given: too large a number has been clipped
        _refuse(row, start, end, num_chars)
    starts = np.searchsorted(tokens.offsets[:, 1], ranges[:, 0], side="right")
    ends = np.searchsorted(tokens.offsets[:, 0], ranges[:, 1], side="left")
    without = starts >= ends
    if without.any():
        row = int(np.argmax(without))
        raise SpanError(
            f"range {row} is {tuple(ranges[row].tolist())}: it holds no token, only white space or "
            "characters that the tokenizer drops; leave it out or widen it"
        )
    return _spans(tokens, starts, ends)


def _as_pairs(char_spans: Sequence[tuple[int, int]]) -> _Numbers:
    """The ranges as an array (C, 2).

    Raises:
        TypeError: naming the first that is not a pair of integers.

    """
    try:
        ranges = np.asarray(char_spans)
    except ValueError:  # ragged
        ranges = np.empty(0)
    if ranges.dtype.kind in "iu" and ranges.ndim == 2 and ranges.shape[1] == 2:
        return ranges.astype(np.int64)
    for row, pair in enumerate(char_spans):
        numbers = list(pair) if isinstance(pair, Sequence | np.ndarray) else []
        if len(numbers) != 2 or not all(
            isinstance(number, Integral) and not isinstance(number, bool) for number in numbers
        ):
            raise TypeError(
                f"range {row} is {pair!r}; pass (char_start, char_end), two integers, half-open"
            )
    # Integers too large for an array, hence for any text.
    limit = np.iinfo(np.int64).max
    return np.array([[min(max(n, -1), limit) for n in pair] for pair in char_spans], np.int64)


def _refuse(row: int, start: int, end: int, num_chars: int) -> NoReturn:
    """Raise what is wrong with a range."""
    if start == end:
        fault = "it is empty; ranges are half-open, so one character is (n, n + 1)"
    elif start > end:
        fault = "it runs backwards; give the smaller number first"
    else:
        fault = f"the text has {num_chars} characters; keep within (0, {num_chars})"
    raise SpanError(f"range {row} is ({start}, {end}): {fault}")


def _spans(tokens: Tokens, starts: _Numbers, ends: _Numbers) -> list[Span]:
    """Spans of token ranges, with the characters of their first and last tokens."""
    char_starts = tokens.offsets[starts, 0].tolist()
    char_ends = tokens.offsets[ends - 1, 1].tolist()
    return list(map(Span, char_starts, char_ends, starts.tolist(), ends.tolist()))


def _fill(bounds: _Numbers, size: int, overlap: int) -> Chunks:
    """Chunks of whole units, none of which is longer than `size`."""
    num_tokens, last = int(bounds[-1]), len(bounds) - 1
    if last == num_tokens:  # every unit is one token
        starts = np.arange(0, max(num_tokens - overlap, 1), size - overlap)
        return starts, np.minimum(starts + size, num_tokens)
    chunks: list[tuple[int, int]] = []
    unit = 0
    while True:
        stop = int(np.searchsorted(bounds, bounds[unit] + size, side="right")) - 1
        chunks.append((bounds[unit], bounds[stop]))
        if stop == last:
            break
        # As far back as the overlap allows and the next unit leaves room for.
        earliest = max(bounds[stop] - overlap, bounds[stop + 1] - size)
        unit = max(int(np.searchsorted(bounds, earliest, side="left")), unit + 1)
    filled = np.array(chunks, np.int64)
    return filled[:, 0], filled[:, 1]


def _cut_long_units(bounds: _Numbers, size: int, finer: _Numbers) -> _Numbers:
    """The bounds, with units of more than `size` tokens cut at bounds of a finer kind."""
    long = np.flatnonzero(np.diff(bounds) > size)
    if not len(long):
        return bounds
    cuts = [bounds]
    for start, end in zip(bounds[long].tolist(), bounds[long + 1].tolist(), strict=True):
        first, stop = np.searchsorted(finer, [start + 1, end])
        inner = np.concatenate([[0], finer[first:stop] - start, [end - start]])
        cuts.append(_fill(inner, size, 0)[1][:-1] + start)
    return np.sort(np.concatenate(cuts))


def _characters(tokens: Tokens, size: int) -> _Numbers:
    """Bounds of groups of tokens that share no character with others, up to `size` tokens each."""
    apart = np.flatnonzero(tokens.offsets[1:, 0] >= tokens.offsets[:-1, 1]) + 1
    bounds = np.concatenate([[0], apart, [len(tokens)]])
    return _cut_long_units(bounds, size, np.arange(len(tokens) + 1))


def _words(text: str, tokens: Tokens) -> tuple[_Numbers, _Numbers]:
    """Bounds of the words in tokens, and the number (U,) of line breaks before each word.

    White space that has tokens of its own belongs to the word after it, or else to the last.
    """
    codes = code_points(text)
    space = white_space(codes)
    edges = np.flatnonzero(np.diff(space, prepend=True, append=True))
    char_starts, char_ends = edges[::2], edges[1::2]
    word_of_token = np.searchsorted(char_ends, tokens.offsets[:, 0], side="right")
    word_of_token = np.minimum(word_of_token, max(len(char_ends) - 1, 0))
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(word_of_token)) + 1])
    bounds = np.append(firsts, len(tokens))
    if not len(char_ends):
        return bounds, np.zeros(1, np.int64)
    # A line ends at LF, or at CR without LF.
    breaks = codes == ord("\n")
    breaks[:-1] |= (codes[:-1] == ord("\r")) & ~breaks[1:]
    num_breaks = np.concatenate([[0], np.cumsum(breaks)])
    words = word_of_token[firsts]
    before = np.append(0, char_ends[words[:-1]])
    return bounds, num_breaks[char_starts[words]] - num_breaks[before]


def _by_tokens(text: _Text, size: int, overlap: int) -> Chunks:
    return _fill(_characters(text.tokens, size), size, overlap)


def _by_words(text: _Text, size: int, overlap: int) -> Chunks:
    words, _ = _words(text.text, text.tokens)
    return _fill(_cut_long_units(words, size, _characters(text.tokens, size)), size, overlap)


def _sentences(given: _Text, size: int) -> _Numbers:
    """Bounds of the sentences in tokens; those longer than `size` are cut between words."""
    text, tokens, landmarks = given
    starts = sentence_starts(text, unit_starts(text, landmarks))
    firsts = np.searchsorted(tokens.offsets[:, 0], np.array(starts, np.int64))
    bounds = np.unique(np.concatenate([[0], firsts, [len(tokens)]]))
    characters = _characters(tokens, size)
    words = _cut_long_units(_words(text, tokens)[0], size, characters)
    # Scripts without spaces have sentences, but no words, to cut at.
    bounds = np.intersect1d(bounds, np.union1d(words, characters))
    return _cut_long_units(bounds, size, words)


def _by_sentences(text: _Text, size: int, overlap: int) -> Chunks:
    return _fill(_sentences(text, size), size, overlap)


def _each_sentence(text: _Text, size: int, _: int) -> Chunks:
    bounds = _sentences(text, size)
    return bounds[:-1], bounds[1:]


def _recursive(given: _Text, size: int, overlap: int) -> Chunks:
    """Paragraphs, else lines, else words; the overlap comes on top, in whole words.

    Without overlap these are the cuts of langchain's RecursiveCharacterTextSplitter.
    """
    text, tokens, _ = given
    room = size - overlap
    words, num_breaks = _words(text, tokens)
    paragraphs, lines = (words[:-1][num_breaks >= least] for least in (2, 1))
    levels = [level.tolist() for level in (paragraphs, lines, words)]
    bounds = np.array([0, *_ends(levels, 0, len(tokens), room)], np.int64)
    bounds = _cut_long_units(bounds, room, _characters(tokens, room))
    ends, starts = bounds[1:], bounds[:-1]
    if overlap:
        units = np.union1d(words, bounds)
        starts = units[np.searchsorted(units, starts - overlap, side="left")]
        if (np.diff(starts) <= 0).any():
            _step_forward(starts, units)
    return starts, ends


def _ends(levels: Sequence[Sequence[int]], start: int, end: int, room: int) -> list[int]:
    """Ends of chunks of up to `room` tokens, at bounds of the first of `levels` where they fit.

    Units of `room` tokens and more are cut at the next level and share no chunk with their
    neighbours; a unit of the last level stays whole.
    """
    if end - start <= room or not levels:
        return [end]
    ends: list[int] = []
    chunk_start = unit_start = start
    for unit_end in [*levels[0][bisect_right(levels[0], start) : bisect_left(levels[0], end)], end]:
        is_long = unit_end - unit_start >= room
        if unit_start > chunk_start and (is_long or unit_end - chunk_start > room):
            ends.append(unit_start)
            chunk_start = unit_start
        if is_long:
            ends += _ends(levels[1:], unit_start, unit_end, room)
            chunk_start = unit_end
        unit_start = unit_end
    return ends if chunk_start == end else [*ends, end]


def _step_forward(starts: _Numbers, units: _Numbers) -> None:
    """Make starts increase, in place, where short neighbours would start at the same word."""
    for row in range(1, len(starts)):
        if starts[row] <= starts[row - 1]:
            starts[row] = units[np.searchsorted(units, starts[row - 1], side="right")]


SPLITTERS: Mapping[str, Callable[[_Text, int, int], Chunks]] = {
    "tokens": _by_tokens,
    "recursive": _recursive,
    "words": _by_words,
    "sentences": _by_sentences,
    "sentence": _each_sentence,
}
"""Splitters by name: text, chunk tokens and overlap → chunks that cover all tokens."""
