"""Letters, mailboxes and Rich Text → their text."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterator, Sequence
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from email.policy import EmailPolicy
from email.utils import parsedate_to_datetime
from typing import IO, Any, cast

from dewey_embed.errors import ReadError
from dewey_embed.text import html
from dewey_embed.text.encodings import Decoded, declared, decode
from dewey_embed.text.inputs import Content, ReadLimits
from dewey_embed.text.lines import in_one_line
from dewey_embed.text.markup import usable
from dewey_embed.types import MetadataValue, Unreadable

_FORWARDED = "message/rfc822"
_HEADERS = ("From", "To", "Cc", "Date", "Subject")
MAX_HEADER = 16_384
"""Characters of a header that are parsed; a longer one, of hundreds of receivers, stays as it is.
Parsing takes time with the square of the length."""


class _Policy(EmailPolicy):
    """The usual one for letters, within `MAX_HEADER`, and with what can be read of broken kinds."""

    def header_fetch_parse(self, name: str, value: Any) -> Any:
        """The header, parsed unless it was; without its parameters where they are broken."""
        if hasattr(value, "name"):
            return value
        try:
            return super().header_fetch_parse(name, value[:MAX_HEADER])
        except Exception:
            if not name.lower().startswith("content-"):
                raise
            return super().header_fetch_parse(name, value[:MAX_HEADER].partition(";")[0])


_POLICY = _Policy()


def read_mail(data: bytes) -> Content:
    """A letter (.eml) or saved page (.mht): its headers and body; attachments are counted.

    Sender, receivers and day are its metadata `from`, `to` and `date`.

    Raises:
        ReadError: it has neither headers nor a text.

    """
    try:
        letter = cast("EmailMessage", BytesParser(policy=_POLICY).parsebytes(data))
        return _content(letter, data)
    except (ReadError, MemoryError):
        raise
    except Exception as error:  # the email package raises all kinds of errors on broken letters
        raise ReadError(f"a damaged letter ({type(error).__name__}: {error})") from error


def _content(letter: EmailMessage, data: bytes) -> Content:
    headers = {name: value for name in _HEADERS if (value := _header(letter, name))}
    text, title, unread = _body(letter, data)
    if not text.strip() and not headers:
        attached = "; what is attached is not read" if unread.get("attachments") else ""
        raise ReadError(f"not a letter: it has neither headers nor a text{attached}")
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return Content(
        "\n".join([*lines, "", text]).strip(),
        usable(headers.get("Subject", "")) or title,
        unread,
        metadata=_metadata(headers),
    )


def _header(letter: EmailMessage, name: str) -> str:
    """A header in one line, as far as its encoding lets it be read."""
    raw = next((value for key, value in letter.raw_items() if key.lower() == name.lower()), "")
    try:
        as_bytes = str(raw).encode("ascii", "surrogateescape")
        if as_bytes.isascii() and len(as_bytes) <= MAX_HEADER:
            return in_one_line(str(letter[name] or ""))
        return in_one_line(decode(as_bytes).text)
    except UnicodeEncodeError:
        return in_one_line(str(raw).encode("utf-8", "replace").decode())
    except Exception:  # the email package raises all kinds of errors on broken headers
        return in_one_line(str(raw).encode("ascii", "replace").decode())


def _metadata(headers: dict[str, str]) -> dict[str, MetadataValue]:
    """What letters are filtered by; a day is written as in 2024-05-31."""
    found: dict[str, MetadataValue] = {
        name.lower(): headers[name] for name in ("From", "To") if name in headers
    }
    # it may have no date, or none that can be read
    with contextlib.suppress(KeyError, ValueError, TypeError, IndexError, OverflowError):
        found["date"] = parsedate_to_datetime(headers["Date"]).date().isoformat()
    return found


def _body(letter: EmailMessage, data: bytes) -> tuple[str, str, dict[str, int]]:
    """The text of a letter, a page's own title, and counts of what is left out."""
    is_cut = letter.get_content_maintype() == "multipart" and not letter.is_multipart()
    try:
        if is_cut:
            raise ValueError("parts without a boundary")
        bodies = [letter.get_body((kind,)) for kind in ("plain", "html")]
        attachments = sum(1 for _ in letter.iter_attachments()) if letter.is_multipart() else 0
    except Exception:  # parts that are not what the headers say
        decoded = decode(data.replace(b"\r\n", b"\n").partition(b"\n\n")[2])
        return decoded.text, "", {**decoded.unread, "damaged parts": 1}
    if not letter.is_multipart() and not any(bodies):
        attachments = 1
    if letter.get_content_type() == _FORWARDED and letter.is_multipart():
        inner = letter.get_content()
        if inner.get_content_type() != _FORWARDED:
            found = _content(inner, data)
            return found.text, found.title, dict(found.unread)
        attachments = 1
    decoded, title = _first_text([body for body in bodies if body is not None])
    unread = decoded.unread | ({"attachments": attachments} if attachments else {})
    return decoded.text, title, unread


