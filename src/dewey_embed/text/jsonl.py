"""JSONL, packed or not: a document for each line, and the reason for each line that gives none.

One line at a time is in memory, and a bad line spares only itself. `record_content` is for any
format whose documents are records with named fields.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any

from dewey_embed.errors import ReadError
from dewey_embed.printable import first_few, short_repr
from dewey_embed.text.inputs import Content, ReadOptions, RecordFields, rejoined
from dewey_embed.titles import title_line
from dewey_embed.types import MetadataValue, Unreadable

MOST_NAMED = 20
"""Fields that a message names, of a record that has more."""


def read_jsonl(stream: IO[bytes], options: ReadOptions) -> Iterator[Content | Unreadable]:
    """A document for each line.

    Raises:
        ReadError: the file is binary, or damaged after some line.

    """
    limits = options.limits
    number = 0
    try:
        for number, line in enumerate(_lines(stream, limits.max_text_bytes), start=1):
            if line is None:
                yield Unreadable(source="", reason=f"a line {limits.too_long()}", line=number)
            elif number == 1 and b"\0" in line:
                break
            elif line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield _fault_of_file(_record(line, number, options.fields), line)
        else:
            return
    except ReadError as error:
        raise ReadError(f"after line {number}: {error}") from None
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise ReadError(f"damaged after line {number} ({error})") from None
    raise ReadError("binary, not JSONL")


def read_packed_jsonl(stream: IO[bytes], options: ReadOptions) -> Iterator[Content | Unreadable]:
    """A document for each line of a gzip file."""
    return read_jsonl(io.BufferedReader(_Unpacked(stream), 65_536), options)


def record_content(
    record: Mapping[str, Any], line: int, fields: RecordFields
) -> Content | Unreadable:
    """The document of a record, or the fault in it; without a title its text's own is taken."""
    own_id: str | None = None
    try:
        own_id = _record_id(record, fields)
        text = _text(record, fields)
        metadata, unread = _metadata(record, fields)
    except ReadError as error:
        return Unreadable(source="", reason=str(error), line=line, document_id=own_id)
    title = record.get(fields.title_field or "title") or ""
    own = str(title) if isinstance(title, str | int | float) else ""
    return Content(
        text,
        own if own.strip() else title_line(text),
        unread,
        line,
        own_id,
        metadata,
    )


def _fault_of_file(item: Content | Unreadable, line: bytes) -> Content | Unreadable:
    """The item; a last line that is cut short is a fault of the file, not of the line."""
    if isinstance(item, Content) or line.endswith(b"\n"):
        return item
    if not line.lstrip().startswith(b"{") or line.rstrip().endswith(b"}"):
        return item
    return replace(item, line=None, reason=f"cut short in line {item.line} ({item.reason})")


