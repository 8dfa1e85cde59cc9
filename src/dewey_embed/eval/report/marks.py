"""The marks of a plot on its axes: lines with bands, named points, histograms, bars, and ticks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.text import Annotation
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from dewey_embed.eval.report.markup import MISSING
from dewey_embed.eval.result_page import Plot, Series
from dewey_embed.types import Mask

# Where a point's name may stand, the best places first: its anchor, and points to right and up.
# Ours and not adjustText: there names touch their points, and no fewer lie on others.
PLACES = (
    ("left", "center", 7, 0), ("right", "center", -7, 0), ("center", "bottom", 0, 6),
    ("center", "top", 0, -6), ("left", "bottom", 5, 4), ("left", "top", 5, -4),
    ("right", "bottom", -5, 4), ("right", "top", -5, -4), ("left", "bottom", 6, 13),
    ("left", "top", 6, -13), ("right", "bottom", -6, 13), ("right", "top", -6, -13),
)  # fmt: skip
SWEEPS = 3
"""How often each name looks for a better place, knowing where the others are."""

POINT_PIXELS = 8
"""Half a point's width in a figure of 192 pixels to an inch."""

HEIGHT = 3.5
"""Inches of a plot without rows of bars."""

# Okabe and Ito's colours without yellow, which is not seen on white. Source: Okabe, Ito (2008),
# "Color Universal Design".
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5F5F5F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":")
INK = "#1f2328"

LONGEST_NAME = 40
LONGEST_BAR_NAME = 48
LONGEST_NAME_AT_END = 24
MAX_NAMES_AT_ENDS = 7
MAX_MARKERS = 40
MAX_TICKS = 9
MAX_BAR_LABELS = 48
COLUMN_CHARS = 46
"""Characters of names that fit under bars that stand side by side."""

BAR_WIDTH = 0.74
"""Of the bars of one name together; names are 1 apart."""

LARGEST = 1e100
"""Larger figures are drawn here: beyond, the scale of an axis is past floating point."""

Doubles = NDArray[np.float64]


@dataclass
class Marks:
    """Names at lines' ends and beside points, to be moved apart, and entries of a legend."""

    ends: list[Annotation] = field(default_factory=list)
    beside: list[Annotation] = field(default_factory=list)
    legend: list[tuple[Any, str]] = field(default_factory=list)


class Look(NamedTuple):
    """How a series is told from others: by more than its colour. `ink` is readable as text."""

    colour: str
    marker: str
    dash: str
    ink: str


class Numbers(NamedTuple):
    """A series as float64 arrays by rising x, NaN where nothing was measured.

    `low` and `high` are `y` itself where there is no interval.
    """

    name: str
    x: Doubles
    y: Doubles
    low: Doubles
    high: Doubles
    labels: Sequence[str]
    look: Look

    @property
    def has_interval(self) -> bool:
        """Whether any of its figures has an interval."""
        return bool((self.low < self.high).any())

    @property
    def is_measured(self) -> Mask:
        """Where there is a figure."""
        return np.isfinite(self.x) & np.isfinite(self.y)


class ShortNumbers(EngFormatter):
    """Figures with three digits and a prefix: 20K, 1.5M."""

    ENG_PREFIXES = {0: "", 3: "K", 6: "M", 9: "G", 12: "T"}  # noqa: RUF012

    def format_data(self, value: float) -> str:
        """The text of a figure."""
        if abs(value) >= 1e15:
            return f"{value:.1e}"
        return super().format_data(float(f"{value:.3g}"))


