"""Headings of pages, Word files and books, each by files of the format's own writer."""

import zipfile

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

from dewey_embed.text.html import visible
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document
from tests.text.places import one, where

PAGE = """<!doctype html><html><head><title>Lease</title></head><body>
<header><p>A banner</p><h1>Lease of <em>a house</em></h1></header>
<p>Who signs it.</p>
<section><h2>Rent</h2><p>Due monthly.</p>
<aside><h4>See also</h4><p>Other leases.</p></aside>
<section><h3>Late
  payment</h3><p>Five percent.</p></section>
<p>Nothing else is due.</p></section>
<p>Signed in Graz.</p>
<h2 hidden>Unseen</h2>
<h2><img src=x></h2><p>Under a picture.</p>
<pre>
  <h3>Typed</h3>
  as typed</pre>
</body></html>"""


def test_passages_of_a_page_know_the_headings_of_their_section(tmp_path):
    (tmp_path / "a.html").write_text(PAGE)
    found = one(tmp_path / "a.html")
    lease = "Lease of a house"
    for words, headings in [
        ("A banner", ()),
        ("Lease of a house", (lease,)),
        ("Who signs it.", (lease,)),
        ("Rent", (lease, "Rent")),
        ("Due monthly.", (lease, "Rent")),
        ("Other leases.", (lease, "Rent", "See also")),
        ("Five percent.", (lease, "Rent", "Late payment")),
        ("Nothing else is due.", (lease, "Rent")),
        ("Signed in Graz.", (lease,)),
        ("Under a picture.", (lease,)),
        ("as typed", (lease, "Typed")),
    ]:
        place = where(found, words)
        assert (place.headings, place.line, place.page) == (headings, None, None)


@pytest.mark.parametrize(
    ("source", "headings"),
    [
        ("<h2>Last</h2></div><footer>It is here", ()),
        ("<article><h2>Last</h2><footer>It is here</footer></article>", ("Top", "Last")),
        ("<table><tr><td><h2>Menu</h2></td> <td>It is here</td></tr></table>", ("Top",)),
        ("<table><tr> <td><h2>Alone</h2></td> </tr></table>It is here", ("Top", "Alone")),
        ("<ul><li><h2>Item</h2>words</li></ul>It is here", ("Top",)),
        ("<dialog><h2>Asked</h2></dialog>It is here", ("Top",)),
        ("<h2 style='color:red; display: none'>Unseen</h2>It is here", ("Top",)),
        ("<div hidden><h2>Unseen</h2></div>It is here", ("Top",)),
        ("<template><h2>Unseen</h2></template>It is here", ("Top",)),
        ("<h2>Rent<a href='#rent'>¶</a></h2>It is here", ("Top", "Rent")),
        ("<h2>In C#</h2>It is here", ("Top", "In C#")),
        ("<details><summary><h2>More</h2></summary>words</details>It is here", ("Top",)),
        ("<blockquote><h2>Quoted</h2></blockquote>It is here", ("Top",)),
        ("<h2>Rent</h2><h3></h3>It is here", ("Top", "Rent")),
        ("<h2>Rent</h2><table><tr><td><h2>Roof</h2><td>x</table>It is here", ("Top", "Rent")),
        ("<h2>Rent</h2><table><tr><td><h1>Roof</h1><td>x</table>It is here", ("Top", "Rent")),
        ("<h2>Rent</h2><aside><h2>Roof</h2></aside>It is here", ("Top", "Rent")),
        ("<h2>Rent</h2><ul><li><h3>a</h3><li><h2>b</h2></ul>It is here", ("Top", "Rent")),
        ("<h2>Rent</h2><aside><h2>Roof</h2></aside><h2>Fee</h2>It is here", ("Top", "Fee")),
        ("<h2>Rent</h2><nav><h2>Menu</h2></nav>It is here", ("Top", "Rent")),
    ],
)
def test_headings_reach_no_further_than_their_part_of_the_page(tmp_path, source, headings):
    (tmp_path / "a.html").write_text(f"<body><div><h1>Top</h1>{source}")
    assert where(one(tmp_path / "a.html"), "It is here").headings == headings


