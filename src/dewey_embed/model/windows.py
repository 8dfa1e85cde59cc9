"""A text longer than the model takes → overlapping windows, and for every span its pieces.

A span that fits into one window is pooled there, in the window where it stands farthest from
an edge; a longer one is pooled from several, each token taken from the window in which *it*
stands farthest from an edge. The ends of the text are no edges: nothing is missing beyond them.
All positions count the text's own tokens. Plain arithmetic; knows neither text nor model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dewey_embed.types import Rows


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
    cuts = (windows[:-1, 1] + windows[1:, 0]) // 2
    owned = np.stack((np.concatenate(([0], cuts)), np.concatenate((cuts, windows[-1:, 1]))), axis=1)
    start = np.maximum(starts[:, None], owned[:, 0])
    end = np.minimum(ends[:, None], owned[:, 1])
    span, window = np.nonzero(start < end)
    return Pieces(rows[span], window, start[span, window], end[span, window])
