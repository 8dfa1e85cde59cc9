"""Cells → what is shown of them: digits, thousands, a dash for what was not measured, the best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeGuard

from dewey_embed.eval.result_page import Cell, Table

MISSING = "–"
MOST_DIGITS = 15


@dataclass(frozen=True)
class Shown:
    """A cell as readers see it; `value` is what it is sorted by, `None` if it is missing."""

    text: str
    value: float | str | None
    best: bool

    @property
    def number(self) -> float | None:
        """Its value, where that is a number."""
        return None if isinstance(self.value, str) else self.value


def show(table: Table) -> list[list[Shown]]:
    """The rows of a table, the best figures marked in the columns whose `best` asks for it.

    They are the best of their column or, with `best_in="row"`, of the row's such columns. Best is
    every figure that reads like the best one: equal texts are not told apart.
    """
    rows = [
        [_show(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    compared = [number for number, column in enumerate(table.columns) if column.best]
    if table.best_in == "row":
        groups = [[(row, number) for number in compared] for row in range(len(rows))]
    else:
        groups = [[(row, number) for row in range(len(rows))] for number in compared]
    for group in groups:
        _mark_best(rows, group, table)
    return rows


def holds_numbers(table: Table, number: int) -> bool:
    """Whether all that is measured in a column are numbers, so that it stands to the right."""
    cells = [row[number] for row in table.rows]
    measured = [cell for cell in cells if not _is_missing(cell)]
    return bool(measured) and all(_is_number(cell) for cell in measured)


def number_text(value: float, digits: int) -> str:
    """A number with this many decimals, whole ones with none; never a zero that is none."""
    if isinstance(value, int):
        return f"{value:,}"
    digits = min(max(digits, 0), MOST_DIGITS)
    if abs(value) >= 10**MOST_DIGITS:
        return f"{value:.{digits}e}"
    text = f"{value:,.{digits}f}"
    if not any(figure in text for figure in "123456789"):
        return f"{value:.1e}" if value else text.removeprefix("-")
    return text


def _mark_best(rows: list[list[Shown]], group: list[tuple[int, int]], table: Table) -> None:
    """Mark the best figures among the cells of a group, if they are not all alike."""
    numbers = [(row, number) for row, number in group if rows[row][number].number is not None]
    if len({rows[row][number].text for row, number in numbers}) < 2:
        return
    choose = max if table.columns[group[0][1]].best == "highest" else min
    row, number = choose(numbers, key=lambda place: rows[place[0]][place[1]].number or 0)
    best = rows[row][number].text
    for row, number in numbers:
        cell = rows[row][number]
        rows[row][number] = replace(cell, best=cell.text == best)


def _show(cell: Cell, digits: int) -> Shown:
    if _is_number(cell):
        return Shown(number_text(cell, digits), cell, best=False)
    if _is_missing(cell):
        return Shown(MISSING, None, best=False)
    return Shown(str(cell), str(cell), best=False)


def _is_number(cell: Cell) -> TypeGuard[float]:
    """Whether a cell is a figure; NaN and infinity are none."""
    return isinstance(cell, int) or (isinstance(cell, float) and math.isfinite(cell))


def _is_missing(cell: Cell) -> bool:
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or not _is_number(cell)
