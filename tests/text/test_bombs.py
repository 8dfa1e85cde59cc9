"""Small files that would unpack, expand or nest without end: left out, or read up to there."""

import io
import os
import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from dewey_embed.errors import ReadError
from dewey_embed.text.formats import read
from dewey_embed.text.inputs import DEFAULT_LIMITS, ReadLimits, ReadOptions
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Unreadable

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
BODY = "<w:body><w:p><w:r><w:t>seen</w:t></w:r></w:p></w:body>"
SHEET = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
LAUGHS = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
BILLION_LAUGHS = f'<!DOCTYPE d [<!ENTITY e0 "ha">{LAUGHS}]>'
SECONDS = 20
"""Processor time that any of these may take, with much to spare on a busy machine."""


def archive(parts: dict[str, str | bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in parts.items():
            package.writestr(name, data)
    return stream.getvalue()


def word(document: str, **others: str | bytes) -> bytes:
    return archive({"word/document.xml": document, **others})


def workbook(rows: str, declared: str = "") -> bytes:
    kinds = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    main = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    return archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Override '
            f'PartName="/xl/workbook.xml" ContentType="{main}"/></Types>',
            "xl/workbook.xml": f'<workbook {SHEET} xmlns:r="{kinds}"><sheets>'
            '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
            f'<Relationship Id="r1" Type="{kinds}/worksheet" Target="worksheets/s.xml"/>'
            "</Relationships>",
            "xl/worksheets/s.xml": f"<worksheet {SHEET}>{declared}<sheetData>{rows}</sheetData>"
            "</worksheet>",
        }
    )


def found(path: Path, data: bytes, **limits: float) -> list[Document | Unreadable]:
    """What the reader makes of a file, in its process, within the time of all these."""
    path.write_bytes(data)
    start = time.process_time()
    given = ReadLimits(**limits) if limits else DEFAULT_LIMITS  # type: ignore[arg-type]
    items = list(read_documents([path], limits=given))
    assert time.process_time() - start < SECONDS
    return items


def here(name: str, data: bytes) -> list:
    """What a reader yields in this process; a reason in place of an error."""
    start = time.process_time()
    try:
        return list(read(name, io.BytesIO(data), ReadOptions()))
    except ReadError as error:
        return [str(error)]
    finally:
        assert time.process_time() - start < SECONDS


def test_an_archive_within_an_archive_is_counted_and_never_unpacked(tmp_path):
    inner = b"\0" * 10_000_000
    for _ in range(5):
        inner = archive({"bomb": inner, "again": inner})
    data = word(f"<w:document {W}>{BODY}</w:document>", **{"word/embeddings/a.docx": inner})
    [document] = found(tmp_path / "a.docx", data, file_memory_mb=200)
    assert document.text == "seen"
    assert document.unread == {"embedded files": 1}


def test_a_part_that_unpacks_to_more_than_it_says_is_damage_and_takes_no_memory(tmp_path):
    real = word(f"<w:document {W}>" + " " * 100_000_000 + "</w:document>")
    size = struct.pack("<L", 100_000_000 + len(f"<w:document {W}></w:document>"))
    assert real.count(size) == 2
    [fault] = found(tmp_path / "a.docx", real.replace(size, struct.pack("<L", 1000)),
                    file_memory_mb=100)  # fmt: skip
    assert isinstance(fault, Unreadable)
    assert "memory" not in fault.reason


