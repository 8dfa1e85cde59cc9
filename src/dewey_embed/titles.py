"""A text's own title: its first line, where a blank line follows it."""

from __future__ import annotations

import re

TITLE_LINE = r"(?![ \t\r\n])[^\n]{1,200}"
"""A first line that may be a title: a blank line must follow."""

TITLE_BREAK = r"\n[ \t\r]*\n[ \t\r\n]*"
"""What parts it from the text below, in the syntax of Python and of Oniguruma."""

_TITLED = re.compile(f"{TITLE_LINE}({TITLE_BREAK})")


_WORD = re.compile(r"[^\W_]{3,}|[^\W_a-z]+")


NAME_WORDS = 4
"""A title of so many words is a document's name, not a label, whether its text says it or not."""


def describes(title: str, text: str) -> bool:
    """Whether a title has four different words, or half of its words or more stand in its text.

    Else it is a label, such as the name of a collection: it says of a text nothing that the next
    one's does not, and is not to be read above either. A word in a script without spaces between
    words may stand within another.

    >>> text = "The landlord pays for the roof."
    >>> describes("A landlord", text), describes("Contracts", text)
    (True, False)
    >>> describes("Lease between Mill Lane Dairy and Fenwick Glass", text)
    True
    """
    words, lower = _WORD.findall(title.lower()), text.lower()
    own = set(_WORD.findall(lower))
    found = sum(word in own or (not word.isascii() and word in lower) for word in words)
    return len(set(words)) >= NAME_WORDS or 2 * found >= len(words) > 0


def title_line(text: str) -> str:
    r"""The first line of a text if a blank line follows it, as it does a title; else "".

    >>> title_line("Albania\n\nIt lies by the sea.")
    'Albania'
    """
    found = _TITLED.match(text)
    return text[: found.start(1)].strip() if found else ""


def untitled(text: str) -> str:
    r"""A text as long whose first line is no title: a single line break parts it from the rest.

    >>> untitled("Albania\n\nIt lies by the sea.")
    'Albania \nIt lies by the sea.'
    """
    found = _TITLED.match(text)
    if found is None:
        return text
    start, end = found.span(1)
    return text[:start] + " " * (end - start - 1) + "\n" + text[end:]


def title_break(text: str) -> tuple[int, int]:
    """Start and end of what parts a text's title from the rest; zeros where there is none."""
    found = _TITLED.match(text)
    return found.span(1) if found else (0, 0)
