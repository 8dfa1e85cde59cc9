"""Lines of a JSONL file → documents, and the reason for each line that gives none.

Knows nothing of folders or of how a file was opened. One bad line spares only itself.
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
from dewey_embed.text.inputs import STDIN, File, ReadLimits, RecordFields, content_id
from dewey_embed.types import Document, MetadataValue, Unreadable


def read_records(
    stream: IO[bytes], file: File, fields: RecordFields, limits: ReadLimits
) -> Iterator[Document | Unreadable]:
    """One document for each line of a JSONL file, of which one line at a time is in memory."""
    number = 0
    try:
        for number, line in enumerate(_lines(stream, limits.max_text_bytes), start=1):
            if line is None:
                reason = f"a line {limits.too_long()}"
                yield Unreadable(source=file.source, reason=reason, root=file.root, line=number)
            elif number == 1 and b"\0" in line:
                yield Unreadable(source=file.source, reason="binary, not JSONL", root=file.root)
                return
            elif line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield _whole(_record(line, number, file, fields), line)
    except ReadError as error:
        reason = f"after line {number}: {error}"
        yield Unreadable(source=file.source, reason=reason, root=file.root)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        reason = f"damaged after line {number} ({error})"
        yield Unreadable(source=file.source, reason=reason, root=file.root)


def _whole(found: Document | Unreadable, line: bytes) -> Document | Unreadable:
    """What a line gave; of a last line that is cut short, a fault of the file, not of the line."""
    if isinstance(found, Document) or found.skipped or line.endswith(b"\n"):
        return found
    if not line.lstrip().startswith(b"{") or line.rstrip().endswith(b"}"):
        return found
    return replace(found, line=None, reason=f"cut short in line {found.line} ({found.reason})")


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


def rejoined(head: bytes, rest: IO[bytes]) -> io.BufferedReader:
    """A stream as it was before its first bytes were read."""
    return io.BufferedReader(_Rejoined(head, rest))


MAX_INFLATION = 200
"""How many times its packed size a file may have; records of people's texts have three to ten."""
_SMALL = 16_000_000


def unpacked(packed: IO[bytes]) -> io.BufferedReader:
    """What a gzip file holds.

    Raises:
        ReadError: while it is read, where it is made to do harm.

    """
    return io.BufferedReader(_Unpacked(packed), 65_536)


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, as long as that is in proportion."""

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


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


class _Repeating(dict[str, Any]):
    """A JSON object that gives a key twice."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    keys = Counter(key for key, _ in pairs)
    repeating = _Repeating(made)
    repeating.key = next(key for key, times in keys.items() if times > 1)
    return repeating


_ID_VALUE = r'\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*"|-?\d{1,18}(?=[\s,}]))'


def _record(line: bytes, number: int, file: File, fields: RecordFields) -> Document | Unreadable:
    """The document of one line, or what is wrong with it."""
    document_id = None
    try:
        source = line.decode("utf-8-sig" if number == 1 else "utf-8")
        record = json.loads(source, object_pairs_hook=_object)
        if not isinstance(record, dict):
            raise ReadError(f"a JSON {type(record).__name__}, not an object")
        document_id = _record_id(record, fields)
        if isinstance(record, _Repeating):
            raise ReadError(f"key {record.key!r} comes twice; leave one of them")
        if document_id is None and file.root != STDIN:
            document_id = f"{file.source}#{number}"
        names = fields.text_fields or ("text",)
        text = "\n\n".join(filter(None, [_string(record, name) for name in names]))
        title = record.get(fields.title_field or "title") or ""
        if text and not text.isspace():
            metadata, unread = _metadata(record, fields)
            return Document(
                id=document_id or content_id("stdin", text),
                text=text,
                title=str(title) if isinstance(title, str | int | float) else "",
                source=file.source,
                root=file.root,
                metadata=metadata,
                unread=unread,
            )
        return Unreadable(
            source=file.source, reason="empty", root=file.root, line=number, skipped=True,
            document_id=document_id, kind="empty",
        )  # fmt: skip
    except ReadError as error:
        reason = str(error)
    except (ValueError, RecursionError) as error:  # JSON's and Unicode's errors are ValueErrors
        reason = f"not JSON: {error}"
    return Unreadable(
        source=file.source,
        reason=reason,
        root=file.root,
        line=number,
        document_id=document_id or _told_id(line, fields),
    )


def _told_id(line: bytes, fields: RecordFields) -> str | None:
    """The id of a line that is no record, where it can still be told."""
    names = re.escape(fields.id_field) if fields.id_field else "_?id"
    source = line.decode("utf-8", "replace")
    found = re.search(rf'(?<!\\)"(?:{names})"' + _ID_VALUE, source)
    try:
        return str(json.loads(found[1])) if found else None
    except ValueError:
        return None


def _string(record: Mapping[str, Any], name: str) -> str:
    """A text field's text."""
    if name not in record:
        raise ReadError(
            f"no field {name!r}; it has {', '.join(map(repr, record)) or 'none'}: "
            "choose the text fields among them"
        )
    if not isinstance(record[name], str):
        raise ReadError(f"field {name!r} is {type(record[name]).__name__}, not a string")
    return str(record[name])


def _record_id(record: Mapping[str, Any], fields: RecordFields) -> str | None:
    """A record's own id, if it has one."""
    names = [fields.id_field] if fields.id_field else ["_id", "id"]
    for name in names:
        value = record.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
        if value is not None or fields.id_field:
            raise ReadError(f"field {name!r} is {value!r}; an id is a string or an integer")
    return None


def _metadata(
    record: Mapping[str, Any], fields: RecordFields
) -> tuple[dict[str, MetadataValue], dict[str, int]]:
    """The flat fields that are nothing else, and counts of those that no filter could compare."""
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
