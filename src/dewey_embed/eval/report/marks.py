"""The marks of a plot on its axes: lines with bands, points with names, histograms, bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dewey_embed.eval.report.bars import are_rows, draw_bars
from dewey_embed.eval.report.labels import plain
from dewey_embed.eval.report.series import Look, Numbers, names_along_x, to_numbers
from dewey_embed.eval.report.ticks import is_binary, set_logarithmic, set_plain
from dewey_embed.eval.result_page import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

MOST_NAMED_AT_ENDS = 7
LONGEST_NAME_AT_END = 24
MOST_MARKERS = 40


@dataclass
class Drawn:
    """What has still to be placed: names at lines' ends, names of points, entries of a legend."""

    ends: list[Annotation] = field(default_factory=list)
    beside: list[Annotation] = field(default_factory=list)
    legend: list[tuple[Any, str]] = field(default_factory=list)


def is_bars(plot: Plot) -> bool:
    """Whether a plot is drawn as bars by name; a histogram of names is, too."""
    return plot.kind == "bars" or (plot.kind == "histogram" and names_along_x(plot) is not None)


def height_of(plot: Plot, usual: float) -> float:
    """Inches: the usual, more for points with names, what bars need that lie in rows."""
    names = names_along_x(plot) or []
    if plot.kind == "points" and any(each.labels for each in plot.series):
        return usual + 0.7
    if not is_bars(plot) or not are_rows(names, len(plot.series)):
        return usual
    return 1.25 + len(names) * (0.16 + 0.19 * len(plot.series))


def draw_marks(axes: Axes, plot: Plot) -> Drawn:
    """What is left to place once all series of a plot are on the axes."""
    names = names_along_x(plot)
    series = [to_numbers(each, names) for each in plot.series]
    drawn = Drawn()
    known = [each.x[np.isfinite(each.y)] for each in series]
    if not any(len(x[np.isfinite(x)]) for x in known):
        axes.text(0.5, 0.5, "Nothing was measured.", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return drawn
    if is_bars(plot):
        _add_legend_entries(drawn, draw_bars(axes, series, names or []), series)
        return drawn
    draw = {"line": _draw_lines, "histogram": _draw_histogram}.get(plot.kind, _draw_points)
    draw(axes, series, drawn)
    x = np.concatenate([each.x for each in series])
    y = np.concatenate([each.y for each in series])
    _set_x(axes, plot, names, sorted(set(x[np.isfinite(x)])))
    set_plain(axes.yaxis, list(y[np.isfinite(y)]))
    return drawn


def _draw_lines(axes: Axes, series: Sequence[Numbers], drawn: Drawn) -> None:
    handles: list[Any] = []
    ends = []
    for number, each in enumerate(series):
        look = Look.of(number)
        marker = look.marker if len(each.x) <= MOST_MARKERS else ""
        handles += axes.plot(
            each.x, each.y, color=look.colour, linestyle=look.dash, marker=marker,
            markeredgecolor="white", markeredgewidth=0.7, zorder=3,
        )  # fmt: skip
        if each.has_interval:
            axes.fill_between(each.x, each.low, each.high, color=look.colour, alpha=0.13, lw=0)
        measured = np.flatnonzero(np.isfinite(each.y) & np.isfinite(each.x))
        if len(measured):
            ends.append((each.name, look, each.x[measured[-1]], each.y[measured[-1]]))
    alike = len({x for _, _, x, _ in ends}) == 1 and len(ends) == len(series)
    short = all(len(name) <= LONGEST_NAME_AT_END for name, *_ in ends)
    if not (alike and short and 1 < len(series) <= MOST_NAMED_AT_ENDS):
        _add_legend_entries(drawn, handles, series)
        return
    for name, look, _, y in ends:
        drawn.ends.append(
            axes.annotate(
                name, (1, y), (5, 0), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", va="center", color=look.ink, annotation_clip=False,
            )
        )  # fmt: skip


def _draw_points(axes: Axes, series: Sequence[Numbers], drawn: Drawn) -> None:
    handles = []
    for number, each in enumerate(series):
        look = Look.of(number)
        if each.has_interval:
            axes.vlines(each.x, each.low, each.high, color=look.colour, alpha=0.55, linewidth=1.2)
        handles.append(
            axes.scatter(
                each.x, each.y, s=42, color=look.colour, marker=look.marker, edgecolors="white",
                linewidths=0.8, zorder=3,
            )
        )  # fmt: skip
        for label, x, y in zip(each.labels, each.x, each.y, strict=bool(each.labels)):
            if label and np.isfinite(x) and np.isfinite(y):
                drawn.beside.append(
                    axes.annotate(
                        label, (x, y), (7, 0), textcoords="offset points", size=8.5, color=look.ink
                    )
                )
    axes.grid(visible=True, axis="x")
    axes.margins(0.09)
    _add_legend_entries(drawn, handles, series)


def _draw_histogram(axes: Axes, series: Sequence[Numbers], drawn: Drawn) -> None:
    """Outlines over light areas, so that one series is seen through another."""
    handles: list[Any] = []
    for number, each in enumerate(series):
        look = Look.of(number)
        x, places = np.unique(each.x[np.isfinite(each.x)], return_index=True)
        if not len(x):
            handles.append(axes.plot([], [], color=look.colour)[0])
            continue
        last = x[-1] - x[-2] if len(x) > 1 else 1.0
        edges = np.append(x, x[-1] + last)
        counts = each.y[places]
        axes.stairs(counts, edges, fill=True, color=look.colour, alpha=0.16)
        handles.append(
            axes.stairs(counts, edges, color=look.colour, linewidth=1.6, linestyle=look.dash)
        )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    _add_legend_entries(drawn, handles, series)


def _add_legend_entries(drawn: Drawn, handles: Sequence[Any], series: Sequence[Numbers]) -> None:
    """Nothing; a legend is then needed, unless there is one series: the title says what it is."""
    if len(series) > 1:
        drawn.legend += [(h, each.name) for h, each in zip(handles, series, strict=True)]


def _set_x(axes: Axes, plot: Plot, names: Sequence[str] | None, values: Sequence[float]) -> None:
    """Nothing; the axis is then as the plot asks, plain where a logarithm has no place for a 0."""
    if names is not None:
        axes.set_xticks(range(len(names)), [plain(name, LONGEST_NAME_AT_END) for name in names])
        if sum(len(name) + 2 for name in names) > 70:
            axes.tick_params(axis="x", rotation=35)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    elif plot.log_x and values[0] > 0:
        axes.set_xscale("log", base=2 if is_binary(values) else 10)
        set_logarithmic(axes.xaxis, values, at_values=plot.kind == "line")
    else:
        set_plain(axes.xaxis, values)
