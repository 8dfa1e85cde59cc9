"""What a case is: bytes, read from the front as choices, then as the text or file under test."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

Check = Callable[[bytes], None]
"""It returns where a promise holds of a case, and raises where it does not."""


class Target(NamedTuple):
    """A promise of the package's, and what makes its check: imports and fixtures, once a process.

    `cases_in_tests` are the random cases of it in each run of the tests, and `max_bytes` the length
    of the longest case.
    """

    promise: str
    make: Callable[[], Check]
    cases_in_tests: int = 300
    max_bytes: int = 4096


class Draw:
    """The bytes of a case, taken from the front; when none are left every choice is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, most: int) -> int:
        """A number from 0 to `most`, of one byte, or of two where it may be above 255."""
        size = 1 if most < 256 else 2
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "big") % (most + 1)

    def rest(self) -> bytes:
        """The bytes that are left."""
        return self._data[self._at :]

    def text(self) -> str:
        """The bytes that are left as text; bytes that are not UTF-8 are lone surrogates."""
        return self.rest().decode("utf-8", "surrogateescape")


def mutated(seeds: Sequence[bytes], choose: random.Random, max_bytes: int) -> bytes:
    """A seed with a few random changes: flips, cuts, repeats, and pieces of other seeds."""
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.choice((1, 1, 2, 4, 8))):
        at = choose.randrange(len(data) + 1)
        end = min(at + choose.choice((1, 1, 2, 8, 64)), len(data))
        kind = choose.randrange(5)
        if kind == 0:
            data[at:end] = choose.randbytes(end - at)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end] * choose.choice((1, 2, 20))
        elif kind == 3:
            other = choose.choice(seeds)
            start = choose.randrange(len(other) + 1)
            data[at:end] = other[start : start + choose.choice((4, 32, 256))]
        elif at < len(data):
            data[at] ^= 1 << choose.randrange(8)
    return bytes(data[:max_bytes])
