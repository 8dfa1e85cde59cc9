"""A text longer than the model takes → overlapping windows, and for every span its pieces.

A span that fits into one window is pooled there, in the window where it stands farthest from
an edge; a longer one is pooled from several, each token taken from the window in which *it*
stands farthest from an edge. The ends of the text are no edges: nothing is missing beyond them.
All positions count the text's own tokens. Plain arithmetic; knows neither text nor model.

Windows are placed evenly, or where a hash of the tokens is largest. An edit moves all even ones
behind it; those placed by content fall into step again soon after it, so that most windows of the
new text hold the tokens of a window of the old one.
Source of the idea: Muthitacharoen, Chen and Mazières, A Low-bandwidth Network File System (SOSP
2001) §3.1, where files are cut at marks of their content.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dewey_embed.types import Rows

_MARK_TOKENS = 16
"""Tokens before a place that decide whether windows meet there."""

_WEIGHT = 0x9E3779B97F4A7C15

_SHORTEST = 4
"""Windows placed by content meet a quarter to all of the greatest distance apart.

The wider that range, the sooner places are the same again after an edit, and the shorter windows.
"""


class Pieces(NamedTuple):
    """Where spans are pooled: piece p adds tokens [start, end) of `window` to span `row`.

    Four int64 arrays of one length; every row has at least one piece, and its pieces together
    are the span. Positions count the text's tokens, as the spans do.
    """

    row: Rows
    window: Rows
    start: Rows
    end: Rows


def plan_windows(num_tokens: int, *, size: int, overlap: int) -> Rows:
    """(W, 2) int64: token ranges that cover a text, each at most `size` long.

    All windows but a text's only one are full: the last is moved back to end with the text.
    """
    if num_tokens <= size:
        return np.array([[0, num_tokens]], np.int64)
    starts = np.arange(0, num_tokens - overlap, size - overlap, dtype=np.int64)
    starts = np.minimum(starts, num_tokens - size)
    return np.stack((starts, starts + size), axis=1)


def place_windows(ids: Rows, *, size: int, overlap: int) -> Rows:
    """(W, 2) int64: token ranges that cover a text, each at most `size` long, placed by its ids.

    Where two windows meet is a place in the middle of their overlap, of at least `overlap` tokens.
    It depends on where the ones before it meet, and on the tokens from there on that one window
    can hold: places before an edit stay.
    """
    num_tokens = len(ids)
    half = min((overlap + 1) // 2, (size - 1) // 3)
    farthest = size - 2 * half
    nearest = min(max(half + 1, farthest // _SHORTEST), farthest)
    places = [0]
    marks = _marks(ids) if num_tokens > size else ids
    while num_tokens - max(0, places[-1] - half) > size:
        candidates = marks[places[-1] + nearest : places[-1] + farthest + 1]
        # The last among equals: text that repeats itself has long windows.
        places.append(places[-1] + farthest - int(candidates[::-1].argmax()))
    meets = np.array(places, np.int64)
    ends = np.append(meets[1:] + half, num_tokens)
    return np.stack((np.maximum(meets - half, 0), ends), axis=1)


def _marks(ids: Rows) -> NDArray[np.uint64]:
    """(T + 1,): a hash of the tokens right before each place between tokens."""
    own = _mixed(ids.astype(np.uint64))
    marks = np.zeros(len(ids) + 1, np.uint64)
    for back in range(min(_MARK_TOKENS, len(ids))):
        weight = np.uint64(pow(_WEIGHT, back + 1, 2**64))
        marks[back + 1 :] += own[: len(ids) - back] * weight
    return _mixed(marks)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a value spread over all bits. Source: SplitMix64, Steele et al. 2014."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def owned_ranges(windows: Rows) -> Rows:
    """(W, 2): the tokens of each window that are pooled there, cut in the middle of overlaps."""
    cuts = (windows[:-1, 1] + windows[1:, 0]) // 2
    return np.stack((np.append(windows[:1, 0], cuts), np.append(cuts, windows[-1:, 1])), axis=1)


def assign_pieces(starts: Rows, ends: Rows, windows: Rows) -> Pieces:
    """The pieces in which spans [start, end) are pooled over `windows` (W, 2)."""
    rows = np.arange(len(starts), dtype=np.int64)
    if len(windows) == 1:
        return Pieces(rows, np.zeros_like(rows), starts, ends)
    far = np.iinfo(np.int64).max
    left = np.where(windows[:, 0] == 0, far, starts[:, None] - windows[:, 0])
    right = np.where(windows[:, 1] == windows[-1, 1], far, windows[:, 1] - ends[:, None])
    inside = (starts[:, None] >= windows[:, 0]) & (ends[:, None] <= windows[:, 1])
    margin = np.where(inside, np.minimum(left, right), -1)
    fits = inside.any(axis=1)
    single = Pieces(rows[fits], margin.argmax(axis=1)[fits], starts[fits], ends[fits])
    several = _stitch(rows[~fits], starts[~fits], ends[~fits], windows)
    return Pieces(*map(np.concatenate, zip(single, several, strict=True)))


def _stitch(rows: Rows, starts: Rows, ends: Rows, windows: Rows) -> Pieces:
    """Pieces of spans too long for any window, cut in the middle of the windows' overlaps."""
    owned = owned_ranges(windows)
    start = np.maximum(starts[:, None], owned[:, 0])
    end = np.minimum(ends[:, None], owned[:, 1])
    span, window = np.nonzero(start < end)
    return Pieces(rows[span], window, start[span, window], end[span, window])
