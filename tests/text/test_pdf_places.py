"""Pages, the numbers printed on them and the headings of a PDF's outline, by fpdf2's files."""

import random
from bisect import bisect_right
from itertools import accumulate

import pytest
from fpdf import FPDF
from fpdf.fonts import TextStyle

from dewey_embed.text.locations import Places, location_of
from dewey_embed.text.reader import read_documents
from dewey_embed.text.sentences import sentence_starts
from dewey_embed.types import Location, Unreadable
from tests.text.places import one, where


def letters(text: str) -> str:
    return "".join(text.split())


def new_pdf() -> FPDF:
    made = FPDF()
    made.set_font("helvetica", size=11)
    made.set_section_title_styles(TextStyle("helvetica", "B", 14), TextStyle("helvetica", "B", 12))
    return made


ROMAN = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]


def test_page_and_printed_number_of_1000_passages_of_a_long_pdf_are_right(tmp_path, english):
    source = "\n".join(english).encode("ascii", "ignore").decode().replace("-", " ")
    pages = [source[at : at + 2000] for at in range(0, len(source) - 2000, 2000)][:230]
    pages[5] = pages[40] = pages[41] = pages[120] = ""
    made = new_pdf()
    made.set_auto_page_break(False)
    made.set_font("courier", size=6)
    for index, page in enumerate(pages):
        made.add_page()
        if index < len(ROMAN):
            made.set_page_label(label_style="r")
        else:
            made.set_page_label(label_style="D", label_start=index - len(ROMAN) + 1)
        if page:
            made.multi_cell(0, 3, page)
    made.output(tmp_path / "long.pdf")
    found = one(tmp_path / "long.pdf")
    assert letters(found.text) == letters("".join(pages))
    printed = [*ROMAN, *map(str, range(1, len(pages)))]
    ends = [*accumulate(len(letters(page)) for page in pages)]
    before = [*accumulate((not each.isspace() for each in found.text), initial=0)]
    places = Places(found.landmarks, found.text)
    starts = [*sentence_starts(found.text), len(found.text)]
    chance = random.Random(28)
    num_over_pages = 0
    for _ in range(1000):
        first = chance.randrange(len(starts) - 1)
        start, end = starts[first], starts[min(first + chance.randint(1, 30), len(starts) - 1)]
        page = bisect_right(ends, before[start]) + 1
        last_page = bisect_right(ends, before[end] - 1) + 1
        place = places.location(start, end)
        assert place == Location(page=page, last_page=last_page, page_label=printed[page - 1])
        num_over_pages += page < last_page
    assert 300 < num_over_pages < 1000


def test_the_number_printed_on_a_page_is_kept_where_it_is_another(tmp_path):
    made = new_pdf()
    for number in range(8):
        made.add_page()
        if number < 3:
            made.set_page_label(label_style="r")
        elif number < 6:
            made.set_page_label(label_style="D", label_start=number - 2)
        else:
            made.set_page_label(label_style="D", label_prefix="A-", label_start=number - 5)
        made.cell(text=f"Words of page {number}.")
    made.output(tmp_path / "a.pdf")
    found = one(tmp_path / "a.pdf")
    places = [where(found, f"Words of page {number}.") for number in range(8)]
    assert [each.page for each in places] == [*range(1, 9)]
    assert [each.page_label for each in places] == ["i", "ii", "iii", "1", "2", "3", "A-1", "A-2"]


def sections(path) -> None:
    made = new_pdf()
    made.add_page()
    made.cell(text="Before all.", new_x="LMARGIN", new_y="NEXT")
    made.add_page()
    made.start_section("1. Rent")
    made.multi_cell(0, 6, "The rent is due monthly.", new_x="LMARGIN", new_y="NEXT")
    made.start_section("Late payment", level=1)
    made.multi_cell(0, 6, "Interest is five percent.", new_x="LMARGIN", new_y="NEXT")
    made.add_page()
    made.multi_cell(0, 6, "Still about interest.", new_x="LMARGIN", new_y="NEXT")
    made.start_section(f"A heading so long that it takes {'many ' * 25}lines")
    made.multi_cell(0, 6, "The roof is the landlord's.", new_x="LMARGIN", new_y="NEXT")
    made.output(path)


def test_headings_of_the_outline_begin_at_their_own_lines(tmp_path):
    sections(tmp_path / "a.pdf")
    found = one(tmp_path / "a.pdf")
    long = f"A heading so long that it takes {'many ' * 25}lines"
    for words, page, headings in [
        ("Before all.", 1, ()),
        ("1. Rent", 2, ("1. Rent",)),
        ("The rent is due", 2, ("1. Rent",)),
        ("Late payment", 2, ("1. Rent", "Late payment")),
        ("Interest is five", 2, ("1. Rent", "Late payment")),
        ("Still about interest", 3, ("1. Rent", "Late payment")),
        ("A heading so long", 3, (long,)),
        ("The roof is", 3, (long,)),
    ]:
        place = where(found, words)
        assert (place.page, place.headings) == (page, headings)