@pytest.mark.parametrize("blank", ["", " ", "\n \n", "<p> </p>", "<pre>\n\n </pre>"])
def test_headings_begin_at_their_words_whatever_stands_before(blank):
    page = visible(f"{blank}<div>{blank}<h1>{blank}Tides{blank}</h1>{blank}rise<h2>Moon</h2>pulls")
    assert [page.text[each.char :][: len(each.label)] for each in page.headings] == [
        *("Tides", "Moon")
    ]


def word_file(path) -> None:
    made = docx.Document()
    made.core_properties.title = ""
    made.add_paragraph("A preface.")
    made.add_heading("The lease", 0)
    made.add_paragraph("Who signs.")
    made.add_heading("Rent", 1)
    made.add_paragraph("Due monthly.")
    made.add_heading("", 1)
    clause = made.styles.add_style("Clause", WD_STYLE_TYPE.PARAGRAPH)
    clause.base_style = made.styles["Heading 2"]
    made.add_paragraph("Late\npayment", style="Clause")
    made.add_paragraph("Five percent.")
    own = made.add_paragraph("Outlined by itself")
    level = OxmlElement("w:outlineLvl")
    level.set(qn("w:val"), "1")
    own._p.get_or_add_pPr().append(level)
    made.add_paragraph("Still due.")
    table = made.add_table(1, 2)
    table.cell(0, 0).paragraphs[0].text = "Roof"
    table.cell(0, 0).paragraphs[0].style = "Heading 1"
    table.cell(0, 1).text = "leaks"
    body = made.add_paragraph("No heading", style="Heading 1")
    level = OxmlElement("w:outlineLvl")
    level.set(qn("w:val"), "9")
    body._p.get_or_add_pPr().append(level)
    made.sections[0].footer.paragraphs[0].text = "At the foot of every page"
    made.save(path)


def test_passages_of_a_word_file_know_their_headings(tmp_path):
    word_file(tmp_path / "a.docx")
    found = one(tmp_path / "a.docx")
    assert found.title == "The lease"
    for words, headings in [
        ("A preface.", ()),
        ("The lease", ("The lease",)),
        ("Who signs.", ("The lease",)),
        ("Due monthly.", ("The lease", "Rent")),
        ("Late\npayment", ("The lease", "Rent", "Late payment")),
        ("Five percent.", ("The lease", "Rent", "Late payment")),
        ("Still due.", ("The lease", "Rent", "Outlined by itself")),
        ("leaks", ("The lease", "Roof")),
        ("No heading", ("The lease", "Rent", "Outlined by itself")),
        ("At the foot", ()),
    ]:
        assert where(found, words).headings == headings


def test_headings_in_the_rows_of_a_word_table(tmp_path):
    made = docx.Document()
    made.add_heading("Rent", 1)
    for row in (["Alone"], ["Roof", "leaks"], ["Door", "squeaks"]):
        table = made.add_table(1, len(row))
        for cell, words in zip(table.rows[0].cells, row, strict=True):
            cell.text = words
        table.cell(0, 0).paragraphs[0].style = "Heading 2"
        made.add_paragraph(f"After {row[0]}")
    made.save(tmp_path / "a.docx")
    found = one(tmp_path / "a.docx")
    for words, headings in [
        ("After Alone", ("Rent", "Alone")),
        ("leaks", ("Rent", "Roof")),
        ("After Roof", ("Rent", "Alone")),
        ("squeaks", ("Rent", "Door")),
        ("After Door", ("Rent", "Alone")),
    ]:
        assert where(found, words).headings == headings


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_heading_in_a_cell_leaves_the_section_above_open_after_the_table(tmp_path, level):
    made = docx.Document()
    for title in ("H 0", "S 0"):
        made.add_heading(title, 1 + (title == "S 0"))
    table = made.add_table(2, 2)
    for row in table.rows:
        row.cells[0].text, row.cells[1].text = "Cell", "words"
        row.cells[0].paragraphs[0].style = f"Heading {level}"
    made.add_paragraph("After the table.")
    made.add_heading("S 1", 2)
    made.add_paragraph("The end.")
    made.save(tmp_path / "a.docx")
    found = one(tmp_path / "a.docx")
    assert where(found, "After the table.").headings == ("H 0", "S 0")
    assert where(found, "The end.").headings == ("H 0", "S 1")


