"""A PDF → its text, page by page, with its notes and form fields; parsing is PDFium's."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from dewey_embed.errors import ReadError
from dewey_embed.text.inputs import Content
from dewey_embed.text.markup import usable

if TYPE_CHECKING:
    import pypdfium2

# U+FFFE is PDFium's mark for a hyphen that only ends a line.
_LINE_HYPHEN = re.compile("\ufffe(\r\n)?|\0")
# Glyphs of a font that does not say which letters they are.
_NO_LETTER = re.compile("[\ue000-\uf8ff\ufffd\x01-\x08\x0e-\x1f]")
_MAX_NOTE_BYTES = 1_000_000


def read_pdf(stream: IO[bytes]) -> Content:
    """A PDF's text, with a blank line between pages, and the title in its properties.

    A page's notes and the values of its form's fields follow its text. Pages without text and
    attached files are counted.

    Raises:
        ReadError: it is damaged, protected by a password, or without text.

    """
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(stream)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise ReadError("protected by a password; save a copy without it") from None
        raise ReadError(f"not a PDF that can be opened, or damaged ({error})") from None
    try:
        return _content(pdf)
    except pypdfium2.PdfiumError as error:
        raise ReadError(f"damaged PDF ({error})") from None
    finally:
        pdf.close()


def _content(pdf: pypdfium2.PdfDocument) -> Content:
    from pypdfium2 import raw

    title = usable(pdf.get_metadata_value("Title"))
    if pdf.get_formtype():
        pdf.init_forms()
    unread = Counter({"attachments": pdf.count_attachments()})
    pages = []
    for number in range(len(pdf)):
        page = pdf[number]
        textpage = page.get_textpage()
        text = _LINE_HYPHEN.sub("", textpage.get_text_range()).strip()
        if not text and raw.FPDFPage_CountObjects(page):
            unread["pages without text"] += 1
        elif len(_NO_LETTER.findall(text)) > len(text) / 3:
            unread["pages in characters that mean nothing"] += 1
        pages.append("\n".join([text, *_notes(page, pdf.formenv, unread)]).strip())
        textpage.close()
        page.close()
    text = "\n\n".join(filter(None, pages)).replace("\r\n", "\n").strip()
    if not text:
        raise ReadError("its pages hold no text; if it is a scan, run OCR over it first")
    return Content(text, title, {kind: number for kind, number in unread.items() if number})


def _notes(page: Any, form: Any, unread: Counter[str]) -> list[str]:
    """The texts of a page's annotations and fields, each once."""
    from pypdfium2 import raw

    found: dict[str, None] = {}
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        text = ""
        if kind == raw.FPDF_ANNOT_WIDGET and form:
            text = _field(form, annotation)
        elif kind not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_WIDGET):
            text = _string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
        if kind == raw.FPDF_ANNOT_FILEATTACHMENT:
            unread["attachments"] += 1
        if text.strip():
            found[text.strip()] = None
        raw.FPDFPage_CloseAnnot(annotation)
    return list(found)


def _field(form: Any, annotation: Any) -> str:
    """A field's name and value; a check box that is not ticked has none."""
    from pypdfium2 import raw

    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind not in (
        raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX,
        raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON,
    ):  # fmt: skip
        return ""
    value = _string(raw.FPDFAnnot_GetFormFieldValue, form, annotation)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON) and (
        not raw.FPDFAnnot_IsChecked(form, annotation) or value == "Off"
    ):
        return ""
    name = _string(raw.FPDFAnnot_GetFormFieldAlternateName, form, annotation) or _string(
        raw.FPDFAnnot_GetFormFieldName, form, annotation
    )
    return f"{name}: {value}" if name and value.strip() else value


def _string(get: Any, *arguments: Any) -> str:
    """A string of PDFium's, which takes one call for its length and one for its text."""
    size = get(*arguments, None, 0)
    if not 2 < size <= _MAX_NOTE_BYTES:
        return ""
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    get(*arguments, buffer, size)
    return bytes(buffer)[: size - 2].decode("utf-16-le", "replace").replace("\r", "\n")