def test_a_running_head_is_not_taken_for_the_heading_of_the_same_words(tmp_path):
    made = new_pdf()
    made.add_page()
    made.start_section("Rent")
    made.multi_cell(0, 6, "It is due monthly.", new_x="LMARGIN", new_y="NEXT")
    made.add_page()
    for line in ["Notices", "Of rent, still.", "Of its date.", "Of its amount."]:
        made.multi_cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")
    made.start_section("Notices")
    made.multi_cell(0, 6, "They are in writing.", new_x="LMARGIN", new_y="NEXT")
    made.output(tmp_path / "a.pdf")
    found = one(tmp_path / "a.pdf")
    assert where(found, "Of its amount.").headings == ("Rent",)
    assert where(found, "They are in writing.").headings == ("Notices",)


def test_a_bookmark_of_other_words_than_its_heading_begins_where_it_leads(tmp_path):
    made = new_pdf()
    made.add_page()
    made.start_section("Rent")
    made.multi_cell(0, 6, "It is due monthly.", new_x="LMARGIN", new_y="NEXT")
    made.add_page()
    made.multi_cell(0, 6, "It is paid in Graz.", new_x="LMARGIN", new_y="NEXT")
    made.start_section("Repairs")
    made.multi_cell(0, 6, "The roof is old.", new_x="LMARGIN", new_y="NEXT")
    data = bytes(made.output())
    assert data.count(b"/Title (Repairs)") == 1
    (tmp_path / "a.pdf").write_bytes(data.replace(b"/Title (Repairs)", b"/Title (Upkeep!)"))
    found = one(tmp_path / "a.pdf")
    assert where(found, "It is paid in Graz.").headings == ("Rent",)
    assert where(found, "Repairs").headings == ("Upkeep!",)
    assert where(found, "The roof is old.").headings == ("Upkeep!",)


def test_bookmarks_of_the_same_words_on_a_page_have_a_line_each(tmp_path):
    fits = to(1)
    outline = {
        100: "/First 101 0 R/Last 103 0 R",
        101: f"/Title(Page 1 text)/Parent 100 0 R/Next 102 0 R{fits}",
        102: f"/Title(Page 1 text)/Parent 100 0 R/Next 103 0 R{fits}",
        103: f"/Title(Page 1 text)/Parent 100 0 R{fits}",
    }
    data = with_outline(outline)
    draw = b"BT /F 12 Tf 20 150 Td (Page 1 text) Tj ET"
    assert data.count(draw) == 1
    more = b" ".join(
        b"BT /F 12 Tf 20 %d Td (%s) Tj ET" % (150 - 20 * number, words)
        for number, words in enumerate([b"Page 1 text", b"One.", b"Page 1 text", b"Two."])
    )
    data = data.replace(
        b"<</Length %d>> stream\n%s" % (len(draw), draw),
        b"<</Length %d>> stream\n%s" % (len(more), more),
    )
    (tmp_path / "a.pdf").write_bytes(data)
    found = one(tmp_path / "a.pdf")
    at = [each.char for each in found.landmarks if each.kind == "heading"]
    first, second = 0, found.text.index("Page 1 text", 5)
    assert at == [first, first, second]


def with_outline(outline: dict[int, str], num_pages: int = 4, **catalog: str) -> bytes:
    """A PDF of pages that say "Page n text", with objects 100 and on for its outline."""
    more = "".join(f"/{name} {value}" for name, value in catalog.items())
    kids = " ".join(f"{10 + number} 0 R" for number in range(num_pages))
    objects = [
        f"1 0 obj <</Type/Catalog/Pages 2 0 R/Outlines 100 0 R{more}>> endobj",
        f"2 0 obj <</Type/Pages/Kids[{kids}]/Count {num_pages}>> endobj",
        "3 0 obj <</Type/Font/Subtype/Type1/BaseFont/Helvetica>> endobj",
    ]
    for number in range(num_pages):
        draw = f"BT /F 12 Tf 20 150 Td (Page {number + 1} text) Tj ET"
        objects += [
            f"{10 + number} 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]"
            f"/Resources<</Font<</F 3 0 R>>>>/Contents {50 + number} 0 R>> endobj",
            f"{50 + number} 0 obj <</Length {len(draw)}>> stream\n{draw}\nendstream endobj",
        ]
    objects += [f"{number} 0 obj <<{entry}>> endobj" for number, entry in outline.items()]
    return ("%PDF-1.4\n" + "\n".join(objects) + "\ntrailer <</Root 1 0 R>>\n%%EOF").encode()


def headings_of_pages(path, data: bytes) -> list[tuple[str, ...]]:
    path.write_bytes(data)
    found = one(path)
    assert found.text == "\n\n".join(f"Page {number} text" for number in range(1, 5))
    places = [where(found, f"Page {number} text") for number in range(1, 5)]
    assert [each.page for each in places] == [1, 2, 3, 4]
    return [each.headings for each in places]


def to(page: int) -> str:
    return f"/Dest[{9 + page} 0 R/Fit]"