@pytest.mark.parametrize("name", ["heading 1", "Heading 1"])
def test_styles_based_on_a_heading_in_another_language_are_headings(tmp_path, name):
    made = docx.Document()
    style = made.styles["Heading 1"]
    style.element.set(qn("w:styleId"), "Titre1")
    style.element.find(qn("w:name")).set(qn("w:val"), name)
    for number in (1, 2):
        own = made.styles.add_style(f"Clause {number}", WD_STYLE_TYPE.PARAGRAPH)
        own.base_style, style = style, own
    made.add_paragraph("Le loyer", style="Clause 2")
    made.add_paragraph("Il est dû.")
    made.save(tmp_path / "a.docx")
    assert where(one(tmp_path / "a.docx"), "Il est dû.").headings == ("Le loyer",)


def test_headings_of_a_word_file_in_another_language_are_known_by_their_styles_names(tmp_path):
    made = docx.Document()
    style = made.styles["Heading 1"]
    style.element.set(qn("w:styleId"), "berschrift1")
    made.add_paragraph("Die Miete").style = style
    made.add_paragraph("Sie ist fällig.")
    made.save(tmp_path / "a.docx")
    assert where(one(tmp_path / "a.docx"), "Sie ist fällig.").headings == ("Die Miete",)


def test_a_word_file_without_headings_says_none(tmp_path):
    made = docx.Document()
    made.add_paragraph("Only text.")
    made.save(tmp_path / "a.docx")
    assert one(tmp_path / "a.docx").landmarks == ()


CONTAINER = """<?xml version="1.0"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/content.opf"
 media-type="application/oebps-package+xml"/></rootfiles></container>"""

CHAPTERS = {
    "cover.xhtml": "<img src='cover.jpg'/>",
    "front.xhtml": "<p>For <i/>my mother.</p>",
    "text/part one.xhtml": "<h1>Part One</h1><p>Of the sea.</p>",
    "text/ch1.xhtml": "<p>An epigraph.</p><h1>1. The <em>Boat</em></h1><p>It sank.</p><a id='x'/>",
    "text/ch1b.xhtml": "<p>It was raised.</p><h2>Afterwards</h2><p>It floats.</p>",
    "text/ch2.xhtml": "<p class='title'>2. The Shore</p><p>Sand and stones.</p>",
    "text/ch3.xhtml": "<p>Some words.</p><p id='three'>3. The Hill</p><p>Grass.</p>",
    "notes.xhtml": "<h1>Notes</h1><p>A note.</p>",
}
CONTENTS = """<li><a href="text/part%20one.xhtml">Part One</a><ol>
<li><a href="text/ch1.xhtml">The Boat</a></li>
<li><a href="text/ch2.xhtml">2. The <b>Shore</b></a></li>
<li><a href="text/ch3.xhtml#three">3. The Hill</a></li></ol></li>
<li><a href="notes.xhtml">Notes</a></li>"""


def page_of(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
        f"<head><title/></head><body>{body}</body></html>"
    )