def _first_text(bodies: Sequence[MIMEPart]) -> tuple[Decoded, str]:
    """The first text of the same words in several kinds, and a page's title.

    Raises:
        ReadError: none of them is a text, and one cannot be read.

    """
    fault = None
    for body in bodies:
        try:
            decoded = _decoded(body)
        except ReadError as error:
            fault = fault or error
            continue
        title = ""
        if body.get_content_subtype() == "html":
            page = html.visible(decoded.text)
            title = page.title
            decoded = decoded._replace(text=page.text)
        if decoded.text.strip():
            return decoded, title
    if fault:
        raise fault
    return Decoded(""), ""


# A line that begins a letter in a mailbox: the sender and a time.
_BEGINS = re.compile(rb"From .{0,200}\d:\d\d.{0,40}\d{4}")
_HEADER = re.compile(rb"[!-9;-~]+:[ \t]|[!-9;-~]+:\r?\n")
_QUOTED = re.compile(rb"(?m)^>(>*From )")


def read_mailbox(stream: IO[bytes], limits: ReadLimits) -> Iterator[Content | Unreadable]:
    """Each letter of a mailbox (.mbox); one that cannot be read is named by its number.

    Raises:
        ReadError: there is no letter in it.

    """
    number = 0
    for number, data in enumerate(_letters(stream, limits.max_text_bytes), start=1):
        if data is None:
            reason = f"letter {number} is {limits.too_long()}"
            yield Unreadable(source="", reason=reason, line=number, document_id="")
            continue
        try:
            yield read_mail(_QUOTED.sub(rb"\1", data))._replace(line=number)
        except ReadError as error:
            body = data.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
            if not (body if _HEADER.match(data) else data).strip():
                yield Content("", line=number)  # which is passed over
            else:
                reason = f"letter {number}: {error}"
                yield Unreadable(source="", reason=reason, line=number, document_id="")
    if not number:
        raise ReadError("a mailbox without letters")


def _letters(stream: IO[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """The letters of a mailbox, and `None` for one that is longer than `max_bytes`."""
    letter: list[bytes] = []
    size = 0
    has_begun = False
    before = b"\n"
    line = stream.readline(max_bytes)
    while line:
        following = stream.readline(max_bytes)
        begins = line.startswith(b"From ") and (
            _BEGINS.match(line) or (not before.strip() and _HEADER.match(following))
        )
        if begins:
            if has_begun:
                yield b"".join(letter) if size <= max_bytes else None
            letter, size, has_begun = [], 0, True
        else:
            size += len(line)
            has_begun = has_begun or bool(line.strip())
            if size <= max_bytes:
                letter.append(line)
        before, line = line, following
    if has_begun:
        yield b"".join(letter) if size <= max_bytes else None


_BASE64_LINE = re.compile(r"(?m)^[A-Za-z0-9+/]+={0,2}(?=\r?$)")


def _decoded(part: MIMEPart) -> Decoded:
    """The text of a part, in the encoding that it declares unless that is false."""
    is_base64 = str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "base64"
    if is_base64:
        typed = str(part.get_payload())
        in_base64 = sum(map(len, _BASE64_LINE.findall(typed)))
        is_base64 = in_base64 >= len("".join(typed.split())) / 2
        if not is_base64:
            del part["Content-Transfer-Encoding"]  # which is false
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return Decoded(str(part.get_payload()))
    if not is_base64 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ReadError("marked as UTF-16, which letters hold in base64 alone; it is damaged")
    name = declared(part.get_content_charset() or "")
    try:
        return Decoded(data.decode(name)) if name else decode(data)
    except UnicodeError:
        return decode(data)


_RICH_CHARACTERS = re.compile(rb"\\(mac|pca|pc)\b")
_RICH_ENCODINGS = {b"mac": "mac_roman", b"pca": "cp850", b"pc": "cp437"}
_RICH_NOTE = re.compile(rb"\\(?:footnote|annotation)\b")


def read_rich_text(data: bytes) -> Content:
    """The text of an .rtf file; notes and damaged characters are counted.

    Raises:
        ReadError: it is not Rich Text, or without text.

    """
    from striprtf.striprtf import rtf_to_text

    if not data.lstrip().startswith(b"{\\rtf"):
        raise ReadError("not a Rich Text file (.rtf): it does not begin with {\\rtf")
    declared_set = _RICH_CHARACTERS.search(data, 0, 200)
    encoding = _RICH_ENCODINGS[declared_set[1]] if declared_set else "cp1252"
    text: str = rtf_to_text(data.decode("latin-1"), encoding, "replace")  # type: ignore[no-untyped-call]
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # pairs joined
    text = text.replace("\0", "").strip()
    if not text:
        raise ReadError("a Rich Text file without text; if it holds pictures of text, run OCR")
    unread = {"notes": len(_RICH_NOTE.findall(data)), "damaged characters": text.count("\ufffd")}
    return Content(text, "", {kind: number for kind, number in unread.items() if number})
