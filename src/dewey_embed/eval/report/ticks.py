"""Ticks that people read: 1K, 8K, 128K on logarithmic axes, 20K and 1.5M on plain ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis

MOST_TICKS = 9
PREFIXES = ("", "K", "M", "G", "T")
# Multiples within a decade, the fewest first: taken are the first that give enough ticks.
WITHIN_DECADES = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))


def short_number(value: float, *, step: int = 1000) -> str:
    """A number with a prefix: `128K` of 131,072 with a step of 1024; `1.5M` with one of 1000."""
    size, power = abs(value), 0
    while size >= step and power < len(PREFIXES) - 1:
        size, power = size / step, power + 1
    if size >= 10_000:
        return f"{value:.1e}"
    text = f"{size:.3g}" if size < 1000 else f"{size:.0f}"
    return ("−" if value < 0 else "") + text + PREFIXES[power]


def set_plain(axis: Axis, values: Sequence[float]) -> None:
    """Nothing; the axis then says 20K and 1.5M where its numbers are that large."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    if values and max(map(abs, values)) >= 10_000:
        axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def set_logarithmic(axis: Axis, values: Sequence[float], *, at_values: bool) -> None:
    """Nothing; the axis then has ticks at the values themselves, where asked for, or round ones."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    step = 1024 if is_binary(values) else 1000
    distinct = sorted(set(values))
    if at_values or step == 1024:
        every = math.ceil(len(distinct) / MOST_TICKS)
        ticks = distinct[::-1][::every][::-1]  # the longest is always told
    else:
        low, high = axis.get_view_interval()
        ticks = round_ticks(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value, step=step)))


def is_binary(values: Sequence[float]) -> bool:
    """Whether all values are powers of two, as lengths and sizes of chunks are."""
    return all(value >= 1 and math.log2(value).is_integer() for value in values)


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, at least three where there are as many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for multiples in WITHIN_DECADES:
        ticks = [m * 10.0**d for d in decades for m in multiples if low <= m * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    every = math.ceil(len(ticks) / MOST_TICKS) or 1
    return ticks[::every]