def draw_marks(axes: Axes, plot: Plot) -> Marks:
    """The names still to be placed, once all series of a plot are on the axes."""
    names = _names_along_x(plot)
    series = [_to_numbers(each, names, number) for number, each in enumerate(plot.series)]
    if not any(each.is_measured.any() for each in series):
        axes.text(0.5, 0.5, "Nothing was measured.", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return Marks()
    if _is_bars(plot):
        return Marks(legend=_legend(_draw_bars(axes, series, names or []), series))
    draw = {"line": _draw_lines, "histogram": _draw_histogram}.get(plot.kind, _draw_points)
    marks = draw(axes, series)
    x = np.concatenate([each.x for each in series])
    y = np.concatenate([each.y for each in series])
    _set_x(axes, plot, names, sorted(set(x[np.isfinite(x)])))
    _set_plain(axes.yaxis, y[np.isfinite(y)])
    return marks


def figure_height(plot: Plot) -> float:
    """Inches: more than usual for named points, as many as bars in rows need."""
    names = _names_along_x(plot) or []
    if plot.kind == "points" and any(each.labels for each in plot.series):
        return HEIGHT + 0.7
    if not _is_bars(plot) or not _are_rows(names, len(plot.series)):
        return HEIGHT
    return 1.25 + len(names) * (0.16 + 0.19 * len(plot.series))


def separate(axes: Axes, marks: Marks) -> None:
    """Move names apart; the figure must be laid out."""
    if marks.ends:
        box = axes.get_window_extent()
        height = max(name.get_window_extent().height for name in marks.ends)
        wanted = [float(axes.transData.transform((0, name.xy[1]))[1]) for name in marks.ends]
        places = spread(wanted, 1.15 * height, box.y0 + height / 2, box.y1 - height / 2)
        to_data = axes.transData.inverted()
        for name, place in zip(marks.ends, places, strict=True):
            name.xy = (name.xy[0], float(to_data.transform((0, place))[1]))
    points = [axes.transData.transform(name.xy) for name in marks.beside]
    boxes: dict[int, Bbox] = {}
    for _ in range(SWEEPS):
        for own, name in enumerate(marks.beside):
            boxes.pop(own, None)
            others, names = points[:own] + points[own + 1 :], list(boxes.values())
            costs = [_cost(axes, name, place, others, names) for place in PLACES]
            _put(name, PLACES[costs.index(min(costs))])
            boxes[own] = name.get_window_extent()


def _put(name: Annotation, place: tuple[str, str, int, int]) -> None:
    name.set(ha=place[0], va=place[1])
    name.xyann = place[2:]


def _cost(
    axes: Axes,
    name: Annotation,
    place: tuple[str, str, int, int],
    points: Sequence[Any],
    names: Sequence[Bbox],
) -> float:
    """How much a name would hide at a place: points, other names; outside the axes is worst."""
    _put(name, place)
    box, room = name.get_window_extent(), axes.get_window_extent()
    outside = max(room.x0 - box.x0, box.x1 - room.x1, room.y0 - box.y0, box.y1 - room.y1, 0.0)
    apart, around = box.padded(3), box.padded(POINT_PIXELS)
    hidden_names = sum(apart.overlaps(other) for other in names)
    hidden_points = sum(bool(around.contains(x, y)) for x, y in points)
    return 5 * float(outside) + 100 * hidden_names + 60 * hidden_points


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart, in their order and near to those wanted.

    They stay between `low` and `high` where there is room for all.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    apart = list(places)
    for before, i in zip([None, *order], order, strict=False):
        apart[i] = max(apart[i], low if before is None else apart[before] + gap)
    for after, i in zip([None, *reversed(order)], reversed(order), strict=False):
        apart[i] = min(apart[i], high if after is None else apart[after] - gap)
    return apart


def plain(text: str, longest: int = 200) -> str:
    """Text in one line without control characters, which SVG may not hold; cut where too long."""
    words = "".join(char if char.isprintable() else " " for char in text).split()
    line = " ".join(words)
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def _look(number: int) -> Look:
    """The look of a plot's series by its place in it."""
    around, place = divmod(number, len(COLOURS))
    colour = COLOURS[place]
    ink = "#" + "".join(f"{int(int(colour[i : i + 2], 16) * 0.72):02x}" for i in (1, 3, 5))
    return Look(colour, MARKERS[place], DASHES[around % len(DASHES)], ink)


def _is_bars(plot: Plot) -> bool:
    """Whether a plot is drawn as bars by name; a histogram of names is, too."""
    return plot.kind == "bars" or (plot.kind == "histogram" and _names_along_x(plot) is not None)


def _names_along_x(plot: Plot) -> list[str] | None:
    """The names along x in the order in which they come; `None` where x are numbers."""
    values = [value for series in plot.series for value in series.x]
    if plot.kind != "bars" and not any(isinstance(value, str) for value in values):
        return None
    return list(dict.fromkeys(map(_name, values)))


def _name(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.10g}"


def _to_numbers(series: Series, names: Sequence[str] | None, number: int) -> Numbers:
    """A series as arrays; where x are names, by their place in `names`."""
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
        labels=[labels[i] for i in order] if labels else [],
        look=_look(number),
    )


