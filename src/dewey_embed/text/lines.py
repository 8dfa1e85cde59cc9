"""A text that a reader puts together line by line, with its landmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from dewey_embed.errors import ReadError
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.types import Landmark, LandmarkKind


class Lines:
    """Lines, and what begins at each; a text past the limit is refused while it grows.

    >>> from dewey_embed.text.inputs import DEFAULT_LIMITS
    >>> lines = Lines(DEFAULT_LIMITS)
    >>> lines.add(["Tides"])
    >>> lines.mark("slide", 2)
    >>> lines.add(["They rise."])
    >>> lines.content().landmarks
    [Landmark(char=6, kind='slide', number=2, label='')]
    """

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._lines: list[str] = []
        self._landmarks: list[Landmark] = []
        self._length = 0

    def mark(self, kind: LandmarkKind, number: int, label: str = "") -> None:
        """Set a landmark where the next line begins."""
        self._landmarks.append(Landmark(self._length, kind, number, label))

    def add(self, lines: Iterable[str]) -> None:
        """Write lines.

        Raises:
            ReadError: the text is longer than the limit.

        """
        for line in lines:
            self._lines.append(line)
            self._length += len(line) + 1
            if self._length > self._limits.max_text_bytes:
                raise ReadError(f"its text is {self._limits.too_long()}")

    def end_block(self) -> None:
        """Write a blank line, unless there is nothing to divide."""
        if self._lines and self._lines[-1]:
            self.add([""])

    def content(self, title: str = "", unread: Mapping[str, int] = {}) -> Content:
        """The document, without kinds of `unread` that count nothing."""
        text = "\n".join(self._lines).rstrip()
        landmarks = [each for each in self._landmarks if each.char < len(text)]
        counted = {kind: number for kind, number in unread.items() if number}
        return Content(text, title, counted, landmarks=landmarks)


def moved(landmarks: Iterable[Landmark], num_chars: int) -> list[Landmark]:
    """Landmarks of a text that stands that many characters on in another."""
    return [each._replace(char=each.char + num_chars) for each in landmarks]


_LONE_RETURN = re.compile("\r(?!\n)")


def numbered_lines(text: str) -> list[Landmark]:
    """The landmark of the lines of a text that stands as in its file.

    Where it has line ends that only some editors count, its lines have no numbers.
    """
    return [] if _LONE_RETURN.search(text) else [Landmark(0, "line", 1)]


def in_one_line(text: str) -> str:
    """A text with each run of white space, line ends among it, as one blank."""
    return " ".join(text.replace("\0", "").split())
