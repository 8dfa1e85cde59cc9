"""Where a range stands: the same as by reading all landmarks before it, one by one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_embed.text.locations import Places, location_of
from dewey_embed.types import Landmark, Location

KINDS = ("page", "slide", "sheet", "cell", "heading", "line", "row")


def read_on(landmarks, text):
    """What stands at each character: landmarks by kind, headings, numbers of line and row."""
    standing = dict.fromkeys(KINDS)
    path = []
    num_sheets = 0
    counted = dict.fromkeys(("line", "row"))
    for char in range(len(text)):
        for kind, number in counted.items():
            if number and char and text[char - 1] == "\n":
                counted[kind] = number + 1
        for each in landmarks:
            if each.char == char:
                standing[each.kind] = each if each.number else None
                if each.kind == "heading":
                    path = [other for other in path if other.number < each.number]
                    path += [each] if each.number else []
                num_sheets += each.kind == "sheet"
                counted |= {each.kind: each.number or None} if each.kind in counted else {}
        yield {**standing, **counted, "path": path, "num_sheets": num_sheets}


def by_reading_on(landmarks, text, start, end):
    """The location of a range, found by going through the text character by character."""
    solid = [at for at in range(start, end) if not text[at].isspace()] or [*range(start, end)]
    states = [*read_on(landmarks, text)][solid[0] : solid[-1] + 1]
    first = states[0]
    same_sheet = [each for each in states if each["num_sheets"] == first["num_sheets"]]

    def last(kind, among):
        return [each[kind] for each in among if each[kind]][-1] if first[kind] else None

    return Location(
        **{kind: first[kind] and first[kind].number for kind in ("page", "slide", "cell")},
        page_label=first["page"].label if first["page"] else "",
        last_page=last("page", states) and last("page", states).number,
        sheet=first["sheet"].label if first["sheet"] else "",
        row=first["row"],
        last_row=last("row", same_sheet),
        line=first["line"],
        last_line=last("line", states),
        headings=tuple(each.label for each in first["path"] if each.label),
    )


@st.composite
def marked_texts(draw):
    text = draw(st.text("ab \n", min_size=1, max_size=40))
    landmarks = draw(
        st.lists(
            st.builds(
                Landmark,
                st.integers(0, len(text) - 1),
                st.sampled_from(KINDS),
                st.integers(0, 4),
                st.sampled_from(["", "x", "y", "z"]),
            ),
            max_size=25,
        )
    )
    start = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(start + 1, len(text)))
    return sorted(landmarks, key=lambda each: each.char), text, start, end


@given(marked_texts())
def test_a_location_is_what_reading_on_from_the_first_character_finds(case):
    assert location_of(*case) == by_reading_on(*case)


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [
        *((0, 4, (None, None)), (5, 10, (1, 1)), (5, 12, (1, 2)), (9, 11, (1, 1))),
        *((10, 15, (2, 2)), (5, 21, (1, 2)), (17, 21, (None, None))),
    ],
)
def test_pages_at_their_bounds(start, end, pages):
    text = "none\nfirst\nsecnd\nnone"
    landmarks = [Landmark(5, "page", 1), Landmark(11, "page", 2), Landmark(17, "page", 0)]
    found = location_of(landmarks, text, start, end)
    assert (found.page, found.last_page) == pages


def test_rows_of_another_sheet_are_not_counted_on():
    text = "a\nb\nc\nd"
    landmarks = [
        *(Landmark(0, "sheet", 1, "Rents"), Landmark(0, "row", 7)),
        *(Landmark(4, "sheet", 2, "Costs"), Landmark(4, "row", 1)),
    ]
    found = location_of(landmarks, text, 0, 7)
    assert (found.sheet, found.row, found.last_row) == ("Rents", 7, 8)


def test_many_landmarks_are_arranged_once_and_each_location_is_found_at_once():
    text = "word " * 500_000
    landmarks = [
        Landmark(25 * number, ("page", "heading")[number % 2], number % 5 + 1, "x")
        for number in range(100_000)
    ]
    places = Places(landmarks, text)
    start = time.process_time()
    for at in range(0, 2_000_000, 1000):
        places.location(at, at + 300)
    assert time.process_time() - start < 2
