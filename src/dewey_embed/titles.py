"""A text's own title: its first line, where a blank line follows it."""

from __future__ import annotations

import re

TITLE_LINE = r"(?![ \t\r\n])[^\n]{1,200}"
"""A first line that may be a title: a blank line must follow."""

TITLE_BREAK = r"\n[ \t\r]*\n[ \t\r\n]*"
"""What parts it from the text below, in the syntax of Python and of Oniguruma."""

_TITLED = re.compile(f"{TITLE_LINE}({TITLE_BREAK})")


def title_line(text: str) -> str:
    r"""The first line of a text if a blank line follows it, as it does a title; else "".

    >>> title_line("Albania\n\nIt lies by the sea.")
    'Albania'
    """
    found = _TITLED.match(text)
    return text[: found.start(1)].strip() if found else ""


def untitled(text: str) -> str:
    r"""A text as long whose first line is no title: spaces are what parted it from the rest.

    >>> untitled("Albania\n\nIt lies by the sea.")
    'Albania  It lies by the sea.'
    """
    found = _TITLED.match(text)
    if found is None:
        return text
    start, end = found.span(1)
    return text[:start] + " " * (end - start) + text[end:]
