"""Presentations, workbooks and OpenDocument files by their own writers: texts and their places."""

import datetime
import io
import zipfile
from pathlib import Path

import openpyxl
import pytest
from odf import draw, presentation, style, table
from odf import text as odf_text
from odf.opendocument import (
    OpenDocumentPresentation,
    OpenDocumentSpreadsheet,
    OpenDocumentText,
)
from openpyxl.chart import BarChart
from pptx import Presentation
from pptx.util import Inches

from dewey_embed.errors import MissingDependencyError
from dewey_embed.text.inputs import ReadLimits
from dewey_embed.text.locations import location_of
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Location
from tests.text.places import one, where

# Presentations


def make_slides(path: Path) -> None:
    slides = Presentation()
    first = slides.slides.add_slide(slides.slide_layouts[1])
    first.shapes.title.text = "On tides"
    first.placeholders[1].text = "They rise\nThey fall"
    first.notes_slide.notes_text_frame.text = "Speak slowly"
    second = slides.slides.add_slide(slides.slide_layouts[6])
    box = second.shapes.add_textbox(Inches(1), Inches(1), Inches(3), Inches(1))
    box.text_frame.text = "In a box"
    cells = second.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for number, words in enumerate(("Port", "Height", "Dover", "6.7 m")):
        cells.cell(number // 2, number % 2).text = words
    slides.slides.add_slide(slides.slide_layouts[6])
    last = slides.slides.add_slide(slides.slide_layouts[5])
    last.shapes.title.text = "The moon"
    group = last.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(1), Inches(3), Inches(1)).text_frame.text = "pulls"
    last._element.set("show", "0")
    slides.core_properties.title = "PowerPoint Presentation"
    slides.save(str(path))


def test_a_presentation_is_its_slides_with_titles_boxes_tables_and_notes(tmp_path):
    make_slides(tmp_path / "a.pptx")
    found = one(tmp_path / "a.pptx")
    assert found.title == "On tides"
    assert found.text == (
        "On tides\nThey rise\nThey fall\nNotes: Speak slowly\n\n"
        "In a box\nPort\tHeight\nDover\t6.7 m\n\nThe moon\npulls"
    )
    assert where(found, "They fall") == Location(slide=1, headings=("On tides",))
    assert where(found, "Speak slowly") == Location(slide=1, headings=("On tides",))
    assert where(found, "Dover") == Location(slide=2)
    assert where(found, "pulls") == Location(slide=4, headings=("The moon",))
    assert found.unread == {"slides without text": 1}


def test_a_damaged_slide_does_not_cost_the_others(tmp_path):
    make_slides(tmp_path / "a.pptx")
    with (
        zipfile.ZipFile(tmp_path / "a.pptx") as good,
        zipfile.ZipFile(tmp_path / "b.pptx", "w") as bad,
    ):
        for name in good.namelist():
            data = good.read(name)
            bad.writestr(name, data[:300] if name == "ppt/slides/slide2.xml" else data)
    found = one(tmp_path / "b.pptx")
    assert found.unread == {"slides without text": 1, "damaged slides": 1}
    assert where(found, "pulls") == Location(slide=4, headings=("The moon",))


def test_a_presentation_without_text_says_so(tmp_path):
    slides = Presentation()
    slides.slides.add_slide(slides.slide_layouts[6])
    slides.save(str(tmp_path / "a.pptx"))
    assert one(tmp_path / "a.pptx").reason.startswith("a presentation without text")


# Workbooks


def make_workbook(path: Path) -> None:
    workbook = openpyxl.Workbook()
    people = workbook.active
    people.title = "People"
    people.append(["Name", "Born", "Share", "Since"])
    people.append(["Ann", 1990, 0.125, datetime.date(2020, 5, 31)])
    people.append([None, None, None, None])
    people.append(["Bob\nand Eve", 1.1 + 2.2, None, datetime.datetime(2021, 1, 2, 3, 4)])
    people["C2"].number_format = "0.0%"
    notes = workbook.create_sheet("Notes")
    notes["B5"] = "The only note"
    notes.sheet_state = "hidden"
    workbook.create_chartsheet("Chart").add_chart(BarChart())
    workbook.create_sheet("Last").append(["x", True])
    workbook.save(path)


