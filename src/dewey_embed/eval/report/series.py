"""`Series` → arrays to draw, and the look that tells one series from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dewey_embed.eval.report.labels import plain
from dewey_embed.eval.result_page import Plot, Series

# Okabe and Ito's colours without yellow, which is not seen on white. Source: Okabe, Ito (2008),
# "Color Universal Design".
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5F5F5F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":")

LONGEST_NAME = 40


@dataclass(frozen=True)
class Numbers:
    """A series as float64 arrays, NaN where nothing was measured; names are numbered from 0.

    `low` and `high` are `y` itself where no interval is told.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    labels: tuple[str, ...]

    @property
    def has_interval(self) -> bool:
        """Whether any of its figures has an interval."""
        return bool((self.low < self.high).any())


@dataclass(frozen=True)
class Look:
    """How a series is told from others: by more than its colour."""

    colour: str
    marker: str
    dash: str

    @classmethod
    def of(cls, number: int) -> Look:
        """The look of a plot's series by its place in it."""
        around, place = divmod(number, len(COLOURS))
        return cls(COLOURS[place], MARKERS[place], DASHES[around % len(DASHES)])

    @property
    def ink(self) -> str:
        """Its colour, darker: as readable as text must be."""
        parts = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return "#" + "".join(f"{int(part * 0.72):02x}" for part in parts)


def names_along_x(plot: Plot) -> list[str] | None:
    """The names along x in the order in which they come; `None` where x are numbers."""
    values = [value for series in plot.series for value in series.x]
    if plot.kind != "bars" and not any(isinstance(value, str) for value in values):
        return None
    return list(dict.fromkeys(map(_name, values)))


def to_numbers(series: Series, names: Sequence[str] | None) -> Numbers:
    """A series as arrays, by rising x; where x are names, by their place in `names`."""
    if names is None:
        x = _array([value for value in series.x if not isinstance(value, str)])
    else:
        x = np.array([names.index(_name(value)) for value in series.x], np.float64)
    y = _array(series.y)
    low = y if series.low is None else _array(series.low)
    high = y if series.high is None else _array(series.high)
    order = np.argsort(x, kind="stable")
    labels = [plain(label, LONGEST_NAME) for label in series.labels or ()]
    return Numbers(
        name=plain(series.name, LONGEST_NAME),
        x=x[order],
        y=y[order],
        low=np.where(np.isnan(low), y, low)[order],
        high=np.where(np.isnan(high), y, high)[order],
        labels=tuple(labels[i] for i in order) if labels else (),
    )


def _name(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.10g}"


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Figures, with NaN for those that are missing or infinite."""
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    found[np.isinf(found)] = np.nan
    return found
