"""Where words of a document stand in its file, for the tests of readers."""

from pathlib import Path

from dewey_embed.text.locations import location_of
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Location, Unreadable


def one(path: Path, **options) -> Document | Unreadable:
    """The only document of a file."""
    (found,) = read_documents([path], **options)
    return found


def where(document: Document, words: str) -> Location:
    """The place of words that stand once in a document."""
    assert document.text.count(words) == 1, document.text
    at = document.text.index(words)
    return location_of(document.landmarks, document.text, at, at + len(words))
