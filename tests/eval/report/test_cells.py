"""What is shown of cells: digits, dashes, the best."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dewey_embed.eval.report.cells import MISSING, holds_numbers, number_text, show
from dewey_embed.eval.result_page import Column, Table


def column(*cells, **settings) -> Table:
    return Table(
        title="t", columns=(Column(name="c", **settings),), rows=tuple((cell,) for cell in cells)
    )


def bold(table) -> list[str]:
    return [row[0].text for row in show(table) if row[0].best]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.81649, 4, "0.8165"),
        (10449, 4, "10,449"),
        (12345.678, 1, "12,345.7"),
        (0.0, 3, "0.000"),
        (-0.0, 3, "0.000"),
        (0.00004, 3, "4.0e-05"),  # small is not nothing
        (-0.00004, 3, "-4.0e-05"),
        (1e300, 2, "1.00e+300"),
        (0.5, -3, "5.0e-01"),
        (10**40, 4, f"{10**40:,}"),
    ],
)
def test_numbers_are_shown_with_their_digits(value, digits, text) -> None:
    assert number_text(value, digits) == text


@pytest.mark.parametrize("cell", [None, math.nan, math.inf, -math.inf, "", "  "])
def test_what_was_not_measured_is_a_dash(cell) -> None:
    [[shown]] = show(column(cell))
    assert shown.text == MISSING
    assert shown.value is None


def test_the_best_is_marked_and_so_is_what_reads_like_it() -> None:
    cells = (0.12341, 0.98761, None, 0.98764, "n/a")
    assert bold(column(*cells, best="highest")) == ["0.9876", "0.9876"]
    assert bold(column(*cells, best="lowest")) == ["0.1234"]
    assert bold(column(*cells)) == []


def test_nothing_is_best_where_nothing_is_worse() -> None:
    assert bold(column(0.5, None, "n/a", best="highest")) == []
    assert bold(column(0.5, 0.5, best="highest")) == []


def test_a_column_of_numbers_with_gaps_is_one_of_numbers() -> None:
    assert holds_numbers(column(1, None, 0.5, ""), 0)
    assert not holds_numbers(column(1, "0.4 – 0.5"), 0)
    assert not holds_numbers(column(None, None), 0)


@given(
    cells=st.lists(st.none() | st.text() | st.floats() | st.integers(), min_size=1),
    digits=st.integers(-5, 400),
    best=st.sampled_from(["highest", "lowest", None]),
)
def test_any_cell_can_be_shown(cells, digits, best) -> None:
    shown = [row[0] for row in show(column(*cells, digits=digits, best=best))]
    numbers = [cell.number for cell in shown if cell.number is not None]
    for cell in shown:
        assert cell.text.strip() or cell.text == "\x1f" or not cell.text.isprintable()
        if cell.best:
            extreme = (max if best == "highest" else min)(numbers)
            assert cell.text == number_text(extreme, digits)


def test_the_best_of_a_row_is_marked_where_the_table_asks_for_rows():
    table = Table(
        title="models by task",
        columns=(
            Column(name="task"),
            Column(name="a", best="highest"),
            Column(name="b", best="highest"),
        ),
        rows=(("one", 0.5, 0.6), ("two", 0.9, 0.7), ("three", 0.4, None)),
        best_in="row",
    )
    assert [[cell.best for cell in row] for row in show(table)] == [
        [False, False, True],
        [False, True, False],
        [False, False, False],
    ]
