"""`Plot` → a figure → SVG and PNG: the same bytes for the same plot, whatever the settings here.

The title at the left, what is measured under it, a light grid, colours that colour-blind readers
tell apart with a marker for each, so that nothing depends on colour alone. Text stays text in SVG.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from dewey_embed.eval.report.marks import draw_marks, figure_height, plain, separate
from dewey_embed.eval.result_page import Plot

WIDTH = 5.2
"""Inches, of 96 CSS pixels."""

LEGEND_CHARS = 60
"""Characters in a row of a legend, with six for each marker."""

LINE = 17
"""Points from one line of text to the next."""

EDGE = 0.06
"""Inches left free around everything that is drawn."""

PNG_DPI = 192
"""Two pixels for each of CSS."""

INK, MUTED, FAINT = "#1f2328", "#59636e", "#e4e7eb"

STYLE: Any = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: one layout on every machine
    "font.size": 10,
    "text.color": INK,
    "text.hinting": "none",  # hinted text is wider at one resolution than at another
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": "#b6bcc4",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": "#b6bcc4",
    "ytick.color": "#b6bcc4",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.9,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "dewey",
}


class Picture(NamedTuple):
    """A drawn plot: SVG, with its text as text, and PNG, with two pixels for each of CSS."""

    svg: str
    png: bytes


def render(plot: Plot) -> Picture:
    """The picture of a plot."""
    with style():
        figure = draw(plot)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
        return Picture(svg.getvalue(), png.getvalue())


@contextmanager
def style() -> Iterator[None]:
    """Apply our style, and no one else's settings, while a figure is drawn and written."""
    with mpl.rc_context(), warnings.catch_warnings():
        # In SVG the reader's fonts draw the characters that ours lack.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        # Names as tall as the picture leave no room; it is drawn as far as it goes.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def draw(plot: Plot) -> Figure:
    """A plot as a figure of matplotlib's, laid out under the current style."""
    heading, measured = _wrapped(plot.title, 46), _wrapped(plot.y_label, 60)
    layout = ConstrainedLayoutEngine(w_pad=EDGE, h_pad=EDGE)
    figure = Figure(figsize=(WIDTH, figure_height(plot)), layout=layout, dpi=PNG_DPI)
    axes = figure.add_subplot()
    marks = draw_marks(axes, plot)
    title = figure.suptitle(heading, x=0.0, ha="left", weight="bold", size=12, color=INK)
    axes.set_title(measured, loc="left", size=10, color=MUTED, pad=9)
    axes.set_xlabel(_wrapped(plot.x_label, 60), labelpad=6)
    num_rows = 0
    if marks.legend:
        above = 9 + LINE * len(measured.splitlines())
        num_rows = _add_legend(figure, axes, marks.legend, above=above)
    # Lines of text above the axes make the figure taller, not the axes smaller.
    lines = max(0, num_rows - 1) + heading.count("\n") + measured.count("\n")
    figure.set_figheight(figure.get_figheight() + lines * LINE / 72)
    _lay_out(figure, axes, title)
    separate(axes, marks)
    return figure


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(plain(text), width))


def _add_legend(
    figure: Figure, axes: Axes, entries: Sequence[tuple[Any, str]], *, above: int
) -> int:
    """The number of rows of the legend, which stands `above` points over the axes."""
    longest = max(len(name) for _, name in entries)
    in_one_row = sum(len(name) + 6 for _, name in entries) <= LEGEND_CHARS
    num_columns = len(entries) if in_one_row else min(len(entries), LEGEND_CHARS // (longest + 6))
    legend = axes.legend(
        [handle for handle, _ in entries],
        ["·"] * len(entries),  # matplotlib leaves out a name that begins with _
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=axes.transAxes + ScaledTranslation(0, above / 72, figure.dpi_scale_trans),
        ncols=num_columns,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.6,
        columnspacing=1.4,
    )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)
    return math.ceil(len(entries) / num_columns)


def _lay_out(figure: Figure, axes: Axes, title: Text) -> None:
    """Fix the layout, with all text above the axes at the left edge."""
    left = EDGE / figure.get_figwidth()
    title.set_x(left)
    legend = axes.get_legend()
    for _ in range(2):  # text moved to the left frees room at the right
        figure.draw_without_rendering()
        box = axes.get_position()
        shift = (left - box.x0) / box.width
        axes._left_title.set_x(shift)  # type: ignore[attr-defined]
        if legend is not None:
            transform = legend.get_bbox_to_anchor()._transform  # type: ignore[attr-defined]
            legend.set_bbox_to_anchor((shift, 1), transform=transform)
    figure.set_layout_engine("none")