def test_a_workbook_is_its_rows_which_can_be_read_alone(tmp_path):
    make_workbook(tmp_path / "a.xlsx")
    found = one(tmp_path / "a.xlsx")
    assert found.text == (
        "Name; Born; Share; Since\n"
        "Name: Ann; Born: 1990; Share: 12.5%; Since: 2020-05-31\n"
        "Name: Bob and Eve; Born: 3.3; Since: 2021-01-02 03:04:00\n\n"
        "The only note\n\nx; TRUE"
    )
    assert found.unread == {"charts": 1}
    assert where(found, "Ann") == Location(sheet="People", row=2, last_row=2)
    assert where(found, "Eve") == Location(sheet="People", row=4, last_row=4)
    assert where(found, "The only note") == Location(sheet="Notes", row=5, last_row=5)
    assert where(found, "TRUE") == Location(sheet="Last", row=1, last_row=1)
    both = location_of(found.landmarks, found.text, 0, found.text.index("12.5"))
    assert both == Location(sheet="People", row=1, last_row=2)


def test_a_damaged_sheet_is_read_up_to_the_damage_and_the_others_are_read(tmp_path):
    make_workbook(tmp_path / "a.xlsx")
    with (
        zipfile.ZipFile(tmp_path / "a.xlsx") as good,
        zipfile.ZipFile(tmp_path / "b.xlsx", "w") as bad,
    ):
        for name in good.namelist():
            data = good.read(name)
            end = data.find(b'<row r="4"') + 20 if "worksheets/sheet1" in name else len(data)
            bad.writestr(name, data[:end])
    found = one(tmp_path / "b.xlsx")
    assert found.unread == {"charts": 1, "damaged sheets": 1}
    assert where(found, "Name: Ann") == Location(sheet="People", row=2, last_row=2)
    assert where(found, "The only note") == Location(sheet="Notes", row=5, last_row=5)


def test_a_workbook_without_its_reader_is_named_with_the_command(tmp_path, monkeypatch):
    from dewey_embed.text import tables

    make_workbook(tmp_path / "a.xlsx")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install \"dewey-embed\[files\]\""),
        open(tmp_path / "a.xlsx", "rb") as stream,
    ):
        tables.read_workbook(stream, ReadLimits())


def test_a_workbook_that_unpacks_to_too_much_is_named_with_the_limit(tmp_path):
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("Long")
    for _ in range(3_000):
        sheet.append(["many words " * 40])
    workbook.save(tmp_path / "a.xlsx")
    found = one(tmp_path / "a.xlsx", limits=ReadLimits(max_text_mb=1))
    assert "longer than the 1 MB" in found.reason


# OpenDocument


def make_text(path: Path) -> None:
    document = OpenDocumentText()
    document.text.addElement(odf_text.H(outlinelevel=1, text="The lease"))
    rent = odf_text.P(text="Rent is due")
    note = odf_text.Note(noteclass="footnote")
    note.addElement(odf_text.NoteCitation(text="1"))
    body = odf_text.NoteBody()
    body.addElement(odf_text.P(text="On Mondays."))
    note.addElement(body)
    rent.addElement(note)
    rent.addText(" weekly.")
    document.text.addElement(rent)
    document.text.addElement(odf_text.H(outlinelevel=2, text="Late payment"))
    grid = table.Table(name="Fees")
    for words in (("Days", "Fee"), ("3", "10")):
        row = table.TableRow()
        for word in words:
            cell = table.TableCell()
            cell.addElement(odf_text.P(text=word))
            row.addElement(cell)
        grid.addElement(row)
    document.text.addElement(grid)
    spaced = odf_text.P(text="a")
    spaced.addElement(odf_text.S(c=3))
    spaced.addText("b")
    document.text.addElement(spaced)
    document.save(str(path))


def test_an_opendocument_text_is_its_paragraphs_under_their_headings(tmp_path):
    make_text(tmp_path / "a.odt")
    found = one(tmp_path / "a.odt")
    assert found.title == "The lease"
    assert found.text == (
        "The lease\nRent is due weekly.\nOn Mondays.\nLate payment\nDays\tFee\n3\t10\na   b"
    )
    assert where(found, "Mondays") == Location(headings=("The lease",))
    assert where(found, "Fee") == Location(headings=("The lease", "Late payment"))


def make_sheets(path: Path) -> None:
    document = OpenDocumentSpreadsheet()
    for name, rows in (("One", [["Name", "Year"], ["Ann", "1990"]]), ("Two", [["x", "y"]])):
        sheet = table.Table(name=name)
        sheet.addElement(table.TableRow(numberrowsrepeated=2))
        for words in rows:
            row = table.TableRow()
            for word in words:
                cell = table.TableCell(valuetype="string")
                cell.addElement(odf_text.P(text=word))
                row.addElement(cell)
            row.addElement(table.TableCell(numbercolumnsrepeated=16_000))
            sheet.addElement(row)
        sheet.addElement(table.TableRow(numberrowsrepeated=1_000_000))
        document.spreadsheet.addElement(sheet)
    document.save(str(path))