def _array(values: Sequence[float | None]) -> Doubles:
    """Figures that can be drawn, with NaN for those that are missing or infinite."""
    array = np.array([np.nan if value is None else value for value in values], np.float64)
    array[np.isinf(array)] = np.nan
    return np.clip(array, -LARGEST, LARGEST)


def _legend(handles: Sequence[Any], series: Sequence[Numbers]) -> list[tuple[Any, str]]:
    """Entries of a legend; a single series needs none, for the title names it."""
    if len(series) < 2:
        return []
    return [(handle, each.name) for handle, each in zip(handles, series, strict=True)]


def _draw_lines(axes: Axes, series: Sequence[Numbers]) -> Marks:
    """Lines with their intervals as bands, named at their ends where all end at one x."""
    handles: list[Any] = []
    for each in series:
        handles += axes.plot(
            each.x, each.y, color=each.look.colour, linestyle=each.look.dash,
            marker=each.look.marker if len(each.x) <= MAX_MARKERS else "",
            markeredgecolor="white", markeredgewidth=0.7, zorder=3,
        )  # fmt: skip
        if each.has_interval:
            axes.fill_between(each.x, each.low, each.high, color=each.look.colour, alpha=0.13, lw=0)
    last = [each.is_measured.nonzero()[0][-1:] for each in series]
    ends = {float(x) for each, place in zip(series, last, strict=True) for x in each.x[place]}
    short = all(len(each.name) <= LONGEST_NAME_AT_END for each in series)
    alike = len(ends) == 1 and all(map(len, last))
    if not (alike and short and 1 < len(series) <= MAX_NAMES_AT_ENDS):
        return Marks(legend=_legend(handles, series))
    return Marks(
        ends=[
            axes.annotate(
                each.name, (1, float(each.y[place[0]])), (5, 0),
                xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="center",
                color=each.look.ink, annotation_clip=False,
            )
            for each, place in zip(series, last, strict=True)
        ]
    )  # fmt: skip


def _draw_points(axes: Axes, series: Sequence[Numbers]) -> Marks:
    """Points, with their intervals as lines and their names beside them."""
    handles, beside = [], []
    for each in series:
        if each.has_interval:
            axes.vlines(each.x, each.low, each.high, color=each.look.colour, alpha=0.55, lw=1.2)
        handles.append(
            axes.scatter(
                each.x, each.y, s=42, color=each.look.colour, marker=each.look.marker,
                edgecolors="white", linewidths=0.8, zorder=3,
            )
        )  # fmt: skip
        for place in each.is_measured.nonzero()[0].tolist() if each.labels else ():
            if each.labels[place]:
                point = float(each.x[place]), float(each.y[place])
                beside.append(
                    axes.annotate(
                        each.labels[place], point, (7, 0), textcoords="offset points", size=8.5,
                        color=each.look.ink,
                    )
                )  # fmt: skip
    axes.grid(visible=True, axis="x")
    axes.margins(0.09)
    return Marks(beside=beside, legend=_legend(handles, series))


def _draw_histogram(axes: Axes, series: Sequence[Numbers]) -> Marks:
    """Outlines over light areas, so that one series is seen through another."""
    handles: list[Any] = []
    for each in series:
        x, places = np.unique(each.x[np.isfinite(each.x)], return_index=True)
        if not len(x):
            handles.append(axes.plot([], [], color=each.look.colour)[0])
            continue
        edges = np.append(x, 2 * x[-1] - x[-2] if len(x) > 1 else x[-1] + 1)
        look: dict[str, Any] = {"color": each.look.colour}
        axes.stairs(each.y[places], edges, fill=True, alpha=0.16, **look)
        outline = axes.stairs(each.y[places], edges, lw=1.6, linestyle=each.look.dash, **look)
        handles.append(outline)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    return Marks(legend=_legend(handles, series))


def _are_rows(names: Sequence[str], num_series: int) -> bool:
    """Whether bars lie one below another: names are too long to stand side by side."""
    return sum(max(len(name), 2 * num_series) + 2 for name in names) > COLUMN_CHARS


