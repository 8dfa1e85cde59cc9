"""Bars by name: one below another where names are long or many, side by side where they fit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dewey_embed.eval.report.cells import MISSING
from dewey_embed.eval.report.labels import plain
from dewey_embed.eval.report.series import Look, Numbers
from dewey_embed.eval.report.ticks import set_plain, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOM = 46
"""Characters of names that fit side by side."""

LONGEST_NAME = 48
LINE = 24
MOST_FIGURES = 48
THICKNESS = 0.74


def are_rows(names: Sequence[str], num_series: int) -> bool:
    """Whether bars lie one below another."""
    together = sum(max(len(name), 2 * num_series) + 2 for name in names)
    return together > ROOM


def draw_bars(axes: Axes, series: Sequence[Numbers], names: Sequence[str]) -> list[Any]:
    """What stands for each series in a legend; the bars are then on the axes, each with its figure.

    Bars begin at zero: their lengths are what is compared.
    """
    rows = are_rows(names, len(series))
    finite = np.concatenate([each.y[np.isfinite(each.y)] for each in series])
    thickness = THICKNESS / len(series)
    handles = []
    for number, each in enumerate(series):
        look = Look.of(number)
        place = each.x + (number - (len(series) - 1) / 2) * thickness
        draw = axes.barh if rows else axes.bar
        handles.append(draw(place, np.nan_to_num(each.y), thickness * 0.92, color=look.colour))
        lines = axes.hlines if rows else axes.vlines
        if each.has_interval:
            lines(place, each.low, each.high, color="#1f2328", linewidth=1.3)
        if len(series) * len(names) <= MOST_FIGURES and (rows or len(series) * len(names) <= 10):
            _write_figures(axes, each, place, rows=rows, digits=_digits(finite))
    along, across = (axes.yaxis, axes.xaxis) if rows else (axes.xaxis, axes.yaxis)
    along.set_ticks(range(len(names)), [_in_lines(name) for name in names])
    along.set_tick_params(length=0, labelcolor="#1f2328")
    set_plain(across, list(finite))
    axes.grid(visible=False, axis="y" if rows else "x")
    axes.grid(visible=True, axis="x" if rows else "y")
    if rows:
        axes.invert_yaxis()  # the first on top
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.22 if (finite < 0).any() else 0.14, y=0.02)
    else:
        axes.margins(y=0.15)
    (axes.axvline if rows else axes.axhline)(0, color="#b6bcc4", linewidth=0.8)
    return handles


def _write_figures(axes: Axes, each: Numbers, places: Any, *, rows: bool, digits: int) -> None:
    """Nothing; each bar then has its figure past its end, or past its interval's."""
    for place, value, low, high in zip(places, each.y, each.low, each.high, strict=True):
        if np.isnan(value):
            text, end, up = MISSING, 0.0, True
        else:
            text, up = _figure_text(value, digits), value >= 0
            end = max(value, high) if up else min(value, low)
        offset = 4 if up else -4
        axes.annotate(
            text,
            (end, place) if rows else (place, end),
            (offset, 0) if rows else (0, offset),
            textcoords="offset points",
            ha=("left" if up else "right") if rows else "center",
            va="center" if rows else ("bottom" if up else "top"),
            size=8.5,
            color="#1f2328",
        )


def _in_lines(name: str) -> str:
    return "\n".join(textwrap.wrap(plain(name, LONGEST_NAME), LINE))


def _digits(values: NDArray[np.float64]) -> int:
    """Decimals that tell bars apart: three of 0.7, none where all figures are whole."""
    if (values % 1 == 0).all():
        return 0
    return int(np.clip(3 - np.ceil(np.log10(np.abs(values).max())), 0, 3))


def _figure_text(value: float, digits: int) -> str:
    return short_number(value) if abs(value) >= 10_000 else f"{value:,.{digits}f}".replace("-", "−")
