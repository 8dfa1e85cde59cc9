"""Tables in text files: their delimiters, headers, quotation marks and rows."""

import csv
import io

import pytest

from dewey_embed.text.inputs import ReadLimits
from dewey_embed.types import Document, Location
from tests.text.places import one, where

ROWS = [["Name", "Town", "Born"], ["Ann", "Dover", "1990"], ["Bob", "Graz, Styria", "1991"]]


def written(rows, **options) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_delimiter_is_found_whatever_the_name_says(tmp_path, name, delimiter):
    (tmp_path / name).write_text(written(ROWS, delimiter=delimiter))
    found = one(tmp_path / name)
    assert found.text == (
        "Name; Town; Born\nName: Ann; Town: Dover; Born: 1990\n"
        "Name: Bob; Town: Graz, Styria; Born: 1991"
    )
    assert where(found, "Dover") == Location(row=2, last_row=2)


def test_rows_are_counted_as_a_spreadsheet_counts_them(tmp_path):
    rows = [*ROWS, [], ["Eve", "two\nlines", "1992"], ["Zoe", "Rome", "1993"]]
    (tmp_path / "a.csv").write_text(written(rows))
    found = one(tmp_path / "a.csv")
    assert where(found, "two lines") == Location(row=5, last_row=5)
    assert where(found, "Zoe") == Location(row=6, last_row=6)
    (tmp_path / "b.csv").write_text("sep=;\n" + written(ROWS, delimiter=";"))
    found = one(tmp_path / "b.csv")
    assert where(found, "Dover") == Location(row=2, last_row=2)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([["1", "2"], ["3", "4"]], "1; 2\n3; 4"),  # numbers name no column
        ([["Ann", "Dover"], ["Bob", "Dover"]], "Ann; Dover\nBob; Dover"),  # a value comes again
        ([["a", "a"], ["1", "2"]], "a; a\n1; 2"),
        ([["Of 2024"], [], ["Day", "Fee"], ["3", "10"]], "Of 2024\nDay; Fee\nDay: 3; Fee: 10"),
        ([["one"], ["two"]], "one\ntwo"),
        ([["Day", "^GSPC"], ["3", "10"]], "Day; ^GSPC\nDay: 3; ^GSPC: 10"),
        ([["Name", "Town"]], "Name; Town"),
        ([["Name", "Town"], ["Ann", ""], ["", "Rome"]], "Name; Town\nName: Ann\nTown: Rome"),
    ],
)  # fmt: skip
def test_only_a_header_names_columns(tmp_path, rows, text):
    (tmp_path / "a.csv").write_text(written(rows))
    assert one(tmp_path / "a.csv").text == text


def test_encodings_are_those_of_texts(tmp_path):
    rows = [["Ort", "Straße"], ["Köln", "Müllergäßchen"], ["Würzburg", "Färberstraße"]]
    for name, encoding in (("a.csv", "cp1252"), ("b.csv", "utf-8-sig"), ("c.csv", "utf-16")):
        (tmp_path / name).write_bytes(written(rows, delimiter=";").encode(encoding))
        found = one(tmp_path / name)
        assert "Ort: Köln; Straße: Müllergäßchen" in found.text
        assert found.unread == ({"guessed encoding cp1252": 1} if name == "a.csv" else {})


def test_one_column_of_cells_of_a_megabyte_is_read(tmp_path):
    cell = "many words " * 90_909
    (tmp_path / "a.csv").write_text(written([[f"{number} {cell}"] for number in range(1, 11)]))
    found = one(tmp_path / "a.csv")
    assert isinstance(found, Document)
    assert len(found.text) > 9_900_000
    assert where(found, "words\n7 many") == Location(row=6, last_row=7)
    (tmp_path / "b.csv").write_text(written([["Text", "Year"], [cell, "1990"]]))
    assert one(tmp_path / "b.csv").text.endswith("words; Year: 1990")


def test_a_quotation_mark_that_is_never_closed_costs_no_row(tmp_path):
    (tmp_path / "a.csv").write_text('Name,Size\nTable,"5 inch\nChair,4\nLamp,3\n')
    found = one(tmp_path / "a.csv")
    assert where(found, "Lamp") == Location(row=4, last_row=4)


def test_texts_that_labels_make_too_long_are_named_with_the_limit(tmp_path):
    header = ["a" * 50, "b" * 50]
    (tmp_path / "a.csv").write_text(written([header, *[["x", "y"]] * 20_000]))
    assert "--max-text-mb" in one(tmp_path / "a.csv", limits=ReadLimits(max_text_mb=1)).reason


def test_a_table_without_values_is_empty(tmp_path):
    (tmp_path / "a.csv").write_text(",,\n,,\n")
    assert one(tmp_path / "a.csv").kind == "empty"


@pytest.mark.parametrize(
    "rows",
    [
        ['"foo"bar,one', "ann,two", 'ted,"never closed', "bob,timber three", "kim,four"],
        ['"foo"bar,one', "ann,two", 'ted,"5 inch', 'bob,"6 inch', "kim,four"],
    ],
)
def test_text_after_a_quotation_mark_hides_no_mark_that_is_never_closed(tmp_path, rows):
    (tmp_path / "a.csv").write_text("\n".join(["Name,Note", *rows, ""]))
    found = one(tmp_path / "a.csv")
    assert len(found.text.split("\n")) == 6
    for words, row in (("ann", 3), ("bob", 5), ("kim", 6)):
        assert where(found, words) == Location(row=row, last_row=row)


def test_blanks_after_a_cell_of_several_lines_do_not_cut_it(tmp_path):
    (tmp_path / "a.csv").write_text('Name,Note\n"ann" x,"two, and\nthree" \nkim,four\n')
    found = one(tmp_path / "a.csv")
    assert "Name: ann x; Note: two, and three\n" in found.text
    assert where(found, "kim") == Location(row=3, last_row=3)
