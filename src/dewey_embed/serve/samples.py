"""Documents at hand, for somebody who has none to try the page with."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

from dewey_embed.text.headings import markdown_headings, restructured_headings
from dewey_embed.types import Document


class Sample(NamedTuple):
    """A document at hand: its title, what it is, queries to try, and what makes it."""

    title: str
    about: str
    queries: tuple[str, ...]
    read: Callable[[], Document]


def _constitution() -> Document:
    """The Constitution of the United States, spelt as in 1787, with the first ten amendments."""
    text = files(__package__).joinpath("page", "constitution.md").read_text(encoding="utf-8")
    _, _, text = text.partition("\n\n")  # its title
    landmarks = tuple(markdown_headings(text))
    title = SAMPLES["constitution"].title
    return Document(id="constitution", title=title, text=text, landmarks=landmarks)


def _python_reference() -> Document:
    """The Python language reference, which lies inside CPython itself."""
    import pydoc_data.topics

    topics = pydoc_data.topics.topics
    text = "\n\n\n".join(text.strip() for _, text in sorted(topics.items()))
    landmarks = tuple(restructured_headings(text))
    return Document(id="python", title=SAMPLES["python"].title, text=text, landmarks=landmarks)


SAMPLES: dict[str, Sample] = {
    "constitution": Sample(
        "The Constitution of the United States",
        "with the Bill of Rights; read in a moment",
        (
            "Who can declare war?",
            "What if the president refuses to sign a law?",
            "Can someone be tried twice for the same crime?",
            "How old must a senator be?",
        ),
        _constitution,
    ),
    "python": Sample(
        "The Python Language Reference",
        "280 pages, as Python carries it along",
        (
            "How can a class customise attribute access?",
            "What happens when a name is not found?",
            "In which order are operands evaluated?",
        ),
        _python_reference,
    ),
}
"""The documents at hand, by name."""
