"""Lines of a JSONL file → documents; and the values that readers share.

Knows nothing of folders or of how a file was opened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dewey_embed.errors import ReadError
from dewey_embed.types import Document, MetadataValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file, or a line of one, that gave no document, and why.

    `source` and `root` are what its documents would have had. `skipped` marks what nobody would
    call a failure: a file of an unknown kind in a folder, an empty file or record.
    """

    source: str
    reason: str
    root: str = ""
    line: int | None = None
    skipped: bool = False

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.source}{line}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFields:
    """Which fields of a JSONL record are what; all other flat ones are metadata.

    Several text fields are joined by a blank line; none given means `text`. Without `id_field`
    the id is `_id` or `id` if there is one, else the file and line; without `title_field` the
    title is `title` if there is one.
    """

    text_fields: tuple[str, ...] = ()
    id_field: str | None = None
    title_field: str | None = None


class File(NamedTuple):
    """A file to read: where it is, what it was found under, and its folder within that."""

    path: Path
    source: str
    root: str
    folder: str


def read_records(
    lines: Iterable[bytes], file: File, fields: RecordFields
) -> Iterator[Document | Unreadable]:
    """One document for each line of a JSONL file."""
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if number == 1 and b"\0" in line:
                yield Unreadable(source=file.source, reason="binary, not JSONL", root=file.root)
                return
            if line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield _record(line, number, file, fields)
    except (OSError, EOFError, zlib.error) as error:
        reason = f"damaged after line {number} ({error})"
        yield Unreadable(source=file.source, reason=reason, root=file.root)


def _record(line: bytes, number: int, file: File, fields: RecordFields) -> Document | Unreadable:
    """The document of one line, or what is wrong with it."""
    names = fields.text_fields or ("text",)
    try:
        source = line.decode("utf-8-sig" if number == 1 else "utf-8")
        record = json.loads(source, parse_constant=lambda _: None)  # NaN is no JSON
        if not isinstance(record, dict):
            raise ReadError(f"a JSON {type(record).__name__}, not an object")
        text = "\n\n".join(filter(None, [_string(record, name) for name in names]))
        document_id = _record_id(record, fields) or f"{file.source}#{number}"
        title = record.get(fields.title_field or "title") or ""
    except ReadError as error:
        reason = str(error)
    except (ValueError, RecursionError) as error:  # JSON's and Unicode's errors are ValueErrors
        reason = f"not JSON: {error}"
    else:
        if text and not text.isspace():
            return Document(
                id=document_id,
                text=text,
                title=str(title),
                source=file.source,
                root=file.root,
                metadata=_metadata(record, fields),
            )
        return Unreadable(
            source=file.source, reason="empty", root=file.root, line=number, skipped=True
        )
    return Unreadable(source=file.source, reason=reason, root=file.root, line=number)


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


def _record_id(record: Mapping[str, Any], fields: RecordFields) -> str:
    """A record's own id, or nothing."""
    names = [fields.id_field] if fields.id_field else ["_id", "id"]
    for name in names:
        value = record.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
        if value is not None or fields.id_field:
            raise ReadError(f"field {name!r} is {value!r}; an id is a string or an integer")
    return ""


def _metadata(record: Mapping[str, Any], fields: RecordFields) -> dict[str, MetadataValue]:
    """The flat fields that are nothing else."""
    used = {*(fields.text_fields or ("text",)), fields.title_field or "title"}
    used |= {fields.id_field} if fields.id_field else {"_id", "id"}
    return {
        name: value
        for name, value in record.items()
        if name not in used and isinstance(value, str | int | float | bool | None)
    }
