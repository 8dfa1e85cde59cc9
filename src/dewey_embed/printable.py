"""Users' texts and values as people may safely see them: without controls, and short."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from unicodedata import category

_ACTS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Controls, format characters, lone surrogates, separators of lines and paragraphs."""

_KEPT = "\n\t\u00ad\u061c\u200c\u200d\u200e\u200f"
"""Characters of these categories that writing needs: joiners, marks of direction, soft hyphens."""


_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother = 60, 240


def printable(text: str) -> str:
    r"""The text with every character that acts on a terminal as its JSON escape.

    Such characters are controls, overrides of direction, invisible characters and lone surrogates.
    Line breaks and tabs stay.

    >>> printable("a title\x1b[2J")
    'a title\\u001b[2J'
    """
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _acts(c) else c for c in text)


def one_line(text: str) -> str:
    """The printable text on one line: runs of white space become one space."""
    return printable(" ".join(text.split()))


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 document`, `2 documents`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_few(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first names, and how many more there are.

    >>> first_few(["a", "b", "c"], 3), first_few(["a", "b", "c", "d"], 3)
    ('a, b, c', 'a, b, c and 1 more')
    """
    first, more = separator.join(names[:most]), len(names) - most
    return first if more <= 0 else f"{first} and {more:,} more"


def short_repr(value: object) -> str:
    """The `repr` of a value, shortened: a text may have millions of characters.

    >>> len(short_repr("x" * 1_000_000))
    60
    """
    return _SHORT.repr(value)


def _acts(character: str) -> bool:
    """Whether a character does more on a terminal, or to a reader of lines, than be seen."""
    return category(character) in _ACTS and character not in _KEPT