def _lines(stream: IO[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """The lines in UTF-8, and `None` for one that is longer than `max_bytes`.

    A byte order mark of UTF-16 or UTF-32 at the beginning is honoured.
    """
    line = stream.readline(max_bytes + 1)
    wide = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    mark = next((mark for mark in wide if line.startswith(mark)), None)
    if mark:
        encoding = "utf-32" if len(mark) == 4 else "utf-16"
        text = io.TextIOWrapper(rejoined(line, stream), encoding, newline="\n")
        yield from _bounded(
            iter(lambda: text.readline(max_bytes + 1).encode("utf-8", "surrogatepass"), b""),
            max_bytes,
        )
        return
    yield from _bounded(_chain(line, iter(lambda: stream.readline(max_bytes + 1), b"")), max_bytes)


MAX_INFLATION = 200
"""The unpacked size in packed sizes; records of people's texts have three to ten."""
_SMALL = 16_000_000


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, refused where it is out of all proportion to its size."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._stream = gzip.GzipFile(fileobj=packed)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._size += len(data)
        if (
            self._size > _SMALL
            and self._packed.seekable()
            and self._size > MAX_INFLATION * self._packed.tell()
        ):
            raise ReadError(
                f"it unpacks to more than {MAX_INFLATION} times its size; if that is right, "
                "unpack it and give the .jsonl file"
            )
        buffer[: len(data)] = data
        return len(data)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
        yield from rest


def _bounded(pieces: Iterator[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """Lines from pieces of lines, `None` in place of each that came in more than one piece."""
    for piece in pieces:
        if len(piece) <= max_bytes or piece.endswith(b"\n"):
            yield piece
            continue
        for further in pieces:
            if further.endswith(b"\n"):
                break
        yield None


class _Repeating(dict[str, Any]):
    """A JSON object that gives a key twice."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) == len(pairs):
        return unique
    keys = Counter(key for key, _ in pairs)
    repeating = _Repeating(unique)
    repeating.key = next(key for key, times in keys.items() if times > 1)
    return repeating


_ID_VALUE = r'\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*"|-?\d{1,18}(?=[\s,}]))'


def _record(line: bytes, number: int, fields: RecordFields) -> Content | Unreadable:
    """The document of one line, or the fault in it."""
    try:
        source = line.decode("utf-8-sig" if number == 1 else "utf-8")
        record = json.loads(source, object_pairs_hook=_object)
        if not isinstance(record, dict):
            raise ReadError(f"a JSON {type(record).__name__}, not an object")
        item = record_content(record, number, fields)
    except ReadError as error:
        item = Unreadable(source="", reason=str(error), line=number)
    except (ValueError, RecursionError) as error:  # JSON's and Unicode's errors are ValueErrors
        item = Unreadable(source="", reason=f"not JSON: {error}", line=number)
    if isinstance(item, Unreadable) and item.document_id is None:
        return replace(item, document_id=_id_in(line, fields))
    return item


def _id_in(line: bytes, fields: RecordFields) -> str | None:
    """The id of a damaged line, where its characters still show it."""
    names = re.escape(fields.id_field) if fields.id_field else "_?id"
    source = line.decode("utf-8", "replace")
    found = re.search(rf'(?<!\\)"(?:{names})"' + _ID_VALUE, source)
    try:
        return str(json.loads(found[1])) if found else None
    except ValueError:
        return None


def _text(record: Mapping[str, Any], fields: RecordFields) -> str:
    """The text fields, with a blank line between."""
    if isinstance(record, _Repeating):
        raise ReadError(f"key {short_repr(record.key)} comes twice; leave one of them")
    names = fields.text_fields or ("text",)
    return "\n\n".join(filter(None, [_string(record, name) for name in names]))


def _string(record: Mapping[str, Any], name: str) -> str:
    """A text field's text."""
    if name not in record:
        names = first_few([short_repr(each) for each in record], MOST_NAMED)
        raise ReadError(
            f"no field {name!r}; it has {names or 'none'}: choose the text fields among them"
        )
    value = record[name]
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise ReadError(f"field {name!r} is {kind}, not a string")
    return value


def _record_id(record: Mapping[str, Any], fields: RecordFields) -> str:
    """A record's own id, or nothing."""
    names = [fields.id_field] if fields.id_field else ["_id", "id"]
    for name in names:
        value = record.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
        if value is not None or fields.id_field:
            raise ReadError(
                f"field {name!r} is {short_repr(value)}; an id is a string or an integer"
            )
    return ""


def _metadata(
    record: Mapping[str, Any], fields: RecordFields
) -> tuple[dict[str, MetadataValue], dict[str, int]]:
    """The flat fields beside text, id and title, and counts of those that no filter can compare."""
    used = {*(fields.text_fields or ("text",)), fields.title_field or "title"}
    used |= {fields.id_field} if fields.id_field else {"_id", "id"}
    kept: dict[str, MetadataValue] = {}
    unread: Counter[str] = Counter()
    for name, value in record.items():
        if name in used:
            continue
        if not isinstance(value, str | int | float | bool | None):
            unread["metadata values that are not flat"] += 1
        elif isinstance(value, float) and not math.isfinite(value):
            unread["metadata values that are not finite"] += 1
        elif isinstance(value, int) and value.bit_length() > 63:
            unread["metadata integers past 64 bits"] += 1
        else:
            kept[name] = value
    return kept, dict(unread)