def test_archives_whose_parts_share_their_bytes_are_refused(tmp_path):
    """A thousand names for one packed part, as in the zip bomb of D. Fifield."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("word/document.xml", f"<w:document {W}>{BODY}</w:document>")
        package.writestr("word/header0.xml", b" " * 20_000_000)
        first = package.infolist()[1]
        for number in range(1, 1000):
            other = zipfile.ZipInfo(f"word/header{number}.xml")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(other, name, getattr(first, name))
            package.filelist.append(other)
            package.NameToInfo[other.filename] = other
    [fault] = found(tmp_path / "a.docx", stream.getvalue(), file_timeout_s=5)
    assert isinstance(fault, Unreadable)


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        (".docx", word(f"{BILLION_LAUGHS}<w:document {W}><w:body><w:p><w:r><w:t>seen &e9;</w:t>"
                       "</w:r></w:p></w:body></w:document>")),
        (".docx", word(f'{BILLION_LAUGHS}<w:document {W} a="&e9;">{BODY}</w:document>')),
        (".docx", word(f'<!DOCTYPE d [<!ENTITY e "{"a" * 100_000}">]><w:document {W}><w:body><w:p>'
                       f"<w:r><w:t>seen{'&e;' * 100_000}</w:t></w:r></w:p></w:body></w:document>")),
        (".docx", word('<!DOCTYPE d [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>'
                       f"<w:document {W}>{BODY}</w:document>")),
        (".docx", word(f'<!DOCTYPE d SYSTEM "http://127.0.0.1:9/d.dtd"><w:document {W}>{BODY}'
                       "</w:document>")),
    ],
    ids=["laughs", "laughs in an attribute", "quadratic", "parameter", "remote"],
)  # fmt: skip
def test_entities_are_not_multiplied_in_texts_or_attributes_nor_fetched(tmp_path, extension, data):
    [item] = found(tmp_path / f"a{extension}", data, file_memory_mb=300, file_timeout_s=10)
    text = item.text if isinstance(item, Document) else item.reason
    assert len(text) < 1000
    assert "root:" not in text


@pytest.mark.parametrize("name", ["xl/workbook.xml", "xl/worksheets/s.xml"])
def test_entities_are_not_multiplied_in_workbooks(tmp_path, name):
    with zipfile.ZipFile(io.BytesIO(workbook('<row><c t="str"><v>seen</v></c></row>'))) as package:
        parts = {each: package.read(each) for each in package.namelist()}
    start, _, rest = parts[name].decode().partition(">")
    parts[name] = f"{BILLION_LAUGHS}{start}><x>&e9;</x>{rest}"
    [item] = found(tmp_path / "a.xlsx", archive(parts), file_memory_mb=300, file_timeout_s=10)
    assert "memory" not in str(item)
    assert "more than 10 s" not in str(item)


def test_cells_that_are_only_declared_cost_nothing(tmp_path):
    one = '<row r="1"><c r="A1" t="str"><v>seen</v></c></row>'
    [sized] = found(tmp_path / "a.xlsx", workbook(one, '<dimension ref="A1:XFD1048576"/>'))
    assert sized.text == "seen"
    far = '<row r="1000000000"><c r="A1000000000" t="str"><v>far</v></c></row>'
    [rows] = found(tmp_path / "b.xlsx", workbook(one + far))
    assert (rows.text, rows.unread) == ("seen", {"damaged sheets": 1})
    wide = '<row r="2"><c r="ZZZZZZZ2" t="str"><v>far</v></c></row>'
    [columns] = found(tmp_path / "c.xlsx", workbook(one + wide), file_memory_mb=200)
    assert isinstance(columns, Unreadable) or columns.unread == {"damaged sheets": 1}


def test_repeated_cells_are_counted_and_not_written_out():
    names = 'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    names += 'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    names += 'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
    cell = '<table:table-cell table:number-columns-repeated="1000000000"><text:p>a</text:p>'
    row = f'<table:table-row table:number-rows-repeated="1000000000">{cell}</table:table-cell>'
    inner = f"<office:body><office:spreadsheet><table:table>{row}</table:table-row></table:table>"
    content = f"<office:d {names}>{inner}</office:spreadsheet></office:body></office:d>"
    [item] = here("opendocument", archive({"content.xml": content}))
    assert len(item.text) < 100_000
    assert item.unread["repeated rows"] == 999_999_900
    deep = "<table:table><table:table-row><table:table-cell>" * 600
    ends = "</table:table-cell></table:table-row></table:table>" * 600
    content = f"<office:d {names}><office:body><office:spreadsheet>{deep}<text:p>a</text:p>{ends}"
    content += "</office:spreadsheet></office:body></office:d>"
    [item] = here("opendocument", archive({"content.xml": content}))
    assert item.text == "a"


def pdf(*objects: bytes) -> bytes:
    numbered = [b"%d 0 obj %s endobj\n" % pair for pair in enumerate(objects, start=1)]
    return b"%PDF-1.5\n" + b"".join(numbered) + b"trailer <</Root 1 0 R>>\n%%EOF"


def stream(data: bytes, entries: bytes = b"/Filter/FlateDecode") -> bytes:
    return b"<<%s/Length %d>> stream\n%s\nendstream" % (entries, len(data), data)


CATALOG = b"<</Type/Catalog/Pages 2 0 R/Outlines 6 0 R>>"
PAGES = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>"
PAGE += b"/XObject<</X 7 0 R>>>>>>"
FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
TEXT = b"BT /F 1 Tf (seen) Tj ET /X Do"
NO_OUTLINE = b"<<>>"
IMAGE = (
    b"/Type/XObject/Subtype/Image/Width 60000/Height 60000/BitsPerComponent 8/ColorSpace/DeviceRGB"
)
PDF_BOMBS = {
    "deflated twice": pdf(
        CATALOG, PAGES, PAGE,
        stream(zlib.compress(zlib.compress(b" " * 100_000_000)),
               b"/Filter[/FlateDecode/FlateDecode]"), FONT, NO_OUTLINE, b"null"),
    "image": pdf(
        CATALOG, PAGES, PAGE, stream(TEXT, b""), FONT, NO_OUTLINE,
        stream(zlib.compress(b"\0" * 50_000_000), IMAGE + b"/Filter/FlateDecode")),
    "JBIG2": pdf(
        CATALOG, PAGES, PAGE, stream(TEXT, b""), FONT, NO_OUTLINE,
        stream(b"\0\0\0\0\x30\0\1\0\0\0\x13\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(11),
               IMAGE + b"/Filter/JBIG2Decode")),
    "page of kilometres": pdf(
        CATALOG, PAGES, PAGE.replace(b"[0 0 9 9]", b"[0 0 1e30 1e30]"), stream(TEXT, b""), FONT,
        NO_OUTLINE, b"null"),
    "outline that leads to itself": pdf(
        CATALOG, PAGES, PAGE, stream(TEXT, b""), FONT,
        b"<</First 8 0 R/Last 8 0 R>>", b"null", b"<</Title(a)/First 8 0 R/Next 8 0 R>>"),
    "deep outline": pdf(
        CATALOG, PAGES, PAGE, stream(TEXT, b""), FONT, b"<</First 8 0 R>>", b"null",
        *(b"<</Title(a)/First %d 0 R>>" % (number + 9) for number in range(20_000))),
    "pages that lead to themselves": pdf(
        CATALOG, b"<</Type/Pages/Kids[2 0 R 2 0 R 3 0 R]/Count 2000000000>>", PAGE,
        stream(TEXT, b""), FONT, NO_OUTLINE, b"null"),
    "object stream": pdf(
        CATALOG, PAGES, PAGE, stream(TEXT, b""), FONT, NO_OUTLINE, b"null",
        stream(zlib.compress(b"9 0 " * 10_000_000), b"/Type/ObjStm/N 100000000/First 40000000"
               b"/Filter/FlateDecode")),
    "nested arrays": pdf(CATALOG, PAGES, PAGE, stream(TEXT, b""), FONT, b"[" * 1_000_000, b"null"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PDF_BOMBS)
def test_a_pdf_that_would_grow_is_read_or_left_out(tmp_path, kind):
    data = PDF_BOMBS[kind]
    assert len(data) < 2_000_000
    [item] = found(tmp_path / "a.pdf", data, file_memory_mb=400, file_timeout_s=8)
    text = item.text if isinstance(item, Document) else item.reason
    assert "seen" in text or "more than" in text or "damaged" in text or "no text" in text


@pytest.mark.parametrize(
    "header",
    [
        "To: " + "a <b@c.d>, " * 100_000,
        "To: " + "a\n " * 300_000,
        "Content-Type: text/plain" + "".join(f"; a*{number}=b" for number in range(100_000)),
        "Subject: " + "=?utf-8?q?a?= " * 70_000,
        "Content-Type: multipart/mixed; boundary=" + "(" * 1_000_000,
    ],
    ids=["receivers", "folded", "parameters", "encoded", "comments"],
)
def test_a_letter_with_endless_headers_is_read(header):
    [letter] = here("mail", f"From: Ann\n{header}\n\nThe rent is due.".encode())
    assert letter.text.startswith("From: Ann")


def test_a_letter_that_is_broken_costs_itself_alone():
    deep = "Content-Type: message/rfc822\n\n" * 5000
    broken = "Content-Type: text/plain; a*\n\nstill read"
    begins = "From a@b Mon Jan  1 10:00:00 2024\n"
    data = f"{begins}Subject: one\n\nx\n\n{begins}{deep}\n\n{begins}{broken}\n\n{begins}A: b\n\nz\n"
    first, second, third, last = here("mailbox", data.encode())
    assert (first.text, third.text, last.text) == ("Subject: one\n\nx", "still read", "z")
    assert "damaged letter" in second.reason


def test_a_mailbox_of_a_hundred_thousand_letters_is_read_letter_by_letter():
    letter = b"From a@b Mon Jan  1 10:00:00 2024\n\nx\n"
    letters = read("mailbox", io.BytesIO(letter * 100_000), ReadOptions())
    assert [next(letters).text for _ in range(1000)] == ["x"] * 1000


def test_a_message_is_short_whatever_a_file_holds():
    keys = ",".join(f'"{"k" * 1000}{number}": 1' for number in range(5000))
    long = "a" * 1_000_000
    for line in (f"{{{keys}}}", f'{{"{long}": 1, "{long}": 2}}', f'{{"id": ["{long}"]}}'):
        [fault] = here("jsonl", line.encode())
        assert len(fault.reason) < 3000


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_names_that_lead_out_of_an_archive_lead_nowhere(tmp_path):
    (tmp_path / "secret.xhtml").write_text("<p>secret</p>")
    outside = f"../../../../../..{tmp_path}/secret.xhtml"
    book = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<c><rootfile full-path="o/c.opf"/></c>',
        "o/c.opf": f'<p><item id="a" href="{outside}" media-type="application/xhtml+xml"/>'
        '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/><itemref idref="a"/>'
        '<itemref idref="b"/></p>',
        "o/b.xhtml": "<p>seen</p>",
        "../../../outside.txt": "written",
    }
    [item] = found(tmp_path / "a.epub", archive(book))
    assert item.text == "seen"
    assert item.unread == {"damaged chapters": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.epub", "secret.xhtml"]
    assert not (tmp_path.parents[2] / "outside.txt").exists()
