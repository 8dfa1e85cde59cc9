"""Budgets of tokens: how tokens of an answer are counted, and how much of something fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from dewey_embed.printable import printable
from dewey_embed.text.tokenizer import Tokenizer

Answer = dict[str, Any]

_RARE = "\U00012000"
"""A cuneiform sign: tokenizers that know no bytes have no token for it but the unknown one."""

_QUARTERS = ((0x80, 4), (0x800, 1), (0x10000, 7))
"""Quarters of a token that characters from each on count more: é 1 token, 契 5/4, an emoji 3."""


def rendered(answer: Answer) -> str:
    """An answer as JSON, with everything that acts on a terminal as its JSON escape."""
    return printable(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))


class TokenCounter:
    """Counts tokens as the model's own tokenizer, and never fewer where that one sees less.

    A language model reads the answer with another tokenizer. So what this one has no token for
    counts, too: a character outside ASCII as one token at least, four Chinese ones as five and an
    emoji as three, unknown words and runs of white space by their characters.

    >>> from dewey_embed import Dewey
    >>> count = TokenCounter(Dewey.load().tokenizer)
    >>> count("The tenant pays the rent."), count("\N{OLD KEY}" * 4)
    (6, 12)
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        [rare] = tokenizer.encode([_RARE])
        self._tokenizer = tokenizer
        self._unknown_id = int(rare.ids[0]) if len(rare) == 1 else None

    def __call__(self, text: str) -> int:
        """The number of tokens of a text without lone surrogates."""
        [tokens] = self._tokenizer.encode([text])
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        weights = sum(
            (quarters * (codes >= first) for first, quarters in _QUARTERS), start=0 * codes
        )
        before = np.append(0, np.cumsum(weights, dtype=np.int64))
        starts, ends = tokens.offsets[:, 0], tokens.offsets[:, 1]
        is_foreign = before[ends] > before[starts]
        is_unknown = ~is_foreign & (tokens.ids == self._unknown_id)
        unknown = int((ends - starts - 1)[is_unknown].sum())
        gaps = np.append(starts, len(text)) - np.insert(ends, 0, 0)
        blanks = int(np.maximum(gaps - 1, 0).sum())
        foreign = max(int(is_foreign.sum()), -(-int(before[-1]) // 4))
        return int((~is_foreign).sum()) + foreign + unknown + blanks


def most(fits: Callable[[int], bool], limit: int, *, least: int = 0, first: int = 1) -> int | None:
    """The largest number from `least` to `limit` that fits; `None` where not even `least` does.

    Found by doubling from `least + first`, then by bisection; the number returned was tried.

    >>> most(lambda number: number < 12, 100), most(lambda number: False, 100)
    (11, None)
    """
    if limit < least or not fits(least):
        return None
    good, step, bad = least, first, limit + 1
    while good < limit and good + step < bad:
        tried = good + step
        if not fits(tried):
            bad = tried
            break
        good, step = tried, step * 2
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good
