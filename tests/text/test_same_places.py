"""One text in every format that has headings: its passages stand under the same ones in each."""

from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from ebooklib import epub
from fpdf import FPDF
from fpdf.fonts import TextStyle
from markdown_it import MarkdownIt
from odf.opendocument import OpenDocumentText
from odf.text import H, P

from dewey_embed.types import Location
from tests.text.places import one, where

LEASE: list[tuple[int, str]] = [
    (0, "Words before all headings."),
    (1, "The lease"),
    (0, "Who signs it."),
    (2, "Rent"),
    (0, "It is due monthly."),
    (3, "Late payment"),
    (0, "Interest is five percent."),
    (0, "And it compounds."),
    (3, "Notices"),
    (0, "They are in writing."),
    (2, "Repairs"),
    (0, "The roof is the landlord's."),
    (1, "The garden"),
    (3, "Hedges"),
    (0, "Cut them in March."),
    (2, "Notices"),
    (0, "They are put on the gate."),
    (1, "The lease"),
    (0, "It ends in May."),
]
"""The level and words of each heading, and paragraphs, whose level is 0."""


def write_markdown(path: Path) -> None:
    blocks = [f"{'#' * level} {words}".strip() for level, words in LEASE]
    path.write_text("\n\n".join(blocks))


def write_restructured(path: Path) -> None:
    marks = {1: "=", 2: "-", 3: "~"}
    blocks = [words + (f"\n{marks[level] * len(words)}" if level else "") for level, words in LEASE]
    path.write_text("\n\n".join(blocks))


def write_latex(path: Path) -> None:
    names = {0: "{}", 1: r"\section{{{}}}", 2: r"\subsection{{{}}}", 3: r"\subsubsection{{{}}}"}
    blocks = "\n\n".join(names[level].format(words) for level, words in LEASE)
    path.write_text(rf"\documentclass{{article}}\begin{{document}}{blocks}\end{{document}}")


def write_page(path: Path) -> None:
    write_markdown(path)
    path.write_text(MarkdownIt().render(path.read_text()))


def write_word(path: Path) -> None:
    made = docx.Document()
    for level, words in LEASE:
        if level:
            made.add_heading(words, level)
        else:
            made.add_paragraph(words)
    made.save(path)


def write_open_document(path: Path) -> None:
    made = OpenDocumentText()
    for level, words in LEASE:
        made.text.addElement(H(outlinelevel=level, text=words) if level else P(text=words))
    made.save(path)


def write_book(path: Path) -> None:
    """A chapter for each heading of level 1, in files of their own."""
    made = epub.EpubBook()
    made.set_title("A book")
    made.set_language("en")
    made.add_author("Ada Mar")
    bodies: list[list[str]] = [[]]
    for level, words in LEASE:
        if level == 1:
            bodies.append([])
        bodies[-1].append(f"<h{level}>{words}</h{level}>" if level else f"<p>{words}</p>")
    chapters = []
    for number, body in enumerate(bodies):
        title = LEASE[1][1] if number in (1, 3) else LEASE[12][1] if number else ""
        chapter = epub.EpubHtml(title=title, file_name=f"text/{9 - number}.xhtml", lang="en")
        chapter.content = "".join(body)
        made.add_item(chapter)
        chapters.append(chapter)
    made.toc = chapters[1:]
    made.spine = ["nav", *chapters]
    made.add_item(epub.EpubNcx())
    made.add_item(epub.EpubNav())
    epub.write_epub(str(path), made)


def write_pdf(path: Path) -> None:
    made = FPDF()
    made.set_font("helvetica", size=11)
    made.set_section_title_styles(*[TextStyle("helvetica", "B", 12)] * 3)
    made.add_page()
    level_before = 0
    for level, words in LEASE:
        if level:
            made.start_section(words, level=min(level - 1, level_before), strict=False)
            level_before = level
        else:
            made.multi_cell(0, 6, words, new_x="LMARGIN", new_y="NEXT")
    made.output(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.md": write_markdown,
    "a.rst": write_restructured,
    "a.tex": write_latex,
    "a.html": write_page,
    "a.docx": write_word,
    "a.odt": write_open_document,
    "a.epub": write_book,
    "a.pdf": write_pdf,
}


@pytest.mark.parametrize("name", WRITERS)
def test_passages_stand_under_the_same_headings_in_every_format(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = one(tmp_path / name)
    path: list[tuple[int, str]] = []
    for level, words in LEASE:
        if level:
            path = [each for each in path if each[0] < level] + [(level, words)]
        else:
            place = where(found, words)
            assert (words, place.headings) == (words, tuple(title for _, title in path))
            assert (place.page is not None) == (name == "a.pdf")
            assert (place.line is not None) == (name in ("a.md", "a.rst", "a.tex"))


def test_the_authors_and_title_of_a_book_are_kept(tmp_path):
    write_book(tmp_path / "a.epub")
    found = one(tmp_path / "a.epub")
    assert (found.title, found.metadata["author"]) == ("A book", "Ada Mar")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.rtf", r"{\rtf1\ansi {\b Rent}\par It is due.\par}"),
        ("a.eml", "From: a@b.de\nSubject: Rent\n\n# Rent\n\nIt is due."),
        ("a.html", "<p><b>Rent</b></p><p>It is due.</p>"),
        ("a.jsonl", '{"text": "# Rent\\n\\nIt is due."}'),
    ],
)
def test_a_format_without_places_names_none(tmp_path, name, source):
    (tmp_path / name).write_text(source)
    assert where(one(tmp_path / name), "It is due.") == Location()


def test_a_plain_text_names_its_lines_alone(tmp_path):
    (tmp_path / "a.txt").write_text("RENT\n====\n\n# 1\n\nIt is\ndue.\n")
    place = where(one(tmp_path / "a.txt"), "It is\ndue.")
    assert place == Location(line=6, last_line=7)
