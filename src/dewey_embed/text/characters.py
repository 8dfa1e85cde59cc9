"""Single characters: code points, white space, surrogates.

Positions are Python's: one for every code point.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

WHITE_SPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""All characters for which `str.isspace` is true."""

_SURROGATES = re.compile("[\ud800-\udfff]")

# Indexed by code point; all those past the last white space share the last entry, False.
_IS_WHITE_SPACE = np.zeros(0x3002, np.bool_)
_IS_WHITE_SPACE[[ord(character) for character in WHITE_SPACE]] = True


def code_points(text: str) -> NDArray[np.uint32]:
    """Code points (N,) uint32, lone surrogates among them."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint32)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def white_space(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Mask (N,) bool of the code points that are white space."""
    return _IS_WHITE_SPACE[np.minimum(codes, len(_IS_WHITE_SPACE) - 1)]


def without_surrogates(text: str) -> str:
    """The text, as long as before, with U+FFFD for each lone surrogate.

    UTF-8 has no bytes for half a pair, so neither tokenizers nor files can hold one.
    """
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
