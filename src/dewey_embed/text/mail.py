"""Letters, notebooks and Rich Text → their text."""

from __future__ import annotations

import json
import re
from email import policy
from email.message import MIMEPart
from email.parser import BytesParser
from typing import Any

from dewey_embed.errors import ReadError
from dewey_embed.text import html
from dewey_embed.text.encodings import Decoded, declared, decode
from dewey_embed.text.inputs import Content
from dewey_embed.text.markup import first_heading, usable

_HEADERS = ("From", "To", "Cc", "Date", "Subject")


def read_mail(data: bytes) -> Content:
    """A letter (.eml) or saved page (.mht): its headers and body; attachments are counted.

    Raises:
        ReadError: it has neither headers nor a text.

    """
    letter = BytesParser(policy=policy.default).parsebytes(data)
    headers = [f"{name}: {letter[name]}" for name in _HEADERS if letter[name]]
    body = letter.get_body(("plain", "html", "related"))
    title = usable(str(letter["Subject"] or ""))
    text = ""
    unread: dict[str, int] = {}
    if body is not None and not body.is_multipart():
        decoded = _decoded(body)
        text = decoded.text
        unread |= decoded.unread
        if body.get_content_subtype() == "html":
            text, own = html.visible(text)
            title = title or own
    if not text.strip() and not headers:
        raise ReadError("not a letter: it has neither headers nor a text")
    attachments = sum(1 for _ in letter.iter_attachments()) if letter.is_multipart() else not body
    if attachments:
        unread["attachments"] = int(attachments)
    return Content("\n".join([*headers, "", text]).strip(), title, unread)


def _decoded(part: MIMEPart) -> Decoded:
    """The text of a part, in the encoding that it declares unless that is false."""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return Decoded(str(part.get_payload()))
    name = declared(part.get_content_charset() or "")
    try:
        return Decoded(data.decode(name)) if name else decode(data)
    except UnicodeError:
        return decode(data)


def read_notebook(data: bytes) -> Content:
    """A Jupyter notebook's cells, with blank lines between; their outputs are counted.

    Raises:
        ReadError: it is damaged, or not a notebook.

    """
    try:
        decoded = decode(data)
        notebook = json.loads(decoded.text)
        cells = notebook["cells"] if "cells" in notebook else _old_cells(notebook)
        sources = [_joined(cell.get("source", cell.get("input", ""))) for cell in cells]
        prose = [
            source
            for cell, source in zip(cells, sources, strict=True)
            if cell.get("cell_type") in ("markdown", "heading")
        ]
        outputs = sum(len(cell.get("outputs") or ()) for cell in cells)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"not a Jupyter notebook, or damaged ({error})") from None
    unread = decoded.unread | ({"cell outputs": outputs} if outputs else {})
    title = next(filter(None, map(first_heading, prose)), "")
    return Content("\n\n".join(source for source in sources if source.strip()), title, unread)


def _old_cells(notebook: Any) -> list[Any]:
    """The cells of a notebook of format 3."""
    return [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]


def _joined(source: Any) -> str:
    return source if isinstance(source, str) else "".join(source)


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