@pytest.mark.parametrize(
    ("broken", "headings"),
    [
        ("/Dest[99 0 R/Fit]", [("First",), (), (), ("Last",)]),
        ("/Dest[77/Fit]", [("First",), (), (), ("Last",)]),
        ("/Dest(nowhere)", [("First",), (), (), ("Last",)]),
        ("/A<</S/GoTo/D[99 0 R/Fit]>>", [("First",), (), (), ("Last",)]),
        ("/A<</S/GoToR/F(b.pdf)/D[2/Fit]>>", [("First",), ("First",), ("First",), ("Last",)]),
        ("/A<</S/URI/URI(http://x)>>", [("First",), ("First",), ("First",), ("Last",)]),
        (f"{to(3)}/First 101 0 R/Last 101 0 R", [("First",), ("First",), ("Bad",), ("Last",)]),
    ],
    ids=["no object", "no page", "no name", "no action", "other file", "web", "circle"],
)
def test_a_bookmark_that_leads_nowhere_names_no_page_and_ends_what_is_before_it(
    tmp_path, broken, headings
):
    outline = {
        100: "/First 101 0 R/Last 103 0 R",
        101: f"/Title(First)/Parent 100 0 R/Next 102 0 R{to(1)}",
        102: f"/Title(Bad)/Parent 100 0 R/Next 103 0 R{broken}",
        103: f"/Title(Last)/Parent 100 0 R{to(4)}",
    }
    assert headings_of_pages(tmp_path / "a.pdf", with_outline(outline)) == headings


def test_a_part_without_a_place_of_its_own_begins_with_its_first_chapter(tmp_path):
    outline = {
        100: "/First 101 0 R/Last 103 0 R",
        101: f"/Title(One)/Parent 100 0 R/Next 102 0 R{to(1)}",
        102: "/Title(Part)/Parent 100 0 R/Next 103 0 R/First 104 0 R/Last 104 0 R",
        103: f"/Title(Three)/Parent 100 0 R{to(4)}",
        104: f"/Title(Two)/Parent 102 0 R{to(2)}",
    }
    assert headings_of_pages(tmp_path / "a.pdf", with_outline(outline)) == [
        *(("One",), ("Part", "Two"), ("Part", "Two"), ("Three",))
    ]


def test_an_outline_in_another_order_than_its_pages_keeps_each_title_under_its_own(tmp_path):
    outline = {
        100: "/First 101 0 R/Last 102 0 R",
        101: f"/Title(Late)/Parent 100 0 R/Next 102 0 R/First 103 0 R/Last 103 0 R{to(3)}",
        102: f"/Title(Early)/Parent 100 0 R{to(1)}",
        103: f"/Title(Its part)/Parent 101 0 R{to(2)}",
    }
    assert headings_of_pages(tmp_path / "a.pdf", with_outline(outline)) == [
        *(("Early",), ("Late", "Its part"), ("Late",), ("Late",))
    ]


@pytest.mark.parametrize(
    "labels",
    [
        *("<</Nums[0 (wrong)]>>", "<</Nums[0 <</S/X>>]>>", "<</Nums 7>>", "7", "<</Kids[1 0 R]>>"),
        "<</Nums[0 <</S/D/P(A-)/St 2147483647>>]>>",
        "<</Nums[0 <</S/D/P(A)/St 2147483646>>]>>",
        *("<</Nums[0 <</S/D/St -7>>]>>", "<</Nums[0 <</S/R/St 99999>>]>>", "<</Nums[3 <</S/r>>]>>"),
    ],
)
def test_damaged_page_labels_are_none(tmp_path, labels):
    (tmp_path / "a.pdf").write_bytes(with_outline({100: "/Count 0"}, PageLabels=labels))
    found = one(tmp_path / "a.pdf")
    place = where(found, "Page 3 text")
    assert (place.page, place.page_label) == (3, "")


def test_labels_that_nobody_would_print_are_none(tmp_path):
    labels = f"<</Nums[0 <</S/D/P({'x' * 500})>> 1 <</S/D/P<FEFF00070061>>>]>>"
    (tmp_path / "a.pdf").write_bytes(with_outline({100: "/Count 0"}, PageLabels=labels))
    found = one(tmp_path / "a.pdf")
    assert [where(found, f"Page {number} text").page_label for number in (1, 2)] == ["", ""]


def test_a_pdf_without_outline_and_labels_says_none(tmp_path):
    (tmp_path / "a.pdf").write_bytes(with_outline({}))
    found = one(tmp_path / "a.pdf")
    assert {each.kind for each in found.landmarks} == {"page"}
    assert location_of(found.landmarks, found.text, 0, 5).headings == ()


def test_pdfs_without_text_or_with_a_password_are_named_and_the_rest_is_read(tmp_path):
    blank = new_pdf()
    blank.add_page()
    blank.output(tmp_path / "blank.pdf")
    sections(tmp_path / "good.pdf")
    locked = new_pdf()
    locked.set_encryption(owner_password="a", user_password="b")
    locked.add_page()
    locked.cell(text="secret")
    locked.output(tmp_path / "locked.pdf")
    blank, good, locked = read_documents([tmp_path])
    assert isinstance(blank, Unreadable)
    assert "run OCR" in blank.reason
    assert "protected by a password" in locked.reason
    assert good.landmarks
