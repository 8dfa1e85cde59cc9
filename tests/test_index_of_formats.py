"""An index of one file of each kind, in which each is found with the place where it stands."""

from pathlib import Path

import pytest

from dewey_embed import Dewey, Index
from dewey_embed.text.locations import location_of
from dewey_embed.text.reader import read_documents
from dewey_embed.types import Document, Location
from tests.text.test_latex import PAPER
from tests.text.test_mailboxes import make_mailbox
from tests.text.test_notebooks import make_notebook
from tests.text.test_office import make_pages, make_sheets, make_slides, make_text, make_workbook

PAPER_LINE = 1 + PAPER[: PAPER.index("Dover")].count("\n")
EACH = {
    "slides.pptx": ("how high is the water at Dover", "Dover", Location(slide=2)),
    "book.xlsx": ("Ann 1990 share", "Ann", Location(sheet="People", row=2, last_row=2)),
    "lease.odt": ("when is rent due", "Rent is", Location(headings=("The lease",))),
    "sheets.ods": ("Ann 1990", "Ann", Location(sheet="One", row=4, last_row=4)),
    "pages.odp": ("speak slowly", "Speak", Location(slide=2)),
    "table.csv": ("the height of Harwich", "Harwich", Location(row=3, last_row=3)),
    "work.ipynb": ("high water step", "high water", Location(cell=3, headings=("On tides",))),
    "paper.tex": (
        "café naïve",
        "Dover",
        Location(
            line=PAPER_LINE,
            last_line=PAPER_LINE,
            headings=("Introduction", "Forces of $n$ bodies"),
        ),
    ),
    "code.py": ("def ebb", "def ebb", Location(line=3, last_line=3)),
    "mail.mbox": ("Die Miete ist fällig", "ist", Location()),
}
"""For each file a query, words of it, and where these stand."""


def make_each(folder: Path) -> None:
    make_slides(folder / "slides.pptx")
    make_workbook(folder / "book.xlsx")
    make_text(folder / "lease.odt")
    make_sheets(folder / "sheets.ods")
    make_pages(folder / "pages.odp")
    (folder / "table.csv").write_text("Port,Height\nDover,6.7\nHarwich,4.0\n")
    make_notebook(folder / "work.ipynb")
    (folder / "paper.tex").write_text(PAPER)
    (folder / "code.py").write_text("import sea\n\ndef ebb():\n    return sea.low\n")
    make_mailbox(folder / "mail.mbox")


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> list[Document]:
    folder = tmp_path_factory.mktemp("each")
    make_each(folder)
    found = read_documents([folder, folder / "code.py"])
    return [each for each in found if isinstance(each, Document)]


@pytest.fixture(scope="module")
def index(documents, tmp_path_factory) -> Index:
    index = Index.open(tmp_path_factory.mktemp("index") / "my.index", model=Dewey.load())
    index.add(documents)
    return index


@pytest.mark.parametrize("name", EACH)
def test_a_file_of_each_kind_is_found_by_what_it_says(index, name):
    hits = index.search(EACH[name][0], k=3)
    assert name in [Path(hit.document_id).name.partition("#")[0] for hit in hits]


@pytest.mark.parametrize("name", EACH)
def test_its_words_stand_where_they_stand_in_the_file(documents, name):
    _, words, place = EACH[name]
    document = next(each for each in documents if Path(each.source).name == name)
    at = document.text.index(words)
    assert location_of(document.landmarks, document.text, at, at + len(words)) == place