def test_opendocument_sheets_have_their_names_and_rows(tmp_path):
    make_sheets(tmp_path / "a.ods")
    found = one(tmp_path / "a.ods")
    assert found.text == "Name; Year\nName: Ann; Year: 1990\n\nx; y"
    assert where(found, "Ann") == Location(sheet="One", row=4, last_row=4)
    assert where(found, "x; y") == Location(sheet="Two", row=3, last_row=3)


def make_pages(path: Path) -> None:
    document = OpenDocumentPresentation()
    layout = style.PageLayout(name="layout")
    document.automaticstyles.addElement(layout)
    master = style.MasterPage(name="master", pagelayoutname=layout)
    document.masterstyles.addElement(master)
    for title, words in (("On tides", "They rise"), ("", "alone")):
        page = draw.Page(masterpagename=master)
        for role, inside in (("title", title), ("outline", words)):
            if inside:
                frame = draw.Frame(width="1cm", height="1cm")
                frame.setAttrNS(
                    "urn:oasis:names:tc:opendocument:xmlns:presentation:1.0", "class", role
                )
                box = draw.TextBox()
                box.addElement(odf_text.P(text=inside))
                frame.addElement(box)
                page.addElement(frame)
        document.presentation.addElement(page)
    notes = presentation.Notes()
    frame = draw.Frame(width="1cm", height="1cm")
    box = draw.TextBox()
    box.addElement(odf_text.P(text="Speak slowly"))
    frame.addElement(box)
    notes.addElement(frame)
    page.addElement(notes)
    document.save(str(path))


def test_opendocument_slides_have_their_numbers_and_titles(tmp_path):
    make_pages(tmp_path / "a.odp")
    found = one(tmp_path / "a.odp")
    assert (found.title, found.text) == (
        "On tides",
        "On tides\nThey rise\n\nalone\nNotes: Speak slowly",
    )
    assert where(found, "They rise") == Location(slide=1, headings=("On tides",))
    assert where(found, "alone") == Location(slide=2)


def test_comments_within_xml_lose_no_text(tmp_path):
    make_text(tmp_path / "a.odt")
    with (
        zipfile.ZipFile(tmp_path / "a.odt") as good,
        zipfile.ZipFile(tmp_path / "b.odt", "w") as other,
    ):
        for name in good.namelist():
            other.writestr(name, good.read(name).replace(b"weekly", b"we<!-- x -->ekly"))
    assert "Rent is due weekly." in one(tmp_path / "b.odt").text


# Archives of any kind

MAKERS = {
    ".pptx": (make_slides, "They rise"),
    ".xlsx": (make_workbook, "Name: Ann"),
    ".odt": (make_text, "Rent is due"),
    ".ods": (make_sheets, "Name: Ann"),
    ".odp": (make_pages, "They rise"),
}


@pytest.mark.parametrize("extension", MAKERS)
@pytest.mark.parametrize("name", ["blob", "a.docx", "a.txt", "a.zip"])
def test_a_format_is_told_by_what_the_archive_holds(tmp_path, extension, name):
    make, words = MAKERS[extension]
    make(tmp_path / f"real{extension}")
    (tmp_path / name).write_bytes((tmp_path / f"real{extension}").read_bytes())
    found = one(tmp_path / name)
    if name == "a.zip":
        assert found.reason.startswith("an archive; unpack it")
    else:
        assert words in found.text


@pytest.mark.parametrize("extension", MAKERS)
def test_damaged_archives_are_named_and_no_more(tmp_path, extension):
    make, _ = MAKERS[extension]
    make(tmp_path / f"good{extension}")
    data = (tmp_path / f"good{extension}").read_bytes()
    (tmp_path / f"cut{extension}").write_bytes(data[: len(data) // 2])
    with zipfile.ZipFile(tmp_path / f"empty{extension}", "w"):
        pass
    cut, empty, good = read_documents([tmp_path])
    assert "that can be opened" in cut.reason
    assert "another ZIP archive" in empty.reason
    assert isinstance(good, Document)


def test_a_password_is_named_as_the_reason(tmp_path):
    encrypted = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
    encrypted += "EncryptedPackage".encode("utf-16-le")
    for name in ("a.xlsx", "b.pptx", "c.docx", "d"):
        (tmp_path / name).write_bytes(encrypted)
        assert one(tmp_path / name).reason == "protected by a password; save a copy without it"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as package:
        package.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        package.writestr("content.xml", b"\x8a\x01\x02")
        manifest = (
            '<m:manifest xmlns:m="urn:x"><m:file-entry><m:encryption-data/></m:file-entry>'
            "</m:manifest>"
        )
        package.writestr("META-INF/manifest.xml", manifest)
    (tmp_path / "a.odt").write_bytes(stream.getvalue())
    assert one(tmp_path / "a.odt").reason == "protected by a password; save a copy without it"
