"""Text of users made harmless to show: what would act on a terminal is shown as an escape."""

from __future__ import annotations

import json
from unicodedata import category

_ACTS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Controls, format characters, lone surrogates, separators of lines and paragraphs."""

_KEPT = "\n\t\u00ad\u061c\u200c\u200d\u200e\u200f"
"""Characters of those categories that writing needs: joiners, marks of direction, soft hyphens."""


def printable(text: str) -> str:
    r"""The text with every character that acts on a terminal as its JSON escape.

    Those are escape and other control characters, overrides of direction, invisible characters
    and lone surrogates. Line breaks and tabs stay.

    >>> printable("a title\x1b[2J")
    'a title\\u001b[2J'
    """
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _acts(c) else c for c in text)


def one_line(text: str) -> str:
    """The text made harmless, on one line: runs of white space are one space."""
    return printable(" ".join(text.split()))


def _acts(character: str) -> bool:
    """Whether a terminal, or a reader of lines, would do something other than show it."""
    return category(character) in _ACTS and character not in _KEPT
