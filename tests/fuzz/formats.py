"""Files of every format: documents, or one reason why there is none, and no other exception."""

from __future__ import annotations

import functools
import io
import traceback
import warnings
import zipfile
from collections.abc import Callable, Mapping

from tests.fuzz.cases import Check, Draw

PACKAGES = ("docx", "pptx", "xlsx", "opendocument", "epub")
"""Formats whose cases are the parts of an archive, which is packed before it is read."""

PART = b"\n=== "
"""What begins the name of a part, on a line of its own."""

MAX_TEXT_MB = 1


def packed(data: bytes) -> bytes:
    """An archive of the parts in some bytes; damaged XML is mended, so that it is read further.

    The first bytes choose whether it is mended, and which bytes of the archive are damaged.
    """
    draw = Draw(data)
    mends = draw.number(3) > 0
    damages = [(draw.number(65_535), draw.number(255)) for _ in range(draw.number(7) // 6)]
    archive = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "w") as package:
        warnings.simplefilter("ignore")  # of parts with the same name
        for part in draw.rest().split(PART)[1:]:
            name, _, body = part.partition(b"\n")
            known = zipfile.ZipInfo(name.decode("latin-1").replace("\0", "")[:60] or "x")
            package.writestr(known, _mended(body) if mends else body)
    content = bytearray(archive.getvalue())
    for at, value in damages:
        content[at % len(content)] ^= value
    return bytes(content)


def _mended(body: bytes) -> bytes:
    """The nearest XML that is well formed, where there is any."""
    from lxml import etree

    if not body.lstrip().startswith(b"<"):
        return body
    try:
        parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        return body
    return body if root is None else etree.tostring(root)


def reading(name: str) -> Check:
    """The reader of one format, as its process calls it, with its landmarks."""
    from dewey_embed.text.formats import read
    from dewey_embed.text.inputs import Content, ReadLimits, ReadOptions
    from dewey_embed.text.locations import Places
    from dewey_embed.types import Unreadable

    options = ReadOptions(ReadLimits(max_text_mb=MAX_TEXT_MB))
    made: Callable[[bytes], bytes] = packed if name in PACKAGES else bytes

    def check(data: bytes) -> None:
        for item in _items(read, name, made(data), options):
            if isinstance(item, Unreadable):
                assert item.reason
                continue
            assert isinstance(item, Content)
            _check_content(item, Places)

    return check


def _items(read, name, data, options):
    """What the reader yields; an exception of our own code's within it is a fault."""
    from dewey_embed.errors import ReadError

    try:
        yield from read(name, io.BytesIO(data), options)
        return
    except ReadError as error:
        reason, cause = str(error), error.__cause__
    assert reason
    if cause is not None and not isinstance(cause, ReadError):
        *_, (last, _) = traceback.walk_tb(cause.__traceback__)
        if "dewey_embed" in last.f_code.co_filename:
            raise cause


def _check_content(item, places) -> None:
    """Text, title and counts are of their types, and landmarks stand in order within the text."""
    assert isinstance(item.text, str)
    assert isinstance(item.title, str)
    assert len(item.title) <= len(item.text) + 2000
    assert all(number > 0 for number in item.unread.values()), item.unread
    before = 0
    for mark in item.landmarks:
        assert before <= mark.char <= len(item.text)
        assert mark.number >= 0
        assert isinstance(mark.label, str)
        before = mark.char
    found = places(item.landmarks, item.text)
    for start in (0, len(item.text) // 2):
        found.location(start, len(item.text))


def choosing() -> Check:
    """The choice of a format by name and first bytes."""
    from dewey_embed.errors import ReadError
    from dewey_embed.text.formats import BY_EXTENSION, FORMATS, HEAD_BYTES, format_of

    names = [f"a{extension}" for extension in BY_EXTENSION] + ["a", "a.zip", "a.doc", "a.x"]

    def check(data: bytes) -> None:
        draw = Draw(data)
        name = names[draw.number(len(names) - 1)]
        try:
            found, extension = format_of([name], draw.rest()[:HEAD_BYTES])
        except ReadError:
            return
        assert found in FORMATS
        assert extension == "" or extension.startswith(".")

    return check


def readers() -> Mapping[str, Callable[[], Check]]:
    """The check of each format's reader, by the name of its target."""
    from dewey_embed.text.formats import FORMATS

    return {f"read-{name}": functools.partial(reading, name) for name in FORMATS}