def _draw_bars(axes: Axes, series: Sequence[Numbers], names: Sequence[str]) -> list[Any]:
    """Bars, each with its figure; they begin at zero, for their lengths are compared."""
    rows = _are_rows(names, len(series))
    finite = np.concatenate([each.y[np.isfinite(each.y)] for each in series])
    num_bars = len(series) * len(names)
    width = BAR_WIDTH / len(series)
    handles = []
    for number, each in enumerate(series):
        place = each.x + (number - (len(series) - 1) / 2) * width
        error_bars: dict[str, Any] = {"error_kw": {"ecolor": INK, "elinewidth": 1.3}}
        if each.has_interval:
            ends = np.nan_to_num([each.y - each.low, each.high - each.y]).clip(0)
            error_bars["xerr" if rows else "yerr"] = ends
        draw = axes.barh if rows else axes.bar
        bars = draw(
            place, np.nan_to_num(each.y), width * 0.92, color=each.look.colour, **error_bars
        )
        handles.append(bars)
        if num_bars <= (MAX_BAR_LABELS if rows else 10):
            labels = [_figure_text(value, _digits(finite)) for value in each.y]
            axes.bar_label(bars, labels, padding=4, size=8.5, color=INK)
    along, across = (axes.yaxis, axes.xaxis) if rows else (axes.xaxis, axes.yaxis)
    lines = ["\n".join(textwrap.wrap(plain(name, LONGEST_BAR_NAME), 24)) for name in names]
    along.set_ticks(range(len(names)), lines)
    along.set_tick_params(length=0, labelcolor=INK)
    _set_plain(across, finite)
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


def _digits(values: Doubles) -> int:
    """Decimals that tell bars apart: three of 0.7, none where all figures are integers."""
    if (values % 1 == 0).all():
        return 0
    return int(np.clip(3 - np.ceil(np.log10(np.abs(values).max())), 0, 3))


def _figure_text(value: float, digits: int) -> str:
    if np.isnan(value):
        return MISSING
    if abs(value) >= 10_000:
        return short_number(value)
    return f"{value:,.{digits}f}".replace("-", "−")


def _set_x(axes: Axes, plot: Plot, names: Sequence[str] | None, values: Sequence[float]) -> None:
    """Set the axis as the plot asks; a linear one where a logarithm has no place for a 0."""
    if names is not None:
        axes.set_xticks(range(len(names)), [plain(name, LONGEST_NAME_AT_END) for name in names])
        if sum(len(name) + 2 for name in names) > 70:
            axes.tick_params(axis="x", rotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    elif plot.log_x and values[0] >= 1 / LARGEST:
        axes.set_xscale("log", base=2 if _is_binary(values) else 10)
        _set_logarithmic(axes.xaxis, values, at_values=plot.kind == "line")
    else:
        _set_plain(axes.xaxis, np.array(values))


def _set_plain(axis: Axis, values: Doubles) -> None:
    """Set round ticks, with prefixes where figures are large."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    if np.abs(values).max(initial=0) >= 10_000:
        axis.set_major_formatter(ShortNumbers(sep=""))


def _set_logarithmic(axis: Axis, values: Sequence[float], *, at_values: bool) -> None:
    """Set ticks at the values themselves, where asked for or powers of two, else round ones."""
    binary = _is_binary(values)
    if at_values or binary:
        every = math.ceil(len(values) / MAX_TICKS)
        axis.set_major_locator(FixedLocator(values[::-1][::every][::-1]))  # the longest has a tick
    else:
        decades = math.log10(values[-1]) - math.log10(values[0])
        multiples = (1,) if decades > 2 else (1, 3) if decades > 1 else (1, 2, 5)
        round_numbers = LogLocator(subs=multiples, numticks=MAX_TICKS)
        axis.set_major_locator(round_numbers if decades > 0.7 else MaxNLocator(nbins=5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value, binary=binary)))


def _is_binary(values: Sequence[float]) -> bool:
    """Whether all values are powers of two, as lengths and sizes of chunks are."""
    return all(1 <= value < 2**50 and math.log2(value).is_integer() for value in values)


def short_number(value: float, *, binary: bool = False) -> str:
    """A number with a prefix: `1.5M`; `128K` of 131,072 where it is `binary`."""
    if not binary or value < 1024:
        return ShortNumbers(sep="").format_data(value).replace("-", "−")
    power = min(int(math.log2(value)) // 10, 4)
    return f"{value / 1024**power:.3g}{' KMGT'[power]}"