def book(path, chapters=CHAPTERS, contents=CONTENTS, spine=None, **others: str) -> None:
    """A book of EPUB 3; `others` are more files in META-INF."""
    nav = "nav.xhtml" if contents.startswith("<li>") else "toc.ncx"
    kind = "application/xhtml+xml" if nav == "nav.xhtml" else "application/x-dtbncx+xml"
    items = "".join(
        f'<item id="c{number}" href="{name.replace(" ", "%20")}"'
        ' media-type="application/xhtml+xml"/>'
        for number, name in enumerate(chapters)
    )
    items += f'<item id="nav" href="{nav}" media-type="{kind}" properties="nav"/>'
    refs = spine or [f"c{number}" for number in range(len(chapters))]
    package = f"""<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">x</dc:identifier>
<dc:title>Sea &amp; Shore</dc:title><dc:creator>Ada Mar</dc:creator><dc:creator>B. Riva</dc:creator>
<dc:language>en</dc:language></metadata>
<manifest>{items}</manifest><spine toc="nav">
{"".join(f'<itemref idref="{each}"/>' for each in refs)}</spine></package>"""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        made.writestr("META-INF/container.xml", CONTAINER)
        made.writestr("OEBPS/content.opf", package)
        if contents:
            inside = f'<nav epub:type="toc"><ol>{contents}</ol></nav>'
            made.writestr(f"OEBPS/{nav}", page_of(inside) if nav[0] == "n" else contents)
        for name, body in chapters.items():
            made.writestr(f"OEBPS/{name}", page_of(body))
        for name, data in others.items():
            made.writestr(f"META-INF/{name}.xml", data)


PLACES = [
    ("For my mother.", ()),
    ("Of the sea.", ("Part One",)),
    ("An epigraph.", ("Part One", "The Boat")),
    ("It sank.", ("Part One", "1. The Boat")),
    ("It was raised.", ("Part One", "1. The Boat")),
    ("It floats.", ("Part One", "1. The Boat", "Afterwards")),
    ("Sand and stones.", ("Part One", "2. The Shore")),
    ("Some words.", ("Part One",)),  # before or after 3 begins, nobody says
    ("Grass.", ("Part One",)),
    ("A note.", ("Notes",)),
]


def test_passages_of_a_book_know_their_part_and_chapter(tmp_path):
    book(tmp_path / "a.epub")
    found = one(tmp_path / "a.epub")
    assert isinstance(found, Document)
    assert (found.title, found.metadata["author"]) == ("Sea & Shore", "Ada Mar, B. Riva")
    assert found.unread == {}
    for words, headings in PLACES:
        assert (words, where(found, words).headings) == (words, headings)


def test_a_book_of_epub_2_has_its_contents_in_another_file(tmp_path):
    def point(label: str, source: str, inside: str = "") -> str:
        return (
            f"<navPoint><navLabel><text>{label}</text></navLabel>"
            f'<content src="{source}"/>{inside}</navPoint>'
        )

    chapters = [
        point("The Boat", "text/ch1.xhtml"),
        point("2. The Shore", "text/ch2.xhtml"),
        point("3. The Hill", "text/ch3.xhtml#three"),
    ]
    points = point("Part One", "text/part%20one.xhtml", "".join(chapters))
    points += point("Notes", "notes.xhtml")
    ncx = "http://www.daisy.org/z3986/2005/ncx/"
    book(tmp_path / "a.epub", contents=f'<ncx xmlns="{ncx}"><navMap>{points}</navMap></ncx>')
    found = one(tmp_path / "a.epub")
    for words, headings in PLACES:
        assert (words, where(found, words).headings) == (words, headings)


@pytest.mark.parametrize("contents", ["", "<li>&nope; damaged</li>", "<li>without links</li>"])
def test_without_contents_a_chapter_stands_under_its_own_headings_only(tmp_path, contents):
    book(tmp_path / "a.epub", contents=contents)
    found = one(tmp_path / "a.epub")
    for words, headings in [
        ("For my mother.", ()),
        ("Of the sea.", ("Part One",)),
        ("An epigraph.", ()),
        ("It sank.", ("1. The Boat",)),
        ("It was raised.", ()),
        ("Sand and stones.", ()),
        ("A note.", ("Notes",)),
    ]:
        assert (words, where(found, words).headings) == (words, headings)


def test_chapters_are_read_in_the_order_of_the_spine_each_once(tmp_path):
    book(tmp_path / "a.epub", spine=["c7", "c2", "c7", "c99", "c2"])
    assert one(tmp_path / "a.epub").text == "Notes\n\nA note.\n\nPart One\n\nOf the sea."


