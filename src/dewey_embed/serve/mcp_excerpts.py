"""Excerpts of a document that fit a budget: as much as fits, cut at sentences, the rest named."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

from dewey_embed.serve.mcp_budget import most
from dewey_embed.serve.mcp_places import CharRange
from dewey_embed.text.sentences import sentence_starts, unit_starts
from dewey_embed.types import Document, Passage

Fits = Callable[[int, int], bool]
"""Whether an answer with these characters of the document fits."""

CHARS_PER_TOKEN = 20
"""More characters than a token has on average in any text."""


def excerpt(
    document: Document, *, within: CharRange, around: CharRange, fits: Fits, reach: int
) -> CharRange | None:
    """The most characters of a range that fit, around a range in it; `None` where none fit.

    They begin and end with sentences, unless not even the first fits. `reach` bounds the
    characters that are tried before and after `around`.
    """
    cuts = _cuts(document, max(within[0], around[0] - reach), min(within[1], around[1] + reach))

    def widened(radius: int) -> CharRange:
        start = max(within[0], around[0] - radius)
        end = min(within[1], around[1] + radius)
        if start > within[0]:
            start = min([around[0], *cuts[(first := bisect_left(cuts, start)) : first + 1]])
        if end < within[1]:
            end = max([around[1], *cuts[max(0, (last := bisect_right(cuts, end)) - 1) : last]])
        return start, end

    longest = max(around[0] - within[0], within[1] - around[1])
    radius = most(lambda each: fits(*widened(each)), min(longest, reach), first=256)
    if radius is None and around[0] < around[1]:
        start = around[0]
        return excerpt(
            document, within=(start, within[1]), around=(start, start), fits=fits, reach=reach
        )
    if radius is None:
        return None
    start, end = widened(radius)
    if start == end < within[1]:
        return _words(document.text, start, within[1], fits, reach)
    return start, end


def _cuts(document: Document, low: int, high: int) -> list[int]:
    """Characters between two others at which sentences begin."""
    begins = [each - low for each in unit_starts(document.text, document.landmarks)
              if low < each < high]  # fmt: skip
    return [low + each for each in sentence_starts(document.text[low:high], begins) if each]


def _words(text: str, start: int, end: int, fits: Fits, reach: int) -> CharRange | None:
    """The most characters from `start` that fit, cut between words where that is possible."""
    length = most(lambda each: fits(start, start + each), min(end - start, reach), first=64)
    if length is None:
        return None
    cut = text.rfind(" ", start + 1, start + length) if start + length < end else -1
    return start, cut if cut > start and fits(start, cut) else start + length


def shorter(passage: Passage, fits: Fits, *, or_words: bool) -> CharRange | None:
    """The most sentences around a passage's answer that fit; with `or_words`, else words of it."""
    starts = [passage.char_start + each for each in sentence_starts(passage.text)]
    bounds = [*starts, passage.char_end]
    start = passage.highlight[0] if passage.highlight else passage.char_start
    answer = max(0, bisect_right(starts, start) - 1)

    def around(size: int) -> CharRange:
        first = min(max(0, answer - (size - 1) // 2), len(starts) - size)
        return bounds[first], bounds[first + size]

    size = most(lambda each: fits(*around(each)), len(starts) - 1, least=1)
    if size is not None:
        return around(size)
    if not or_words:
        return None
    start, end = around(1)
    found = _words(passage.text, start - passage.char_start, end - passage.char_start,
                   lambda low, high: fits(low + passage.char_start, high + passage.char_start),
                   len(passage.text))  # fmt: skip
    if found is None or found[0] == found[1]:
        return None
    return passage.char_start + found[0], passage.char_start + found[1]
