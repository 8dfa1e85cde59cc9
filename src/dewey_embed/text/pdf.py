"""A PDF → its text, page by page, with its notes and form fields; parsing is PDFium's.

Where the headings of its outline stand is found in `outline`.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from dewey_embed.errors import ReadError
from dewey_embed.text.headings import MAX_TITLE
from dewey_embed.text.inputs import Content
from dewey_embed.text.lines import in_one_line
from dewey_embed.text.markup import usable
from dewey_embed.text.outline import MAX_SOUGHT, Bookmark, headings, place
from dewey_embed.types import Landmark

if TYPE_CHECKING:
    import pypdfium2

# U+FFFE is PDFium's mark for a hyphen that only ends a line.
_LINE_HYPHEN = re.compile("\ufffe(\r\n)?|\0")
# Glyphs of a font that does not say which letters they are.
_NO_LETTER = re.compile("[\ue000-\uf8ff\ufffd\x01-\x08\x0e-\x1f]")
_MAX_NOTE_BYTES = 1_000_000
# Counting past 2**31 goes on below zero.
_NEGATIVE = re.compile(r"(^|-)-\d+$|-\d{10,}$")
_MAX_LABEL = 40
"""Characters of a number printed on a page, such as `A-12`."""
_MAX_BOOKMARKS = 100_000
_MAX_DEPTH = 50
_BETWEEN_PAGES = "\n\n"


def read_pdf(stream: IO[bytes]) -> Content:
    """A PDF's text, with a blank line between pages, and the title in its properties.

    A page's notes and the values of its form's fields follow its text. Pages without text and
    attached files are counted. Landmarks are its pages, with the numbers printed on them, and the
    headings of its outline.

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
    title = usable(pdf.get_metadata_value("Title"))
    if pdf.get_formtype():
        pdf.init_forms()
    unread = Counter({"attachments": pdf.count_attachments()})
    bookmarks = _bookmarks(pdf)
    on_page: dict[int, list[Bookmark]] = defaultdict(list)
    for bookmark in bookmarks:
        on_page[bookmark.page].append(bookmark)
    texts: list[str] = []
    starts = []  # of each page, where its text begins or would begin
    landmarks = []
    length = 0
    for index in range(len(pdf)):
        text, own_length = _page(pdf, index, unread, on_page[index])
        starts.append(length)
        place(on_page[index], text[:own_length], length)
        if text:
            landmarks.append(Landmark(length, "page", index + 1, _label(pdf, index)))
            texts.append(text)
            length += len(text) + len(_BETWEEN_PAGES)
    text = _BETWEEN_PAGES.join(texts)
    if not text:
        raise ReadError("its pages hold no text; if it is a scan, run OCR over it first")
    landmarks += [each for each in headings(bookmarks, starts) if each.char < len(text)]
    landmarks.sort(key=lambda each: each.char)
    counted = {kind: number for kind, number in unread.items() if number}
    return Content(text, title, counted, landmarks=landmarks)


def _page(
    pdf: pypdfium2.PdfDocument, index: int, unread: Counter[str], bookmarks: Sequence[Bookmark]
) -> tuple[str, int]:
    """A page's text with its notes, and how long it is without them.

    For the `bookmarks` that lead to it, it is set how much of the text stands above.
    """
    from pypdfium2 import raw

    page = pdf[index]
    textpage = page.get_textpage()
    text = _LINE_HYPHEN.sub("", textpage.get_text_range()).strip().replace("\r\n", "\n")
    if not text and raw.FPDFPage_CountObjects(page):
        unread["pages without text"] += 1
    elif len(_NO_LETTER.findall(text)) > len(text) / 3:
        unread["pages in characters that mean nothing"] += 1
    for bookmark in bookmarks if text and len(bookmarks) <= MAX_SOUGHT else ():
        if bookmark.top is not None:
            below = "".join(textpage.get_text_bounded(top=bookmark.top).split())
            bookmark.share = max(1 - len(below) / len("".join(text.split())), 0.0)
    with_notes = "\n".join([text, *_notes(page, pdf.formenv, unread)]).strip()
    textpage.close()
    page.close()
    return with_notes.replace("\r\n", "\n"), len(text)


def _label(pdf: pypdfium2.PdfDocument, index: int) -> str:
    """The number printed on a page, where it is another than that of the page."""
    from pypdfium2 import raw

    label = in_one_line(_string(raw.FPDF_GetPageLabel, pdf, index))
    is_number = len(label) <= _MAX_LABEL and label.isprintable() and not _NEGATIVE.search(label)
    return label if is_number and label != str(index + 1) else ""


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


def _bookmarks(pdf: pypdfium2.PdfDocument) -> list[Bookmark]:
    """The outline in its order, without what leads out of the file."""
    from pypdfium2 import raw

    found: list[Bookmark] = []
    path: list[Bookmark] = []
    for node, depth in _nodes(pdf):
        title = in_one_line(_string(raw.FPDFBookmark_GetTitle, node))[:MAX_TITLE]
        action = raw.FPDFBookmark_GetAction(node)
        leads_out = action and raw.FPDFAction_GetType(action) != raw.PDFACTION_GOTO
        page, top = (-1, None) if leads_out else _destination(pdf, node)
        path = path[:depth]
        bookmark = Bookmark(title, path[-1] if path else None, page, top, None, bool(leads_out))
        path.append(bookmark)
        found.append(bookmark)
    return found


def _nodes(pdf: pypdfium2.PdfDocument) -> Iterator[tuple[Any, int]]:
    """The nodes of the outline with their depth, each once: damaged ones lead back to others."""
    from pypdfium2 import raw

    seen: set[int] = set()
    stack = [(raw.FPDFBookmark_GetFirstChild(pdf, None), 0)]
    while stack and len(seen) < _MAX_BOOKMARKS:
        node, depth = stack.pop()
        if not node or (address := ctypes.addressof(node.contents)) in seen:
            continue
        seen.add(address)
        yield node, depth
        stack.append((raw.FPDFBookmark_GetNextSibling(pdf, node), depth))
        if depth < _MAX_DEPTH:
            stack.append((raw.FPDFBookmark_GetFirstChild(pdf, node), depth + 1))


def _destination(pdf: pypdfium2.PdfDocument, node: Any) -> tuple[int, float | None]:
    """The index of the page that a bookmark leads to, or -1, and the height on it, if known."""
    from pypdfium2 import raw

    destination = raw.FPDFBookmark_GetDest(pdf, node)
    page = raw.FPDFDest_GetDestPageIndex(pdf, destination) if destination else -1
    if not 0 <= page < len(pdf):
        return -1, None
    flags = [ctypes.c_int() for _ in range(3)]
    places = [ctypes.c_float() for _ in range(3)]
    known = raw.FPDFDest_GetLocationInPage(destination, *flags, *places)
    return page, places[1].value if known and flags[1].value else None