def test_the_contents_and_pages_outside_the_reading_order_are_not_read(tmp_path):
    spine = ["c1", "nav", 'c2" linear="no', "c7"]
    book(tmp_path / "a.epub", spine=spine)
    found = one(tmp_path / "a.epub")
    assert found.text == "For my mother.\n\nNotes\n\nA note."
    assert found.unread == {"pages outside the reading order": 1}
    book(tmp_path / "b.epub", spine=["nav", 'c2" linear="no'])
    assert one(tmp_path / "b.epub").text.endswith("Part One\n\nOf the sea.")
    book(tmp_path / "c.epub", spine=["nav"])
    assert one(tmp_path / "c.epub").text.startswith("Part One\n\nThe Boat")


def test_a_chapter_that_holds_the_contents_is_read_without_them(tmp_path):
    contents = CONTENTS + "</ol></nav><p>It begins at sea.</p><nav><ol>"
    book(tmp_path / "a.epub", contents=contents, spine=["nav", "c2"])
    assert one(tmp_path / "a.epub").text == "It begins at sea.\n\nPart One\n\nOf the sea."


ENCRYPTION = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"
 xmlns:e="http://www.w3.org/2001/04/xmlenc#">{}</encryption>"""
ENCRYPTED = """<e:EncryptedData><e:EncryptionMethod Algorithm="{}"/><e:CipherData>
<e:CipherReference URI="{}"/></e:CipherData></e:EncryptedData>"""


def encryption(algorithm: str, *names: str) -> str:
    parts = [ENCRYPTED.format(algorithm, f"OEBPS/{name.replace(' ', '%20')}") for name in names]
    return ENCRYPTION.format("".join(parts))


def test_protected_books_are_named_and_disguised_fonts_are_no_protection(tmp_path):
    drm = "http://www.w3.org/2001/04/xmlenc#aes128-cbc"
    book(tmp_path / "a.epub", encryption=encryption(drm, *CHAPTERS))
    book(tmp_path / "b.epub", encryption=encryption(drm, "text/ch1.xhtml"))
    font = encryption("http://www.idpf.org/2008/embedding", "a.otf")
    book(tmp_path / "c.epub", encryption=font)
    protected, partly, good = read_documents([tmp_path])
    assert "protected against copying (DRM)" in protected.reason
    assert partly.unread == {"encrypted chapters": 1}
    assert "It sank." not in partly.text
    assert "It sank." in good.text


def test_damaged_books_are_read_as_far_as_they_go_or_named(tmp_path):
    chapters = {name: CHAPTERS[name] for name in ("front.xhtml", "notes.xhtml")}
    book(tmp_path / "a.epub", chapters, spine=["c0", "c1"])
    data = (tmp_path / "a.epub").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.epub") as made:
        info = made.getinfo("OEBPS/front.xhtml")
    at = info.header_offset + 30 + len(info.filename) + 5
    (tmp_path / "a.epub").write_bytes(data[:at] + b"\xff" * 20 + data[at + 20 :])
    (tmp_path / "b.epub").write_bytes(data[:300])
    book(tmp_path / "c.epub", {"cover.xhtml": CHAPTERS["cover.xhtml"]})
    with zipfile.ZipFile(tmp_path / "d.epub", "w") as made:
        made.writestr("mimetype", "application/epub+zip")
    partly, cut, pictures, empty = read_documents([tmp_path])
    assert partly.text == "Notes\n\nA note."
    assert partly.unread == {"damaged chapters": 1}
    assert cut.reason.startswith("not an EPUB book (.epub) that can be opened")
    assert pictures.reason.startswith("a book without text")
    assert empty.reason.startswith("not an EPUB book (.epub) that can be opened")


def test_a_book_that_unpacks_to_too_much_is_refused(tmp_path):
    book(tmp_path / "a.epub", {f"{number}.xhtml": " " * 20_000_000 for number in range(4)})
    fault = one(tmp_path / "a.epub")
    assert fault.reason == (
        "unpacked, it is 80 MB, longer than the 32 MB of text that are read; "
        "--max-text-mb raises the limit"
    )
